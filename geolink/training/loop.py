"""The loop: a task, its data and its settings in, a trained module out; resumable at any step."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn

from geolink.errors import GeolinkError, InputError
from geolink.files import full_disk_named
from geolink.models.threads import on_threads
from geolink.sources.network import Progress
from geolink.training.callbacks import (
    Clock,
    EpochEnd,
    EpochHook,
    Reporter,
    StateKeeper,
    StopSignals,
    Watch,
)
from geolink.training.data import Batch, OrderedSamples, Steps, make_loader
from geolink.training.distributed import world
from geolink.training.logs import RunLog
from geolink.training.module import TrainingRun
from geolink.training.settings import TrainingSettings
from geolink.training.state import STATE, TrainingState, require_same_settings


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        module: the trained task, or its running average.
        step: steps that are done.
        steps: steps of the whole run; more than `step` where it was asked to stop.
        skipped: why samples were replaced since the run went on, in this process, and how often.
        waiting: share of the time in which the device waited for data.
    """

    module: nn.Module
    step: int
    steps: int
    skipped: dict[str, int]
    waiting: float

    @property
    def finished(self) -> bool:
        """False where the run was asked to stop before its end."""
        return self.step == self.steps


@dataclass(frozen=True)
class Watchers:
    """Who is told of a run.

    Attributes:
        progress: called with (stage, done, total) at every step.
        watch: called with a status at every line of the log.
        hooks: called at the end of epochs.
        every: epochs between their calls.
        enough: asked before the first step and after every one whether the run should stop early.
    """

    progress: Progress = lambda stage, done, total: None
    watch: Watch = lambda status: None
    hooks: Sequence[EpochHook] = ()
    every: int = 1
    enough: Callable[[], bool] = lambda: False


def train(
    task: nn.Module,
    samples: OrderedSamples[Any],
    collate: Callable[[list[Any]], Batch],
    *,
    settings: TrainingSettings,
    record: dict[str, Any],
    folder: Path,
    watchers: Watchers | None = None,
) -> TrainingResult:
    """Trains a task, from the state in `folder` where there is one.

    A run that was cut, at whatever moment, ends with the same weights as one that was not: on a
    CPU bit for bit, on as many threads as it began with. Under torchrun every process calls this
    alike.

    Args:
        task: module whose forward gives the losses of a batch, among them `loss`.
        samples: what it is trained on.
        collate: joins samples into a batch.
        settings: how it is trained.
        record: plain data of whatever else decides the weights; a resumed run must repeat it.
        folder: the run folder, for state and logs.
        watchers: who is told of the run.

    Raises:
        ConfigError: the settings cannot be used, or are not those of the state.
        CheckpointError: the state is damaged.
        DivergedError: the loss is no finite number.
        InputError: the data cannot be read, or a worker was killed.
        OutputError: the disk is full.
    """
    watchers = watchers or Watchers()
    rank, world_size = world()
    record = {**record, "training": settings.shaping(), "samples": len(samples)}
    state = open_state(folder, record)
    start = state.step if state else 0
    steps = Steps(samples, settings, start=start, rank=rank, world_size=world_size)
    run = TrainingRun(
        task, settings, steps=steps.total, steps_per_epoch=steps.per_epoch, state=state
    )
    if not len(steps) or watchers.enough():
        return TrainingResult(run.result, run.step, steps.total, {}, 0.0)
    log = RunLog(folder, step=start) if rank == 0 else None
    clock = Clock()
    reporter = Reporter(log, clock, progress=watchers.progress, watch=watchers.watch)
    threads = state.threads if state else torch.get_num_threads()
    with _failures_named(folder, run), torch.random.fork_rng(devices=[]), on_threads(threads):
        signals = StopSignals()
        keeper = StateKeeper(folder, record, stop=lambda: signals.asked or watchers.enough())
        ends = EpochEnd(watchers.hooks, log, every=watchers.every)
        trainer = make_trainer(
            settings, [signals, reporter, ends, keeper, clock], world_size=world_size
        )
        pin = trainer.strategy.root_device.type == "cuda"
        run.train()
        trainer.fit(run, make_loader(samples, steps, collate, pin=pin))
    if log is not None:
        log.close()
    waiting = clock.waited / clock.worked if clock.worked else 0.0
    return TrainingResult(run.result, run.step, steps.total, dict(reporter.skipped), waiting)


def open_state(folder: Path, record: dict[str, Any]) -> TrainingState | None:
    """The state in a run folder, None where there is none.

    Raises:
        CheckpointError: it is damaged.
        ConfigError: it is of a run with other settings.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    state = TrainingState.load(path)
    require_same_settings(state.settings, record, folder)
    return state


def make_trainer(
    settings: TrainingSettings, callbacks: list[Callback], *, world_size: int
) -> Trainer:
    """A lightning trainer that runs through its loader once and leaves all else to us."""
    strategy: Any = "auto"
    if settings.strategy == "fsdp":
        strategy = ModelParallelStrategy(
            data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    elif world_size > 1:
        strategy = DDPStrategy(gradient_as_bucket_view=True)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Trainer(
        accelerator=settings.device,
        devices=local,
        num_nodes=max(world_size // local, 1),
        strategy=strategy,
        precision="bf16-mixed" if settings.device == "cuda" else "32-true",
        max_epochs=1,
        accumulate_grad_batches=settings.accumulate,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def _failures_named(folder: Path, run: TrainingRun) -> Iterator[None]:
    """Turns failures of the machine into one sentence, and keeps lightning's words to itself."""
    lightning = logging.getLogger("lightning.pytorch")
    level = lightning.level
    lightning.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), full_disk_named(folder / STATE):
            # Advice on worker counts and validation, which are chosen here on purpose.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning's own use of a name that newer versions of PyTorch rename.
            warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
            yield
    except GeolinkError as error:
        if "DataLoader worker" not in str(error):
            raise
        # A worker's error comes with its traceback as text; the last line is what it said.
        said = str(error).strip().splitlines()[-1].partition(": ")[2]
        raise type(error)(said) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            f"a worker that prepares samples was killed at step {run.step}, probably for lack of "
            "memory; resume the run with fewer workers"
        ) from error
    finally:
        lightning.setLevel(level)
