"""Results appear whole or not at all: written beside the target, renamed into place."""

import errno
import hashlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from geolink.errors import GeolinkError, OutputError

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("no space left", "disk is full", "disk full", "quota exceeded", "file too large")

# In a folder that is written to; the system releases it when the process dies.
_LOCK = ".lock"


def require_writable(target: Path, *, overwrite: bool) -> None:
    """Check that `target` can be written, before work is spent on it.

    Raises:
        OutputError: the folder is missing or read-only, or the target exists.
    """
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist; create it or choose another output")
    if target.is_dir():
        raise OutputError(f"{target} is a folder; name a file as output")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; choose another name or allow overwriting it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} is read-only; choose another output")


@contextmanager
def atomic_path(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends well.

    The path has the target's name, in a hidden folder beside it, so that side files of a writer
    (journals, `.aux.xml`) never reach the user (see `scratch_beside`).

    Raises:
        OutputError: the target cannot be written, or the disk is full.
    """
    require_writable(target, overwrite=overwrite)
    with full_disk_named(target), scratch_beside(target) as scratch:
        yield scratch / target.name
        _publish(scratch / target.name, target)


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` for the time of the block.

    It is locked, so that one whose process was killed is known, and goes with the next call.
    """
    _remove_abandoned(target)
    scratch, lock = _locked_folder(target)
    try:
        yield scratch
    finally:
        lock.release()
        shutil.rmtree(scratch, ignore_errors=True)


def _locked_folder(target: Path) -> tuple[Path, FileLock]:
    """A new hidden folder; another, where somebody takes it for abandoned before it is locked."""
    while True:
        prefix = f".{target.name}."
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=target.parent))
        lock = FileLock(folder / _LOCK)
        # Where a file system knows no locks, a folder is never taken for an abandoned one.
        with suppress(NotImplementedError, OSError):
            lock.acquire(timeout=0)
        if folder.is_dir():
            return folder, lock
        lock.release()


def _remove_abandoned(target: Path) -> None:
    """Delete the hidden folders of processes that were killed while they wrote `target`."""
    name = re.compile(rf"\.{re.escape(target.name)}\.\w{{8}}\.part")
    for folder in target.parent.glob(".*.part"):
        if not (name.fullmatch(folder.name) and folder.is_dir()):
            continue
        with suppress(NotImplementedError, OSError):  # one that is in use among them
            if (folder / _LOCK).exists():
                with FileLock(folder / _LOCK, timeout=0):
                    pass
            elif not any(folder.iterdir()):
                folder.rmdir()  # unless it is locked just now
                continue
            # Without a lock it was being deleted: the lock comes first, and may go first.
            shutil.rmtree(folder, ignore_errors=True)


def replace_bytes(target: Path, payload: bytes) -> None:
    """Make `target` a file with this content, in one step and whatever stood there before.

    For the many small files of a store: unlike `atomic_path` it does not wait for the disk, since
    a store checks what it reads.

    Raises:
        OutputError: the target cannot be written, or the disk is full.
    """
    with full_disk_named(target):
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".part", dir=target.parent
        )
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def file_identity(path: Path) -> list[str | int]:
    """Name, size and time of a file; enough to notice that it was replaced.

    What GDAL opens need not be a file (`/vsizip/...`, a part of one); of such it is the name.
    """
    if not path.exists():
        return [str(path)]
    stat = path.stat()
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def full_disk_named(target: Path) -> Iterator[None]:
    """Turn "disk full" and "no permission", in any library's words, into an `OutputError`.

    Other errors pass unchanged: they may come from inputs that are read meanwhile.
    """
    try:
        yield
    except GeolinkError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"the folder {target.parent} is read-only; choose another output"
        elif _tells_full_disk(error):
            message = f"the disk is full at {target.parent}; free some space and run again"
        else:
            raise
        raise OutputError(message) from error


@contextmanager
def write_errors_named(target: Path) -> Iterator[None]:
    """Turn any failure of GDAL or SQLite into an `OutputError`; for blocks that only write.

    GDAL tells a full disk by whatever it stumbles over first, such as a failed seek, so that its
    words cannot be trusted and its text is only quoted.
    """
    try:
        with full_disk_named(target):
            yield
    except Exception as error:
        if not type(error).__module__.startswith(("rasterio.", "pyogrio.", "sqlite3")):
            raise
        raise probably_full(target, error) from error


def probably_full(target: Path, error: Exception) -> OutputError:
    """What to tell of a failure to write that is none of the operating system's own."""
    return OutputError(
        f"{target} cannot be written, probably since the disk is full ({error}); "
        "free some space and run again"
    )


def scratch_database(path: Path) -> sqlite3.Connection:
    """A database in a file that goes with the run, and need not survive a fall of the machine."""
    database = sqlite3.connect(path, isolation_level=None)
    for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -16000"):
        database.execute(f"PRAGMA {setting}")
    return database


def _publish(written: Path, target: Path) -> None:
    """Force `written` to the disk, then rename it to `target`."""
    _sync(written)
    os.replace(written, target)
    if os.name == "posix":  # the rename itself lives in the folder; only POSIX can sync one
        _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tells_full_disk(error: BaseException | None) -> bool:
    """True where the error, or one that led to it, says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL_ERRNOS:
            return True
        if any(word in str(error).lower() for word in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False
