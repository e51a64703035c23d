"""The folder that a training run writes into."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from geolink.errors import OutputError
from geolink.files import full_disk_named


def claim(out: Path, contents: Sequence[str], *, resume: bool, overwrite: bool) -> None:
    """Makes the run folder, and removes an earlier run where that is asked for.

    Args:
        out: the folder; the one that it is in must exist.
        contents: names of what a run writes into it.
        resume: an earlier run goes on.
        overwrite: an earlier run is removed.

    Raises:
        OutputError: the folder holds a run, or cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; name a folder for the run")
    begun = [out / name for name in contents if (out / name).exists()]
    if begun and not (resume or overwrite):
        raise OutputError(
            f"{out} holds a run; go on with --resume, replace it with --overwrite, or name another "
            "folder"
        )
    if not out.absolute().parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist; create it or choose another")
    with full_disk_named(out):
        out.mkdir(exist_ok=True)
        for path in begun if overwrite else ():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
