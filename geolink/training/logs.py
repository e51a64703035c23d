"""Logs of a run: a CSV table and TensorBoard events, which a resumed run continues exactly."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from geolink.files import full_disk_named, replace_bytes

CSV, EVENTS = "log.csv", "tensorboard"


class RunLog:
    """Writes named numbers per step.

    Lines of steps that a killed run had done, but not saved, are dropped when it is resumed: they
    are done again.

    Args:
        folder: the run folder.
        step: steps that are done already.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        self.path = folder / CSV
        self._rows = [row for row in _read(self.path) if int(row["step"]) <= step] if step else []
        self._columns = list(dict.fromkeys(name for row in self._rows for name in row))
        with full_disk_named(self.path):
            self._events = SummaryWriter(str(folder / EVENTS), purge_step=step + 1)
        self._rewrite()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values of a step; a step may have several lines.

        Raises:
            OutputError: the disk is full.
        """
        row = {"step": str(step), **{name: f"{value:.8g}" for name, value in values.items()}}
        self._rows.append(row)
        with full_disk_named(self.path):
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
            if row.keys() <= set(self._columns):
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self._columns).writerow(row)
                return
        self._columns = list(dict.fromkeys([*self._columns, *row]))
        self._rewrite()

    def close(self) -> None:
        """Writes out what is held back."""
        self._events.close()

    def _rewrite(self) -> None:
        """Writes the table anew, after its columns or rows have changed."""
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns)
        table.writeheader()
        table.writerows(self._rows)
        replace_bytes(self.path, text.getvalue().encode())


def _read(path: Path) -> list[dict[str, str]]:
    """Rows of a log; cells without a value are left out, a line that was cut is dropped."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(file)]
    return [row for row in rows if row.get("step", "").isdigit()]
