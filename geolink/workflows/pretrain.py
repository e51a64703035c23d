"""`pretrain`: images and OpenStreetMap in, the weights of a model's encoders out."""

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch

from geolink._version import __version__
from geolink.augment import Augmentation
from geolink.checkpoint import save_checkpoint
from geolink.config import ModelConfig
from geolink.errors import ConfigError, OutputError
from geolink.files import full_disk_named, replace_bytes
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.legend import Legend
from geolink.models.card import ModelCard
from geolink.models.geolink import GeoLink
from geolink.models.objectives import RELEASED_MOST_NODES, ObjectiveConfig
from geolink.mosaic import fingerprint
from geolink.samples import IMAGE_MEAN, IMAGE_STD
from geolink.shards import ShardDataset
from geolink.sources.manifest import MANIFEST, Manifest
from geolink.sources.model_origins import CARD, WEIGHTS
from geolink.training.callbacks import EpochHook, Status, Watch
from geolink.training.distributed import launch, world
from geolink.training.logs import CSV, EVENTS
from geolink.training.loop import Watchers, train
from geolink.training.pretraining import MaskedSamples, PretrainTask
from geolink.training.settings import TrainingSettings
from geolink.training.state import STATE, TrainingState
from geolink.workflows.inference import pick_device
from geolink.workflows.pretrain_hooks import (
    PICTURES,
    model_of,
    picture_hook,
    probe_hook,
    weights_hook,
)
from geolink.workflows.progress import Progress, silent
from geolink.workflows.shard_building import ShardRequest, build_shards

__all__ = [
    "ObjectiveConfig",
    "PretrainRequest",
    "PretrainResult",
    "TrainingSettings",
    "pretrain",
]

ModelSize: TypeAlias = Literal["tiny", "small", "base", "large"]
Profile: TypeAlias = Literal["geolink", "released"]

SHARDS, RUN = "shards", "run.json"
_POLL_S = 0.5


@dataclass(frozen=True)
class PretrainRequest:
    """One pretraining run.

    Attributes:
        out: the run folder.
        images: a folder of shards, or of georeferenced rasters and pictures with a bounding box.
        imagery: instead, a raster, or `simulated`.
        osm: OSM extracts of the images; not needed with shards.
        gsd: metres per pixel of tiles cut from rasters or simulated.
        tiles: greatest number of simulated tiles per extract and ground sampling distance.
        model_size: size of the image encoder.
        image_size: height and width of the images that the model sees, pixels.
        profile: `geolink` is the paper's method with its corrections (attention among node types,
            relation types that count), `released` does as the released code (at most 10 masked
            nodes, types that weigh the same, relations ignored, the corpus's own key counts).
        objectives: weights and masks.
        training: how it is trained.
        augmentation: crops, turns and colours; None shows every tile whole and as it is.
        probe: pictures in one folder per class, on which features are measured.
        every: epochs between weights, pictures and probes.
        resume: go on with the run in `out`.
        overwrite: replace the run in `out`.
    """

    out: Path
    images: Path | None = None
    imagery: str | Path | None = None
    osm: tuple[Path, ...] = ()
    gsd: tuple[float, ...] = ()
    tiles: int | None = None
    model_size: ModelSize = "tiny"
    image_size: int = 224
    profile: Profile = "geolink"
    objectives: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    probe: Path | None = None
    every: int = 1
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("out", "images", "probe"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        object.__setattr__(self, "osm", tuple(map(Path, self.osm)))
        if (self.images is None) == (self.imagery is None):
            raise ConfigError("give either a folder of images, or imagery, to pretrain on")
        if self.model_size not in get_args(ModelSize):
            sizes = ", ".join(get_args(ModelSize))
            raise ConfigError(f"no model size {self.model_size!r}; choose one of {sizes}")
        if self.profile not in get_args(Profile):
            raise ConfigError(f"no profile {self.profile!r}; choose geolink or released")
        if self.resume and self.overwrite:
            raise ConfigError("a run is either resumed or overwritten; choose one")
        if self.every < 1:
            raise ConfigError(f"epochs between pictures are 1 or more, got {self.every}")

    @property
    def asked(self) -> ObjectiveConfig:
        """The objectives, with the released code's limit of masked nodes where it is asked for."""
        if self.profile == "released" and self.objectives.most_masked_nodes is None:
            return replace(self.objectives, most_masked_nodes=RELEASED_MOST_NODES)
        return self.objectives

    def model(self, semantic_dim: int) -> ModelConfig:
        """What the model is made of."""
        name = f"vit_{self.model_size}_patch16_224"
        config = ModelConfig(image_encoder=name, pretraining=True)
        if self.profile == "released":
            config = ModelConfig.released(name)
        return replace(config, image_size=self.image_size, semantic_dim=semantic_dim)


@dataclass(frozen=True)
class PretrainResult:
    """What a run made.

    Attributes:
        out: the run folder, which `--model` takes.
        samples: size of the data set.
        step: steps that are done.
        losses: of the last line of the log.
        skipped: why samples were replaced since the run went on, and how often.
        waiting: share of the time in which the device waited for data.
        simulated: True where images were rendered, not observed.
        seconds: wall time since the run went on.
        rank: number of this process; the first one speaks for all.
    """

    out: Path
    samples: int
    step: int
    losses: Mapping[str, float]
    skipped: Mapping[str, int]
    waiting: float
    simulated: bool
    seconds: float
    rank: int = 0

    @property
    def summary(self) -> str:
        """One line for people."""
        losses = ", ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        line = f"{self.out}: {self.step:,} steps on {self.samples:,} samples"
        line += f" in {self.seconds:.0f} s ({losses or 'it was finished before'})"
        if self.simulated:
            line += " (SIMULATED imagery, drawn from OSM)"
        if self.skipped:
            line += f"; {sum(self.skipped.values())} samples were replaced, see the log"
        return line

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data."""
        return {**asdict(self), "out": str(self.out)}


def pretrain(
    request: PretrainRequest | None = None,
    progress: Progress = silent,
    watch: Watch = lambda status: None,
    **settings: Any,  # noqa: ANN401 - checked by PretrainRequest
) -> PretrainResult:
    """Trains encoders on images and OSM without labels (Bai et al. 2025, section 3.3).

    Under torchrun, call it alike in every process. A run that is cut goes on with `resume` and ends
    with the weights of an uninterrupted one.

    Args:
        request: what to do; or give its fields by name.
        progress: called with (stage, done, total).
        watch: called with losses, rate, speed and time left, at every line of the log.
        **settings: fields of a `PretrainRequest`.

    Raises:
        ConfigError: the settings cannot be used, or are not those of the run to resume.
        InputError: data cannot be read.
        DivergedError: the loss is no finite number.
        OutputError: the run folder cannot be written, or holds a run.
        KeyboardInterrupt: the run was asked to stop; its state is saved.
    """
    request = request or PretrainRequest(**settings)
    started = time.monotonic()
    run = _Run.of(request, _prepared(request, progress))
    samples = run.samples(request.augmentation)
    last: list[Status] = []

    def report(status: Status) -> None:
        last[:] = [status]
        watch(status)

    result = train(
        run.task(),
        samples,
        samples.join,
        settings=run.training,
        record=run.record(),
        folder=request.out,
        watchers=Watchers(progress, report, run.hooks(), request.every),
    )
    if not result.finished:
        raise KeyboardInterrupt(
            f"stopped after step {result.step:,} of {result.steps:,}; the state is saved in "
            f"{request.out}, and the same command with --resume goes on from there"
        )
    if run.training.strategy == "fsdp" and world()[0] == 0:
        run.gather_weights()
    return PretrainResult(
        out=request.out,
        samples=len(samples),
        step=result.step,
        losses=last[0].losses if last else {},
        skipped=result.skipped,
        waiting=result.waiting,
        simulated=run.manifest.simulated,
        seconds=time.monotonic() - started,
        rank=world()[0],
    )


@dataclass(frozen=True)
class _Run:
    """A request with its data at hand.

    Attributes:
        request: what to do.
        shards: folder of the samples.
        manifest: what is in it.
        encoder: turns tag strings into vectors.
        config: what the model is made of.
        training: how it is trained, on a device that is here.
    """

    request: PretrainRequest
    shards: Path
    manifest: Manifest
    encoder: TableTagEncoder
    config: ModelConfig
    training: TrainingSettings

    @classmethod
    def of(cls, request: PretrainRequest, shards: Path) -> "_Run":
        encoder = TableTagEncoder()
        device = pick_device(request.training.device).type
        training = replace(request.training, device=device)
        config = request.model(encoder.dim)
        return cls(request, shards, Manifest.load(shards), encoder, config, training)

    @property
    def key_counts(self) -> Mapping[str, int]:
        """Counts of tag keys: the corpus's own as the paper does, else of keys that tell much."""
        if self.request.profile == "released":
            return self.manifest.key_counts
        return bundled_key_counts()

    def samples(self, augmentation: Augmentation | None) -> MaskedSamples:
        """The samples with their masks, in random views or as they are."""
        data = ShardDataset(
            self.shards,
            encoder=self.encoder,
            key_counts=self.key_counts,
            augmentation=augmentation,
            seed=self.training.seed,
            side=self.config.image_size,
            coverage_side=self.config.coverage_side,
        )
        return MaskedSamples(
            data, self.config, objectives=self.request.asked, seed=self.training.seed
        )

    def task(self) -> PretrainTask:
        """The model and its objectives, the same for equal seeds."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            return PretrainTask(GeoLink(self.config), self.request.asked)

    def record(self) -> dict[str, Any]:
        """Whatever else than the training settings decides the weights."""
        views = self.request.augmentation
        return {
            "shards": fingerprint({"files": [shard.sha256 for shard in self.manifest.shards]}),
            "model": self.config.to_dict(),
            "objectives": self.request.asked.to_dict(),
            "augmentation": asdict(views) if views else {},
            "profile": self.request.profile,
        }

    def hooks(self) -> list[EpochHook]:
        """What is done at the end of epochs; a model in pieces cannot be looked at."""
        if self.training.strategy == "fsdp":
            return []
        simulated, side = self.manifest.simulated, self.config.image_size
        hooks = [
            weights_hook(self.request.out, self.card),
            picture_hook(self.request.out, self.samples(None), simulated=simulated),
        ]
        if self.request.probe is not None:
            hooks.append(probe_hook(self.request.probe, side=side, seed=self.training.seed))
        return hooks

    def gather_weights(self) -> None:
        """Writes the weights of a model that was spread over processes, from its saved state."""
        task = self.task()
        task.load_state_dict(TrainingState.load(self.request.out / STATE).model)
        save_checkpoint(self.request.out, model_of(task), self.card(self.training.epochs))

    def card(self, epochs: int) -> ModelCard:
        """The card of the model after a number of epochs."""
        manifest, views = self.manifest, self.request.augmentation
        metres = [float(gsd) for gsd in manifest.gsd]
        finest = math.sqrt(views.scale[0]) if views else 1.0  # small crops are enlarged
        names = "; ".join(dict.fromkeys(_described(source) for source in manifest.sources))
        what = "simulated orthophotos" if manifest.simulated else "images"
        return ModelCard(
            name=self.request.out.absolute().name,
            config=self.config,
            legend=Legend("untrained", ()),
            mean=IMAGE_MEAN,
            std=IMAGE_STD,
            gsd_range=(min(metres) * finest, max(metres)),
            tag_encoder=self.encoder.name,
            key_counts=self.key_counts,
            training_data=(
                f"pretraining, {epochs} epochs of {manifest.samples:,} pairs of {what} and OSM "
                f"objects: {names}"
            ),
            licence="MIT; trained on data of OpenStreetMap contributors, ODbL 1.0",
        )


def _described(source: Mapping[str, Any]) -> str:
    """A source and the licence of its imagery."""
    imagery = source["imagery"]
    licence = imagery.get("licence")
    return f"{imagery['description']}" + (f" ({licence})" if licence else "")


def _prepared(request: PretrainRequest, progress: Progress) -> Path:
    """The shards of a run; where they must be built, process 0 does it and the others wait."""
    rank, _ = world()
    note = request.out / RUN
    if rank == 0:
        _claim(request)
        shards = _shards(request, progress)
        content = {"launch": launch(), "shards": str(shards.absolute()), "version": __version__}
        replace_bytes(note, json.dumps(content, indent=1).encode())
        return shards
    while True:
        if note.is_file():
            content = json.loads(note.read_text(encoding="utf-8"))
            if content["launch"] == launch():
                return Path(content["shards"])
        time.sleep(_POLL_S)


def _claim(request: PretrainRequest) -> None:
    """Makes the run folder, and removes an earlier run where that is asked for.

    Raises:
        OutputError: it holds a run, or cannot be made.
    """
    out = request.out
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; name a folder for the run")
    begun = any((out / name).exists() for name in (STATE, CARD, WEIGHTS))
    if begun and not (request.resume or request.overwrite):
        raise OutputError(f"{out} holds a run; resume it, overwrite it, or name another folder")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist; create it or choose another")
    with full_disk_named(out):
        out.mkdir(exist_ok=True)
    if request.overwrite:
        for name in (STATE, CARD, WEIGHTS, CSV, RUN):
            (out / name).unlink(missing_ok=True)
        for name in (EVENTS, PICTURES):
            shutil.rmtree(out / name, ignore_errors=True)


def _shards(request: PretrainRequest, progress: Progress) -> Path:
    """The folder of shards that was named, else one that is built in the run folder."""
    if request.images is not None and (request.images / MANIFEST).is_file():
        return request.images
    imagery = request.imagery if request.images is None else request.images
    assert imagery is not None
    shards = ShardRequest(
        out=request.out / SHARDS,
        imagery=imagery,
        osm=request.osm,
        gsd=request.gsd,
        side=request.image_size,
        limit=request.tiles,
        workers=request.training.workers,
        overwrite=request.overwrite,
    )
    return build_shards(shards, progress).out
