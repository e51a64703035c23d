"""Settings of a training run, whatever it learns."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from geolink.errors import ConfigError

Strategy: TypeAlias = Literal["auto", "fsdp"]

REFERENCE_BATCH = 256  # samples; the base rate is for a batch of this size

# What may differ between the parts of a run: it does not change the weights.
_FREE = ("workers", "save_every", "log_every", "device", "strategy")


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained.

    Attributes:
        epochs: passes over the data.
        batch_size: samples of one step of the optimiser, over all processes and accumulated
            parts; so a run means the same on one process and on many.
        accumulate: parts that each process works through one after the other before a step.
        base_rate: peak learning rate for a batch of 256; it grows in proportion to the batch.
        warmup_epochs: epochs in which the rate rises to its peak; it then falls to 0 along half a
            cosine. At most half of all steps are spent rising.
        weight_decay: of matrices and filters; biases, norms and single vectors have none.
        betas: of AdamW.
        clip: greatest norm of the gradient; larger ones are scaled down to it.
        average_decay: decay of a running average of the weights, which is what is kept in the
            end; 0 keeps the weights themselves.
        seed: of everything random.
        workers: processes that prepare samples, per training process; 0 prepares them in line.
        save_every: steps between saved states.
        log_every: steps between lines of the log.
        device: `cuda`, `mps` or `cpu`.
        strategy: `auto` copies the model to every process, `fsdp` spreads it over them.
    """

    epochs: int = 60
    batch_size: int = 256
    accumulate: int = 1
    base_rate: float = 1e-4
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    average_decay: float = 0.0
    seed: int = 0
    workers: int = 2
    save_every: int = 200
    log_every: int = 10
    device: str = "cpu"
    strategy: Strategy = "auto"

    def __post_init__(self) -> None:
        whole = ("epochs", "batch_size", "accumulate", "save_every", "log_every")
        for name, least in (*((name, 1) for name in whole), ("seed", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, got {getattr(self, name)}")
        for name in ("base_rate", "clip", "warmup_epochs", "weight_decay"):
            positive = name in ("base_rate", "clip")
            value = getattr(self, name)
            if not 0 <= value < math.inf or (positive and not value):
                least_said = "positive" if positive else "0 or more"
                raise ConfigError(f"{name} must be {least_said}, got {value}")
        for share in (*self.betas, self.average_decay):
            if not 0 <= share < 1:
                raise ConfigError(
                    f"betas and average_decay lie in 0..1 (1 excluded), not at {share}"
                )
        if self.strategy not in get_args(Strategy):
            raise ConfigError(f"strategy must be auto or fsdp, got {self.strategy!r}")

    @property
    def peak_rate(self) -> float:
        """The greatest learning rate of the run."""
        return self.base_rate * self.batch_size / REFERENCE_BATCH

    def share_of(self, world_size: int) -> int:
        """Samples of one part of a step in each of `world_size` processes.

        Raises:
            ConfigError: the batch cannot be split evenly.
        """
        share, rest = divmod(self.batch_size, world_size * self.accumulate)
        if rest or not share:
            raise ConfigError(
                f"a batch of {self.batch_size} samples cannot be split over {world_size} processes "
                f"and {self.accumulate} parts; choose a multiple of {world_size * self.accumulate}"
            )
        return share

    def steps_per_epoch(self, samples: int) -> int:
        """Whole batches in a number of samples.

        Raises:
            ConfigError: there is not even one.
        """
        if samples < self.batch_size:
            raise ConfigError(
                f"there are {samples} samples, fewer than a batch of {self.batch_size}; "
                "lower the batch size or add data"
            )
        return samples // self.batch_size

    def rate(self, step: int, *, steps: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0: linear warm-up, then half a cosine."""
        rising = min(round(self.warmup_epochs * steps_per_epoch), steps // 2)
        if step < rising:
            return self.peak_rate * (step + 1) / rising
        done = (step - rising) / max(steps - rising, 1)
        return self.peak_rate * 0.5 * (1 + math.cos(math.pi * done))

    def shaping(self) -> dict[str, Any]:
        """The settings that decide the weights, as plain data; a resumed run must repeat them."""
        settings = {name: value for name, value in asdict(self).items() if name not in _FREE}
        return {**settings, "betas": list(self.betas)}
