"""What the user reads: messages for errors with their exit codes, progress, summaries."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape as escape_markup
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from geolink.errors import ConfigError, GeolinkError, UnavailableError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_INCOMPLETE = 4
EXIT_BELOW = 5

# The first class that fits decides; everything else that is known exits with EXIT_FAILED.
EXIT_CODES: tuple[tuple[type[GeolinkError], int], ...] = (
    (ConfigError, EXIT_USAGE),
    (UnavailableError, EXIT_UNAVAILABLE),
)

NOTICES = "geolink.workflows.stock"

console = Console(stderr=True)
_settings = {"debug": False, "quiet": False, "verbose": 0}


def set_verbosity(**settings: int) -> int:
    """Stores one of `debug`, `quiet`, `verbose`, and sets the log level; returns its value."""
    _settings.update(settings)
    level = logging.WARNING
    if _settings["quiet"]:
        level = logging.ERROR
    elif _settings["verbose"]:
        level = logging.INFO if _settings["verbose"] == 1 else logging.DEBUG
    logger = logging.getLogger("geolink")
    logger.setLevel(level)
    # What is fetched, how much and under which licence is said without being asked.
    logging.getLogger(NOTICES).setLevel(level if _settings["quiet"] else min(level, logging.INFO))
    if not logger.handlers:
        logger.addHandler(RichHandler(console=console, show_time=False, show_path=False))
    return next(iter(settings.values()))


def report(error: Exception) -> int:
    """Prints an error in one line (with its traceback under --debug); returns the exit code."""
    if _settings["debug"]:
        console.print_exception()
    text = str(error)
    if not isinstance(error, GeolinkError):
        text = f"unexpected {type(error).__name__}: {text}; run again with --debug to see where"
    console.print(f"[bold red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), EXIT_FAILED)


def escape(text: str) -> str:
    """`text` with rich's markup and a terminal's commands made harmless, and line breaks folded."""
    line = " ".join(text.split())
    return escape_markup("".join(c if c.isprintable() else "�" for c in line))


def is_quiet() -> bool:
    """True where only errors are wanted."""
    return bool(_settings["quiet"])


def stage_bars() -> Progress:
    """Bars for the stages of a workflow, which show nothing where nobody looks."""
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=is_quiet() or not console.is_terminal,
    )


class StageProgress:
    """Shows the stages of a workflow as progress bars: `progress(stage, done, total)`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of `stage`, which appears at its first call."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)


@contextmanager
def progress_bars() -> Iterator[StageProgress]:
    """Progress bars on stderr; silent under --quiet and where stderr is no terminal.

    An interruption leaves a word on how to go on.
    """
    try:
        with stage_bars() as progress:
            yield StageProgress(progress)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        raise


def show(record: Mapping[str, Any], table: Table | None, line: str, *, as_json: bool) -> None:
    """Prints the result of a command: JSON on stdout, or a table and one line on stderr."""
    if as_json:
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    if _settings["quiet"]:
        return
    if table is not None and not as_json:
        console.print(table)
    console.print(line, highlight=False, soft_wrap=True, markup=False)
