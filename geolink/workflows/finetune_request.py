"""What to fine-tune on, and how."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from geolink.config import Task
from geolink.datasets.dividing import BLOCKS, RANDOM
from geolink.errors import ConfigError
from geolink.training.distributed import world
from geolink.training.finetuning import FinetuneSettings
from geolink.training.labelled import Variation
from geolink.training.settings import REFERENCE_BATCH, TrainingSettings
from geolink.workflows.cutting import Cutting
from geolink.workflows.labelled import LabelledRequest

_LEAST_STEPS = 4  # of an epoch, where there are few samples
_WARMUP = 0.05  # share of the run in which the rate rises, but no more than an epoch


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a task is learned."""

    epochs: int
    batch_size: int
    rate: float


# Bai et al. 2025, section 4; the rates are the middle of the grids that are searched there, but of
# numbers the least: the head overshoots at larger ones, and needs many epochs to come back.
SCHEDULES: dict[Task, Schedule] = {
    "segment": Schedule(30, 32, 3e-4),
    "change": Schedule(80, 64, 1e-4),
    "classify": Schedule(50, 64, 3e-3),
    "regress": Schedule(30, 256, 1e-3),
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
        split: `blocks` of ground, `random`, or a file that was saved; by default blocks of a place,
            and pictures at random.
        block_m: side of the blocks, metres; four tiles by default.
        test_cities: cities to test on, instead of drawing.
        validation_cities: cities to validate on, so that the best state, and how sure it is, are
            chosen for places that are new to the model.
        cutting: which tiles of places become samples.
        keep_samples: keep the samples of places in the run folder, which spares later epochs to
            cut them again.
        least_labelled: share of the pixels of a training sample that must have a class.
        most_uniform: share of these that may have the same class.
        fraction: share of the training samples to use, class-balanced.
        epochs: passes over the training samples; by default as in the paper.
        batch_size: samples of one step; by default as in the paper, but no more than a quarter of
            the samples.
        rates: peak learning rates of the head; of several, the best by validation is kept.
        patience: epochs without a better validation figure after which a run ends; 0 never.
        variation: how samples differ from one epoch to the next; None shows them as they are.
        workers: processes that prepare samples.
        save_every: steps between saved states; by default an epoch.
        half: store the weights as float16, which halves the file.
        device: `auto`, `cuda`, `mps` or `cpu`.
        resume: go on with the run in `out`.
    """

    out: Path = Path("finetuned")
    learning: FinetuneSettings = field(default_factory=FinetuneSettings)
    split: str = ""
    block_m: float | None = None
    test_cities: tuple[str, ...] = ()
    validation_cities: tuple[str, ...] = ()
    cutting: Cutting = field(default_factory=Cutting)
    keep_samples: bool = False
    least_labelled: float = 0.0
    most_uniform: float = 1.0
    fraction: float = 1.0
    epochs: int | None = None
    batch_size: int | None = None
    rates: tuple[float, ...] = ()
    patience: int = 10
    variation: Variation | None = field(default_factory=Variation)
    workers: int = 2
    save_every: int | None = None
    half: bool = False
    device: str = "auto"
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "out", Path(self.out))
        if not self.split:
            object.__setattr__(self, "split", BLOCKS if self.data is None else RANDOM)
        if not self.rates:
            object.__setattr__(self, "rates", (SCHEDULES[self.task].rate,))
        if self.resume and self.overwrite:
            raise ConfigError("a run is either resumed or overwritten; choose one")
        if self.validation_cities and not self.test_cities:
            raise ConfigError("cities to validate on need cities to test on, too")
        tiles = self.data is None and self.task == "segment"
        if not tiles and (self.cutting != Cutting() or self.keep_samples):
            raise ConfigError(
                "scales, looks, number and side of tiles, and whether they are kept, can only be "
                "chosen for places that are segmented"
            )
        if not 0 <= self.least_labelled <= 1 or not 0 < self.most_uniform <= 1:
            raise ConfigError("the shares of labelled pixels, and of one class, lie in 0..1")
        if self.choosy and self.task not in ("segment", "change"):
            raise ConfigError(f"samples of the task {self.task} have no labelled pixels to count")
        if self.patience < 0 or not 0 < self.fraction <= 1:
            raise ConfigError("patience is 0 or more, and the fraction of the labels lies in 0..1")
        if not all(math.isfinite(rate) and rate > 0 for rate in self.rates):
            raise ConfigError("learning rates are positive numbers, such as 0.001,0.0003")
        if len(set(self.rates)) < len(self.rates):
            raise ConfigError("a learning rate is named twice; each is tried once")

    @property
    def choosy(self) -> bool:
        """True where training samples must have telling labels."""
        return self.least_labelled > 0 or self.most_uniform < 1

    def settings(self, rate: float, samples: int, device: str) -> TrainingSettings:
        """How a run with one learning rate is trained on a number of samples."""
        usual, (_, processes) = SCHEDULES[self.task], world()
        batch = min(usual.batch_size, max(samples // _LEAST_STEPS, 1))
        batch = self.batch_size or max(batch - batch % processes, processes)
        epochs = self.epochs or usual.epochs
        return TrainingSettings(
            epochs=epochs,
            batch_size=batch,
            base_rate=rate * REFERENCE_BATCH / batch,
            warmup_epochs=min(_WARMUP * epochs, 1.0),
            betas=(0.9, 0.999),
            seed=self.seed,
            workers=self.workers,
            save_every=self.save_every or max(samples // batch, 1),
            device=device,
        )
