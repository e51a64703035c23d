"""`pretrain`: images and OpenStreetMap in, the weights of a model's encoders out."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from geolink.augment import Augmentation
from geolink.config import ModelConfig
from geolink.legend import Legend
from geolink.models.card import ModelCard
from geolink.models.geolink import GeoLink
from geolink.models.objectives import ObjectiveConfig
from geolink.mosaic import fingerprint
from geolink.samples import IMAGE_MEAN, IMAGE_STD
from geolink.shards import ShardDataset
from geolink.sources.manifest import Manifest
from geolink.sources.shard_stores import open_store
from geolink.training.callbacks import EpochHook, Status, Watch
from geolink.training.distributed import world
from geolink.training.loop import Watchers, train
from geolink.training.pretraining import MaskedSamples, PretrainTask
from geolink.training.settings import TrainingSettings
from geolink.workflows.inference import pick_device
from geolink.workflows.pretrain_data import Semantics, open_semantics, prepare
from geolink.workflows.pretrain_hooks import picture_hook, probe_hook, weights_hook
from geolink.workflows.pretrain_request import PretrainRequest
from geolink.workflows.progress import Progress, silent

__all__ = [
    "ObjectiveConfig",
    "PretrainRequest",
    "PretrainResult",
    "TrainingSettings",
    "pretrain",
]


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
            line += " (with SIMULATED imagery, drawn from OSM)"
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
        UnavailableError: shards, imagery or a text model cannot be had.
        DivergedError: the loss is no finite number.
        OutputError: the run folder cannot be written, or holds a run.
        KeyboardInterrupt: the run was asked to stop; its state is saved.
    """
    request = request or PretrainRequest(**settings)
    started = time.monotonic()
    run = _Run.of(request, prepare(request, progress))
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
        shards: folder or address of the samples.
        manifest: what is in it.
        semantics: what turns tags into vectors.
        config: what the model is made of.
        training: how it is trained, on a device that is here.
    """

    request: PretrainRequest
    shards: str | Path
    manifest: Manifest
    semantics: Semantics
    config: ModelConfig
    training: TrainingSettings

    @classmethod
    def of(cls, request: PretrainRequest, shards: str | Path) -> "_Run":
        device = pick_device(request.training.device).type
        training = replace(request.training, device=device)
        manifest = open_store(shards, offline=request.offline).manifest
        semantics = open_semantics(request, manifest)
        config = request.model(semantics.encoder.dim)
        return cls(request, shards, manifest, semantics, config, training)

    def samples(self, augmentation: Augmentation | None) -> MaskedSamples:
        """The samples with their masks, in random views or as they are."""
        data = ShardDataset(
            self.shards,
            encoder=self.semantics.encoder,
            key_counts=self.semantics.key_counts,
            offline=self.request.offline,
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
            "tag_encoder": self.semantics.name,
        }

    def hooks(self) -> list[EpochHook]:
        """What is done at the end of epochs."""
        simulated, side = self.manifest.simulated, self.config.image_size
        hooks = [
            weights_hook(self.request.out, self.card),
            picture_hook(self.request.out, self.samples(None), simulated=simulated),
        ]
        if self.request.probe is not None:
            hooks.append(probe_hook(self.request.probe, side=side, seed=self.training.seed))
        return hooks

    def card(self, epochs: int) -> ModelCard:
        """The card of the model after a number of epochs."""
        manifest, views = self.manifest, self.request.augmentation
        metres = [float(gsd) for gsd in manifest.gsd]
        finest = math.sqrt(views.scale[0]) if views else 1.0  # small crops are enlarged
        names = "; ".join(dict.fromkeys(_described(source) for source in manifest.sources))
        what = "images" if manifest.observed else "simulated orthophotos"
        what += ", some of them simulated," if manifest.observed and manifest.simulated else ""
        return ModelCard(
            name=self.request.out.absolute().name,
            config=self.config,
            legend=Legend("untrained", ()),
            mean=IMAGE_MEAN,
            std=IMAGE_STD,
            gsd_range=(min(metres) * finest, max(metres)),
            tag_encoder=self.semantics.name,
            key_counts=self.semantics.key_counts,
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
