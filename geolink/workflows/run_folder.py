"""The folder that a training run writes into."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from geolink._version import __version__
from geolink.errors import OutputError
from geolink.files import full_disk_named, replace_bytes
from geolink.training.distributed import launch, world

NOTE = "run.json"
_POLL_S = 0.5


def require_free(out: Path, contents: Sequence[str], *, resume: bool, overwrite: bool) -> None:
    """Check that a run may write into a folder, without touching it.

    A folder with nothing but the note of a run that failed at once is free.

    Args:
        out: the folder; the one that it is in must exist.
        contents: patterns of the names that a run writes into it.
        resume: an earlier run goes on.
        overwrite: an earlier run will be removed.

    Raises:
        OutputError: the folder holds a run, or cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; name a folder for the run")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist; create it or choose another")
    begun = [path for path in _earlier(out, contents) if path.name != NOTE]
    if begun and not (resume or overwrite):
        raise OutputError(
            f"{out} holds a run; go on with --resume, replace it with --overwrite, or name another "
            "folder"
        )


def claim(out: Path, contents: Sequence[str], *, resume: bool, overwrite: bool) -> None:
    """Makes the run folder, and removes an earlier run where that is asked for.

    Under torchrun process 0 does it, and the others wait until it is done.

    Args:
        out: the folder; the one that it is in must exist.
        contents: patterns of the names that a run writes into it.
        resume: an earlier run goes on.
        overwrite: an earlier run is removed.

    Raises:
        OutputError: the folder holds a run, or cannot be made.
    """
    note = {"launch": launch(), "version": __version__}
    if world()[0] > 0:
        while _noted(out / NOTE) != note:
            time.sleep(_POLL_S)
        return
    require_free(out, contents, resume=resume, overwrite=overwrite)
    with full_disk_named(out):
        out.mkdir(exist_ok=True)
        for path in _earlier(out, contents) if overwrite else ():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        replace_bytes(out / NOTE, json.dumps(note).encode())


def _noted(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _earlier(out: Path, contents: Sequence[str]) -> list[Path]:
    """What an earlier run has left."""
    return sorted(path for pattern in contents for path in out.glob(pattern))
