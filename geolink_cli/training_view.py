"""What a training run shows while it runs: bars, and a table of losses, rates and time left."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table

from geolink_cli.messages import StageProgress, console, is_quiet, stage_bars

if TYPE_CHECKING:
    from geolink.training.callbacks import Status

_LINES = 12  # of the table
_SECONDS = 30.0  # between lines where there is no terminal


class TrainingView:
    """Shows the stages as bars, and the last lines of the log as a table."""

    def __init__(self) -> None:
        self._bars = stage_bars()
        self._lines: deque[Status] = deque(maxlen=_LINES)
        self._said = 0.0
        self.progress = StageProgress(self._bars)

    def watch(self, status: "Status") -> None:
        """Takes a line of the log; without a terminal, says it every half minute."""
        self._lines.append(status)
        now = time.monotonic()
        due = now - self._said > _SECONDS or status.step == status.steps
        if due and not console.is_terminal and not is_quiet():
            self._said = now
            console.print(_sentence(status), highlight=False, soft_wrap=True, markup=False)

    def __rich__(self) -> Group:
        """The bars above the table."""
        return Group(self._table(), self._bars) if self._lines else Group(self._bars)

    def _table(self) -> Table:
        table = Table(box=None, header_style="bold")
        losses = list(self._lines[-1].losses)
        for heading in ("step", "epoch", *losses, "rate", "samples/s", "waiting", "time left"):
            table.add_column(heading, justify="right")
        for line in self._lines:
            table.add_row(
                f"{line.step:,}",
                f"{line.epoch:.2f}",
                *(f"{line.losses[name]:.4f}" for name in losses),
                f"{line.rate:.2e}",
                f"{line.samples_per_second:,.1f}",
                f"{line.waiting:.0%}",
                _clock(line.seconds_left),
            )
        return table


@contextmanager
def training_view() -> Iterator[TrainingView]:
    """A live view on stderr, silent under --quiet; an interruption says how to go on."""
    view = TrainingView()
    try:
        if is_quiet() or not console.is_terminal:
            yield view
            return
        with Live(view, console=console, refresh_per_second=4):
            yield view
    except KeyboardInterrupt as stop:
        console.print(str(stop) or "interrupted; --resume goes on from the last saved state")
        raise


def _sentence(status: "Status") -> str:
    losses = ", ".join(f"{name} {value:.4f}" for name, value in status.losses.items())
    return (
        f"step {status.step:,} of {status.steps:,}: {losses}, "
        f"{status.samples_per_second:,.1f} samples/s, {_clock(status.seconds_left)} left"
    )


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
