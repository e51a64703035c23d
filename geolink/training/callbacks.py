"""What happens between steps: reports, saved states, work at the end of epochs, and stopping."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from geolink.sources.network import Progress
from geolink.training.data import Batch
from geolink.training.logs import RunLog
from geolink.training.module import TrainingRun
from geolink.training.sharding import take_state
from geolink.training.state import STATE, TrainingState

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Status:
    """Where a run stands.

    Attributes:
        step: steps that are done, of `steps`.
        steps: steps of the whole run.
        epoch: passes over the data that are done, with the begun one's share.
        epochs: passes of the whole run.
        losses: mean of each loss since the last report.
        rate: learning rate.
        samples_per_second: over all processes, since the last report.
        waiting: share of that time in which the device waited for data.
        skipped: samples that were replaced since the run went on.
        seconds_left: at the present speed.
    """

    step: int
    steps: int
    epoch: float
    epochs: int
    losses: Mapping[str, float]
    rate: float
    samples_per_second: float
    waiting: float
    skipped: int
    seconds_left: float

    def values(self) -> dict[str, float]:
        """The numbers that go into the log."""
        return {
            **self.losses,
            "rate": self.rate,
            "samples_per_second": self.samples_per_second,
            "waiting": self.waiting,
            "skipped": self.skipped,
        }


Watch: TypeAlias = Callable[[Status], None]
# What is done at the end of an epoch: gets the trained module and the epochs done, and returns
# numbers for the log.
EpochHook: TypeAlias = Callable[[nn.Module, int], Mapping[str, float]]


class AfterStep(Callback):
    """A callback that acts once all parts of a step are done."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - lightning's own
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Calls `after_step` for the last part of a step."""
        assert isinstance(pl_module, TrainingRun)
        if (batch_idx + 1) % pl_module.settings.accumulate == 0:
            self.after_step(trainer, pl_module)

    def after_step(self, trainer: Trainer, run: TrainingRun) -> None:
        """What to do; `run.step` counts the step already."""
        raise NotImplementedError


class Clock(Callback):
    """Measures the time between batches, in which the device waits for data.

    It comes last among the callbacks, so that their work does not count as waiting. The first batch
    of a run is not waited for, as nothing can come before it.

    Attributes:
        waited: seconds.
        worked: seconds since the first batch, waiting included.
    """

    def __init__(self) -> None:
        self.waited = self.worked = 0.0
        self._started: float | None = None
        self._ended = 0.0

    def on_train_batch_start(self, *_: Any) -> None:  # noqa: ANN401 - lightning's own
        """Ends a wait."""
        now = time.perf_counter()
        if self._started is None:
            self._started = self._ended = now
        self.waited += now - self._ended

    def on_train_batch_end(self, *_: Any) -> None:  # noqa: ANN401
        """Begins a wait."""
        assert self._started is not None
        self._ended = time.perf_counter()
        self.worked = self._ended - self._started


class Reporter(AfterStep):
    """Reports the run to the log and, in process 0, to who watches.

    Args:
        run_log: None in other processes.
        clock: measures the run.
        progress: called with (stage, done, total) at every step.
        watch: called with the status at every line of the log.
    """

    def __init__(
        self, run_log: RunLog | None, clock: Clock, *, progress: Progress, watch: Watch
    ) -> None:
        self.run_log = run_log
        self.clock = clock
        self.progress = progress
        self.watch = watch
        self.skipped: Counter[str] = Counter()
        self._losses: dict[str, Tensor] = {}
        self._count = 0
        self._step = 0
        self._time = self._waited = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Counts what was skipped."""
        assert isinstance(pl_module, TrainingRun)
        self.skipped.update(batch.skipped)
        if not self._time:
            self._time, self._step = time.perf_counter(), pl_module.step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - lightning's own
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Adds up the losses of the parts."""
        for name, loss in outputs.items():
            self._losses[name] = self._losses.get(name, 0) + loss.detach()
        self._count += 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def after_step(self, trainer: Trainer, run: TrainingRun) -> None:
        """Reports every `log_every` steps and at the end."""
        if self.run_log is not None:
            self.progress("training", run.step, run.steps)
        if run.step % run.settings.log_every == 0 or run.step == run.steps:
            status = self._status(trainer, run)
            if self.run_log is not None:
                self.run_log.write(run.step, status.values())
                self.watch(status)

    def _status(self, trainer: Trainer, run: TrainingRun) -> Status:
        sums = torch.stack([*self._losses.values()]).float() / self._count
        skipped = torch.tensor(float(self.skipped.total()), device=sums.device)
        means = trainer.strategy.reduce(sums, reduce_op="mean").tolist()
        now, waited = time.perf_counter(), self.clock.waited
        speed = (run.step - self._step) / (now - self._time)  # steps per second
        status = Status(
            step=run.step,
            steps=run.steps,
            epoch=run.step / run.steps_per_epoch,
            epochs=run.settings.epochs,
            losses=dict(zip(self._losses, means, strict=True)),
            rate=trainer.optimizers[0].param_groups[0]["lr"],
            samples_per_second=speed * run.settings.batch_size,
            waiting=(waited - self._waited) / (now - self._time),
            skipped=int(trainer.strategy.reduce(skipped, reduce_op="sum")),
            seconds_left=(run.steps - run.step) / speed,
        )
        self._losses, self._count = {}, 0
        self._time, self._waited, self._step = now, waited, run.step
        return status


class EpochEnd(AfterStep):
    """Runs hooks after every `every`-th epoch and after the last, in process 0; others wait."""

    def __init__(self, hooks: Sequence[EpochHook], run_log: RunLog | None, *, every: int) -> None:
        self.hooks = hooks
        self.run_log = run_log
        self.every = every

    def after_step(self, trainer: Trainer, run: TrainingRun) -> None:
        """Runs the hooks where an epoch has ended."""
        epoch, rest = divmod(run.step, run.steps_per_epoch)
        if rest or (epoch % self.every and run.step < run.steps):
            return
        with run.gathered() as result:
            if self.run_log is not None:
                result.eval()
                for hook in self.hooks:
                    if values := hook(result, epoch):
                        self.run_log.write(run.step, values)
                result.train()
        trainer.strategy.barrier()


class StopSignals(Callback):
    """Hears Ctrl-C and requests to terminate while a run trains.

    The first signal lets the step end; a second one ends the process as it always would. It is
    installed after lightning's own handlers, which do not wait for the state to be saved.

    Attributes:
        asked: True once a signal came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, *_: Any) -> None:  # noqa: ANN401 - lightning's own
        """Listens, if in the main thread, which alone can."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in _SIGNALS}
            for number in _SIGNALS:
                signal.signal(number, self._note)

    def on_train_end(self, *_: Any) -> None:  # noqa: ANN401
        """Listens no more."""
        self._restore()

    def on_exception(self, *_: Any) -> None:  # noqa: ANN401
        """Listens no more."""
        self._restore()

    def _note(self, *_: Any) -> None:  # noqa: ANN401
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._before = {}


class StateKeeper(AfterStep):
    """Saves the state every `save_every` steps, at the end, and where the run is asked to stop.

    Args:
        folder: the run folder.
        settings: plain data of everything that decides the weights.
        stop: asked whether to stop; the answer of any process counts for all.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, stop: Callable[[], bool]) -> None:
        self.path = folder / STATE
        self.settings = settings
        self.stop = stop
        self.stopped = False

    def after_step(self, trainer: Trainer, run: TrainingRun) -> None:
        """Saves where it is due."""
        # Asking all processes takes a collective, which is not worth its time at every step.
        if trainer.world_size == 1 or run.step % run.settings.log_every == 0:
            self.stopped = trainer.strategy.reduce_boolean_decision(self.stop(), all=False)
        due = run.step % run.settings.save_every == 0 or run.step == run.steps
        if due or self.stopped:
            optimizer = trainer.optimizers[0]
            fields = take_state(run.task, optimizer, run.average, step=run.step)
            if trainer.is_global_zero:
                threads = torch.get_num_threads()
                state = TrainingState(settings=self.settings, threads=threads, **fields)
                state.save(self.path)
        trainer.should_stop = self.stopped
