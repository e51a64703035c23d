"""A report on the disk: a folder with the record, the page and the pictures."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure as Plot

from geolink.errors import OutputError
from geolink.files import full_disk_named
from geolink.reports.files import REPORT, report_record
from geolink.reports.page import html_page
from geolink.reports.plots import png_bytes, report_plots
from geolink.reports.record import Report

PAGE = "report.html"
_OURS = (REPORT, PAGE)


def require_report_folder(folder: Path, *, overwrite: bool) -> None:
    """Check that a report can be written, before work is spent on it.

    Raises:
        OutputError: the folder's parent is missing, or it holds a report already.
    """
    if not folder.parent.is_dir():
        raise OutputError(f"the folder {folder.parent} does not exist; create it first")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder for the report")
    if not overwrite and any((folder / name).exists() for name in _OURS):
        raise OutputError(f"{folder} holds a report; choose another folder or allow overwriting it")


def write_report(
    folder: Path, report: Report, *, maps: Mapping[str, Plot] | None = None, overwrite: bool
) -> Path:
    """Writes `report.json`, `report.html` and one PNG per picture into a folder.

    Args:
        folder: made where missing; other files in it stay.
        report: what was found.
        maps: further pictures by name, shown after those of the report.
        overwrite: replace an earlier report.

    Returns:
        The page.

    Raises:
        OutputError: the folder cannot be written, holds a report, or the disk is full.
    """
    require_report_folder(folder, overwrite=overwrite)
    plots = report_plots(report) | {f"map {name}": plot for name, plot in (maps or {}).items()}
    pictures = {name: png_bytes(plot) for name, plot in plots.items()}
    record = json.dumps(report_record(report), ensure_ascii=False, allow_nan=False)
    payloads = {f"{_safe(name)}.png": png for name, png in pictures.items()}
    payloads[PAGE] = html_page(report, pictures).encode()
    payloads[REPORT] = (record + "\n").encode()  # moved last: with it, the report is complete
    with full_disk_named(folder / REPORT):
        folder.mkdir(exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".report.", suffix=".part", dir=folder))
        try:
            for name, payload in payloads.items():
                (scratch / name).write_bytes(payload)
            for name in payloads:
                (scratch / name).replace(folder / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder / PAGE


def _safe(name: str) -> str:
    """A file name of a picture's name, which may come from outside."""
    return re.sub(r"[^\w-]+", "_", name).strip("_")[:80] or "picture"
