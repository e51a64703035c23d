"""`finetune`: labels and a model in, a model for their task out."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geolink.checkpoint import CARD, WEIGHTS, load_model, save_checkpoint
from geolink.config import Task
from geolink.datasets.base import LabelledData
from geolink.datasets.dividing import BLOCKS, RANDOM, fewer_labels, require_classes, split_data
from geolink.errors import ConfigError
from geolink.files import replace_bytes
from geolink.models.card import ModelCard
from geolink.models.geolink import GeoLink
from geolink.sources.cache import Cache
from geolink.sources.network import Network
from geolink.splits import Split, save_split
from geolink.training.callbacks import Watch
from geolink.training.distributed import world
from geolink.training.finetuning import (
    FinetuneSettings,
    FinetuneTask,
    class_weights,
    merge_lora,
    model_for,
    scale_answers,
)
from geolink.training.labelled import Collate, LabelledSamples, Variation
from geolink.training.logs import CSV, EVENTS
from geolink.training.loop import Watchers, train
from geolink.training.settings import REFERENCE_BATCH, TrainingSettings
from geolink.training.state import STATE
from geolink.workflows.acquire import local_model
from geolink.workflows.inference import pick_device
from geolink.workflows.labelled import LabelledRequest, labelled_data
from geolink.workflows.progress import Progress, silent
from geolink.workflows.run_folder import claim
from geolink.workflows.site import Supply
from geolink.workflows.validation import BEST, DECISIVE, Validator, figures

SPLIT, RESULT = "split.json", "finetune.json"
_RUN = (STATE, BEST, CARD, WEIGHTS, CSV, EVENTS, SPLIT, RESULT)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a task is learned."""

    epochs: int
    batch_size: int
    rate: float


# Bai et al. 2025, section 4; the rates are the middle of the grids that are searched there.
SCHEDULES: dict[Task, Schedule] = {
    "segment": Schedule(30, 32, 3e-4),
    "change": Schedule(80, 64, 1e-4),
    "classify": Schedule(50, 64, 3e-3),
    "regress": Schedule(30, 256, 3e-2),
}
RATE_GRIDS: dict[Task, tuple[float, ...]] = {
    "segment": tuple(a * b for b in (1e-3, 1e-4, 1e-5) for a in (1, 3, 5)),
    "change": (1e-4,),
    "classify": tuple(a * b for b in (1e-2, 1e-3, 1e-4) for a in (1, 3, 5)),
    "regress": tuple(a * b for b in (1e-1, 1e-2, 1e-3) for a in (1, 3, 5)),
}


@dataclass(frozen=True)
class FinetuneRequest(LabelledRequest):
    """One fine-tuning run.

    Attributes:
        out: the run folder, which `--model` takes.
        learning: which weights learn, and from what loss.
        split: `blocks` of ground, `random`, or a file that was saved; pictures are split at random.
        block_m: side of the blocks, metres; four tiles by default.
        test_cities: cities to test on, instead of drawing.
        fraction: share of the training samples to use, class-balanced.
        epochs: passes over the training samples; by default as in the paper.
        batch_size: samples of one step; by default as in the paper, no more than there are.
        rates: peak learning rates of the head; of several, the best by validation is kept.
        patience: epochs without a better validation figure after which a run ends; 0 never.
        variation: how samples differ from one epoch to the next; None shows them as they are.
        workers: processes that prepare samples.
        save_every: steps between saved states.
        device: `auto`, `cuda`, `mps` or `cpu`.
        resume: go on with the run in `out`.
    """

    out: Path = Path("finetuned")
    learning: FinetuneSettings = field(default_factory=FinetuneSettings)
    split: str = ""
    block_m: float | None = None
    test_cities: tuple[str, ...] = ()
    fraction: float = 1.0
    epochs: int | None = None
    batch_size: int | None = None
    rates: tuple[float, ...] = ()
    patience: int = 10
    variation: Variation | None = field(default_factory=Variation)
    workers: int = 2
    save_every: int = 200
    device: str = "auto"
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "out", Path(self.out))
        if not self.split:
            object.__setattr__(self, "split", BLOCKS if self.data is None else RANDOM)
        if self.resume and self.overwrite:
            raise ConfigError("a run is either resumed or overwritten; choose one")
        if self.patience < 0 or not 0 < self.fraction <= 1:
            raise ConfigError("patience is 0 or more, and the fraction of the labels lies in 0..1")
        if self.learning.mode == "lora" and world()[1] > 1:
            raise ConfigError("LoRA trains few weights; run it in one process")

    def settings(self, rate: float, samples: int, device: str) -> TrainingSettings:
        """How a run with one learning rate is trained."""
        usual = SCHEDULES[self.task]
        batch = min(self.batch_size or usual.batch_size, samples)
        return TrainingSettings(
            epochs=self.epochs or usual.epochs,
            batch_size=batch,
            base_rate=rate * REFERENCE_BATCH / batch,
            warmup_epochs=1.0,
            betas=(0.9, 0.999),
            seed=self.seed,
            workers=self.workers,
            save_every=self.save_every,
            device=device,
        )


@dataclass(frozen=True)
class FinetuneResult:
    """What a run made.

    Attributes:
        out: the run folder.
        task: what the model answers.
        classes: what it tells apart, or the numbers that it predicts.
        samples: number of samples by part of the split.
        rate: learning rate that was kept.
        epoch: the epoch whose state was kept.
        validation: its decisive figure on the validation samples; None without any.
        test: its figures on the test samples.
        simulated: True where images were rendered, not observed.
        seconds: wall time since the run went on.
    """

    out: Path
    task: Task
    classes: tuple[str, ...]
    samples: Mapping[str, int]
    rate: float
    epoch: int
    validation: float | None
    test: Mapping[str, float]
    simulated: bool
    seconds: float

    @property
    def summary(self) -> str:
        """One line for people."""
        found = ", ".join(f"{name} {value:.3f}" for name, value in self.test.items())
        line = f"{self.out}: {found} on {self.samples['test']:,} test samples"
        line += f", after epoch {self.epoch} at rate {self.rate:g}, in {self.seconds:.0f} s"
        return line + (" (SIMULATED imagery, drawn from OSM)" if self.simulated else "")

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data."""
        return {**asdict(self), "out": str(self.out)}


def finetune(
    request: FinetuneRequest | None = None,
    progress: Progress = silent,
    watch: Watch = lambda status: None,
    **settings: Any,  # noqa: ANN401 - checked by FinetuneRequest
) -> FinetuneResult:
    """Trains a model for a task on labels (Bai et al. 2025, section 4).

    Under torchrun, call it alike in every process. A run that is cut goes on with `resume`.

    Args:
        request: what to do; or give its fields by name.
        progress: called with (stage, done, total).
        watch: called with loss, rate, speed and time left, at every line of the log.
        **settings: fields of a `FinetuneRequest`.

    Raises:
        ConfigError: the settings cannot be used, or are not those of the run to resume.
        InputError: images or labels cannot be used, or there is nothing to learn.
        UnavailableError: a model or source is not here and cannot be fetched.
        DivergedError: the loss is no finite number.
        OutputError: the run folder cannot be written, or holds a run.
        KeyboardInterrupt: the run was asked to stop; its state is saved.
    """
    request = request or FinetuneRequest(**settings)
    started = time.monotonic()
    if world()[0] == 0:
        claim(request.out, _RUN, resume=request.resume, overwrite=request.overwrite)
    supply = Supply(Cache(), Network(offline=request.offline, progress=progress))
    base = load_model(local_model(request.model, supply), offline=request.offline)
    data = labelled_data(request, base.card, own_classes=True, progress=progress)
    split = _split(request, data)
    runs = [
        _Run(request, base, data, split, rate).train(progress, watch)
        for rate in request.rates or (SCHEDULES[request.task].rate,)
    ]
    best = max(runs, key=lambda run: run.validator.best if split.validation else 0.0)
    return best.finish(seconds=lambda: time.monotonic() - started)


def _split(request: FinetuneRequest, data: LabelledData) -> Split:
    """The split of a run, kept in its folder."""
    split = split_data(
        data,
        request.split,
        seed=request.seed,
        block_m=request.block_m,
        test_cities=request.test_cities,
    )
    require_classes(data, split)
    if request.fraction < 1:
        split = fewer_labels(data, split, request.fraction, seed=request.seed)
    if world()[0] == 0:
        save_split(split, request.out / SPLIT, overwrite=True)
    return split


class _Run:
    """One training at one rate.

    Args:
        request: what to do.
        base: the model to start from.
        data: labelled data.
        split: its parts.
        rate: peak learning rate of the head.
    """

    def __init__(
        self,
        request: FinetuneRequest,
        base: GeoLink,
        data: LabelledData,
        split: Split,
        rate: float,
    ) -> None:
        self.request, self.base, self.data, self.split, self.rate = (
            request, base, data, split, rate,
        )  # fmt: skip
        self.folder = request.out if len(request.rates) < 2 else request.out / f"rate-{rate:g}"
        self.folder.mkdir(exist_ok=True)
        self.device = pick_device(request.device)
        self.task = self._task()
        self.validator = Validator(
            data,
            split.validation,
            folder=self.folder,
            patience=request.patience,
            device=self.device,
        )

    def train(self, progress: Progress, watch: Watch) -> "_Run":
        """Trains, or goes on training, to the end or until it gets no better."""
        if self.validator.exhausted():
            return self
        request = self.request
        samples = LabelledSamples(
            self.data, self.split.train, seed=request.seed, variation=request.variation
        )
        result = train(
            self.task,
            samples,
            Collate(self.task.model.config),
            settings=request.settings(self.rate, len(samples), self.device.type),
            record=self._record(),
            folder=self.folder,
            watchers=Watchers(progress, watch, [self.validator], enough=self.validator.exhausted),
        )
        if not result.finished and not self.validator.exhausted():
            raise KeyboardInterrupt(
                f"stopped after step {result.step:,} of {result.steps:,}; the state is saved in "
                f"{self.folder}, and the same command with --resume goes on from there"
            )
        return self

    def finish(self, seconds: Callable[[], float]) -> FinetuneResult:
        """Measures the best state and writes it as a model."""
        self.validator.restore(self.task)
        model = self.task.model
        if self.request.learning.mode == "lora":
            merge_lora(model)
        model.to(self.device).eval()
        test = figures(model, self.data, self.split.test, self.device)
        result = FinetuneResult(
            out=self.request.out,
            task=self.request.task,
            classes=self.data.legend.names,
            samples={part: len(self.split.part(part)) for part in ("train", "validation", "test")},
            rate=self.rate,
            epoch=self.validator.best_epoch,
            validation=self.validator.best if self.split.validation else None,
            test=test,
            simulated=self.data.simulated,
            seconds=seconds(),
        )
        if world()[0] == 0:
            save_checkpoint(self.request.out, model, self._card(test))
            record = {**result.to_dict(), "decisive": DECISIVE[self.request.task]}
            text = json.dumps(record, indent=1, ensure_ascii=False)
            replace_bytes(self.request.out / RESULT, text.encode() + b"\n")
        return result

    def _task(self) -> FinetuneTask:
        request, data, train_keys = self.request, self.data, self.split.train
        model = model_for(self.base, request.task, data.legend, seed=request.seed)
        weights = None
        if request.task == "regress":
            scale_answers(model, np.stack([data.label(key) for key in train_keys]).astype("f4"))
        else:
            counts = data.counts(train_keys).sum(axis=0)
            weights = class_weights(counts, request.learning.class_weights)
        return FinetuneTask(model, request.learning, weights=weights)

    def _record(self) -> dict[str, Any]:
        """Whatever else than the training settings decides the weights."""
        request = self.request
        return {
            "base": self.base.card.sha256,
            "task": request.task,
            "classes": list(self.data.legend.names),
            "train": list(self.split.train),
            "learning": request.learning.to_dict(),
            "variation": asdict(request.variation) if request.variation else {},
        }

    def _card(self, test: Mapping[str, float]) -> ModelCard:
        data, base = self.data, self.base.card
        named = "; ".join(dict.fromkeys(source.description for source in data.sources))
        what = "simulated orthophotos" if data.simulated else "images"
        labels = "OSM's own zones" if self.request.weak else "labels"
        learned = (
            f"fine-tuning ({self.request.learning.mode}) to {self.request.task} on "
            f"{len(self.split.train):,} {what} with {labels}: {named}"
        )
        return replace(
            self.task.model.card,
            name=self.request.out.absolute().name,
            gsd_range=data.gsd_range or base.gsd_range,
            training_data=f"{base.training_data}; then {learned}",
            metrics={f"test_{name}": value for name, value in test.items() if np.isfinite(value)},
        )
