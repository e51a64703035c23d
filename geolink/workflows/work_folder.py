"""The folder beside an output where a run keeps what it has until the output is complete."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from geolink.files import file_identity, replace_bytes, scratch_beside
from geolink.workflows.request import PredictRequest

_RECORD = "outputs.json"


def work_folder(out: Path) -> Path:
    """Where a run that writes `out` keeps the scores of its tiles."""
    return out.parent / f".{out.name}.work"


def remove_work(out: Path) -> None:
    """Delete the work folder of `out`, if there is one: it is gone at once, even when killed."""
    with suppress(OSError), scratch_beside(out) as scratch:
        os.replace(work_folder(out), scratch / "work")


def note_outputs(out: Path, written: Mapping[Path, Path]) -> None:
    """Record the files that are about to become outputs, for `may_replace`.

    Args:
        out: whose work folder keeps the record.
        written: the complete files, by the targets that they are renamed to.
    """
    record = {str(target.absolute()): file_identity(file)[1:] for target, file in written.items()}
    replace_bytes(work_folder(out) / _RECORD, json.dumps(record).encode())


def may_replace(request: PredictRequest, out: Path, target: Path) -> bool:
    """Whether an output that exists may be replaced.

    Either all may be, or this one was made by a run that was cut or had failures, which this one
    completes, and has not been changed since.
    """
    return request.overwrite or (request.resume and _is_unfinished(out, target))


def _is_unfinished(out: Path, target: Path) -> bool:
    try:
        record = json.loads((work_folder(out) / _RECORD).read_text(encoding="utf-8"))
        noted: object = record[str(target.absolute())]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False
    return noted == file_identity(target)[1:]
