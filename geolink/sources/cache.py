"""The cache: what was fetched or registered, one folder per entry, each with its own manifest.

An entry is a folder `<kind>/<name>` that holds its files and `entry.json`: where they come from,
under which licence, and their hashes. It is filled beside its place, under a lock, and renamed into
place once it is whole; there is no shared index to fight over. Whatever is read back is data that
nobody vouches for.
"""

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import platformdirs
from filelock import FileLock, Timeout

from geolink.errors import InputError, OutputError, UnavailableError
from geolink.files import full_disk_named
from geolink.sources.base import SourceInfo
from geolink.sources.entries import (
    MANIFEST,
    Entry,
    FileRecord,
    Kind,
    changed_files,
    files_in,
    folder_name,
    load_entry,
    record_of,
    write_manifest,
)
from geolink.sources.http_failures import without_secrets

__all__ = ["KINDS", "Cache", "Entry", "FileRecord", "Kind", "cache_folder"]

logger = logging.getLogger(__name__)

KINDS: tuple[Kind, ...] = get_args(Kind)


class Cache:
    """Entries below one folder. Any number of processes may use it at once.

    Args:
        root: the folder; None is `cache_folder()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (cache_folder() if root is None else root).absolute()
        self._stale: set[Path] = set()

    def renewing(self, entries: Iterable[Entry]) -> "Cache":
        """This cache, to which some entries count as absent until they are published anew.

        They stay where they are until then, so that a fetch that fails takes nothing away.
        """
        cache = Cache(self.root)
        cache._stale = {entry.folder for entry in entries}
        return cache

    def find(self, kind: Kind, name: str) -> Entry | None:
        """The entry with this name if it is here, by a quick look at sizes (see `verify`).

        A damaged entry counts as absent, with a warning, since fetching it again repairs it.

        Raises:
            InputError: the name is empty.
            UnavailableError: registered files are gone, or are not those that were registered.
        """
        folder = self.root / kind / folder_name(name)
        if folder in self._stale or not folder.is_dir():
            return None
        entry = load_entry(folder, kind)
        if not entry.problem and entry.name != name:
            entry = replace(entry, problem=f"its {MANIFEST} belongs to {entry.name!r}")
        if entry.problem and entry.registered:
            raise UnavailableError(
                f"{entry.problem}; it was registered as the {kind} of {name!r}: put it back, or "
                "register it again with `geolink fetch`"
            )
        if entry.problem:
            logger.warning("the cached %s %r is damaged: %s", kind, name, entry.problem)
            return None
        return entry

    def entries(self) -> list[Entry]:
        """All entries by kind and name; the damaged ones too, with their `problem`."""
        return [
            load_entry(folder, kind)
            for kind in KINDS
            for folder in sorted((self.root / kind).glob("[!.]*"))
            if folder.is_dir() and folder not in self._stale
        ]

    @contextmanager
    def staging(self, kind: Kind, name: str) -> Iterator[Path]:
        """A folder to fill for `publish`; only one process at a time holds that of an entry.

        It survives a block that failed, so that the next attempt goes on in it. Files that are
        hidden or end in `.part` are for working only: `publish` drops them. Within the block,
        look with `find` again: another process may have published the entry meanwhile, or a
        publishing that was killed before its last step was completed here.

        Raises:
            InputError: the name is empty.
            OutputError: the cache cannot be written, or the disk is full.
        """
        place = self.root / kind / folder_name(name)
        _make_folder(place.parent)
        with _locked(place), full_disk_named(place):
            _remove_folder(_beside(place, "old"))
            staging = _beside(place, "staging")
            if (staging / MANIFEST).is_file():  # comes last, thus all is there
                _move_into_place(staging, place)
            _make_folder(staging)
            try:
                yield staging
            finally:
                if staging.is_dir() and not any(staging.iterdir()):
                    staging.rmdir()

    def publish(
        self,
        kind: Kind,
        name: str,
        staging: Path,
        *,
        source: str,
        info: SourceInfo,
        details: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Makes a filled folder the entry, in place of an earlier one; within `staging`'s block.

        Args:
            kind: of the entry.
            name: of the entry.
            staging: what `staging` yielded.
            source: URL; user names, passwords and query parameters that look like keys are not
                recorded.
            info: provenance.
            details: plain JSON data.

        Raises:
            OutputError: the cache cannot be written, or the disk is full.
        """
        place = self.root / kind / folder_name(name)
        with full_disk_named(place):
            _drop_working_files(staging)
            entry = Entry(
                kind,
                name,
                place,
                {file: record_of(staging / file) for file in files_in(staging)},
                without_secrets(source),
                info,
                _now(),
                dict(details or {}),
            )
            write_manifest(staging, entry)
            _move_into_place(staging, place)
        self._stale.discard(place)
        return entry

    def register(
        self,
        kind: Kind,
        name: str,
        path: Path,
        *,
        info: SourceInfo,
        details: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Makes an entry of a file or folder of the user, which stays where it is.

        Raises:
            InputError: there is no such file, or the folder is empty.
            OutputError: the cache cannot be written, or the disk is full.
        """
        path = path.absolute()
        files = files_in(path) if path.is_dir() else [path.name]
        if not files or not path.exists():
            raise InputError(f"{path} does not exist or is empty; name an existing file")
        place = self.root / kind / folder_name(name)
        records = {
            file: record_of(path / file if path.is_dir() else path, dated=True) for file in files
        }
        entry = Entry(
            kind, name, place, records, str(path), info, _now(), dict(details or {}), True
        )
        with self.staging(kind, name) as staging:
            _remove_folder(staging)  # of a download that was cut
            staging.mkdir()
            write_manifest(staging, entry)
            _move_into_place(staging, place)
        return entry

    def remove(self, entry: Entry) -> None:
        """Deletes an entry and what an unfinished fetch of it left; never registered files.

        Raises:
            OutputError: it cannot be deleted.
        """
        with _locked(entry.folder):
            old = _beside(entry.folder, "old")
            _remove_folder(_beside(entry.folder, "staging"))
            _remove_folder(old)
            with _cache_errors_named(entry.folder):
                if entry.folder.is_dir():
                    os.replace(entry.folder, old)
            _remove_folder(old)

    def verify(self, entry: Entry) -> list[str]:
        """Reads every file of an entry; returns what is wrong with it, nothing if it is sound."""
        entry = load_entry(entry.folder, entry.kind)
        if entry.problem:
            return [entry.problem]
        return [
            f"{entry.file(name)} has other content than was recorded"
            for name in changed_files(entry)
        ]


def cache_folder() -> Path:
    """Folder of what can be made or fetched again; `GEOLINK_CACHE` sets another."""
    named = os.environ.get("GEOLINK_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("geolink")


# Folders


def _beside(place: Path, purpose: str) -> Path:
    return place.with_name(f".{place.name}.{purpose}")


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Holds the lock of an entry; the system releases that of a process which dies."""
    lock = FileLock(_beside(place, "lock"))
    with _cache_errors_named(place.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("waiting for another process that works on %s", place)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make_folder(folder: Path) -> None:
    with _cache_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _remove_folder(folder: Path) -> None:
    with _cache_errors_named(folder):
        if folder.is_dir():
            shutil.rmtree(folder)


def _move_into_place(staging: Path, place: Path) -> None:
    """Renames a whole folder to its place; after a kill in between, `staging` does the rest."""
    with _cache_errors_named(place):
        old = _beside(place, "old")
        if place.exists():
            os.replace(place, old)
        os.replace(staging, place)
        _remove_folder(old)


@contextmanager
def _cache_errors_named(folder: Path) -> Iterator[None]:
    with full_disk_named(folder):
        try:
            yield
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise OutputError(
                f"the cache cannot use {folder} ({error.strerror}); "
                "name another folder in GEOLINK_CACHE"
            ) from error


def _drop_working_files(staging: Path) -> None:
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.name.startswith(".") or path.suffix == ".part":
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
