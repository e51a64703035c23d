"""The cache: what was fetched or registered, one folder per entry, each with its own manifest.

An entry is a folder `<kind>/<name>` that holds its files and `entry.json`: where they come from,
under which licence, and their hashes. It is filled beside its place, under a lock, and renamed into
place once it is whole; there is no shared index to fight over. Whatever is read back is data that
nobody vouches for.
"""

import json
import logging
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, get_args

import platformdirs
from filelock import FileLock, Timeout

from geolink.errors import InputError, OutputError, UnavailableError
from geolink.files import full_disk_named, replace_bytes, sha256_of
from geolink.sources.base import SourceInfo
from geolink.sources.network import without_secrets

logger = logging.getLogger(__name__)

T = TypeVar("T")
Kind = Literal["osm", "imagery", "model", "place"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MANIFEST = "entry.json"
_FORMAT = 1
_MAX_MANIFEST_BYTES = 64 * 2**20
_MAX_SLUG = 80
# A name that is its own folder's name; none looks like a shortened one, which ends in a hash.
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}(?<!-[0-9a-f]{8})")
_RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)\d")  # of Windows


class FileRecord(TypedDict):
    """What is known of one file of an entry."""

    sha256: str
    bytes: int
    mtime_ns: NotRequired[int]  # of registered files, which are not ours


@dataclass(frozen=True)
class Entry:
    """One thing in the cache.

    Attributes:
        kind: what it is.
        name: as it was asked for.
        folder: its folder in the cache.
        files: name relative to the data's folder, with `/`, to hash and size.
        source: the URL it was fetched from, without secrets, or the path of registered files.
        info: description, date, licence and credit line.
        fetched: when, UTC, ISO 8601.
        details: what else its maker recorded; plain JSON.
        registered: True for files of the user, which lie at `source`.
        problem: why it cannot be used; empty where it can.
    """

    kind: Kind
    name: str
    folder: Path
    files: Mapping[str, FileRecord]
    source: str
    info: SourceInfo
    fetched: str
    details: Mapping[str, Any] = field(default_factory=dict)
    registered: bool = False
    problem: str = ""

    @property
    def path(self) -> Path:
        """The file, or the folder where there are several."""
        if self.registered:
            return Path(self.source)
        return self.folder / next(iter(self.files)) if len(self.files) == 1 else self.folder

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(record["bytes"] for record in self.files.values())

    def file(self, name: str) -> Path:
        """Path of one of its `files`."""
        if not self.registered:
            return self.folder / name
        path = Path(self.source)
        return path / name if path.is_dir() else path


class Cache:
    """Entries below one folder. Any number of processes may use it at once.

    Args:
        root: the folder; None is `cache_folder()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (cache_folder() if root is None else root).absolute()

    def find(self, kind: Kind, name: str) -> Entry | None:
        """The entry with this name if it is here, by a quick look at sizes (see `verify`).

        A damaged entry counts as absent, with a warning, since fetching it again repairs it.

        Raises:
            InputError: the name is empty.
            UnavailableError: registered files are gone, or are not those that were registered.
        """
        folder = self.root / kind / _folder_name(name)
        if not folder.is_dir():
            return None
        entry = _load(folder, kind)
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
            _load(folder, kind)
            for kind in KINDS
            for folder in sorted((self.root / kind).glob("[!.]*"))
            if folder.is_dir()
        ]

    @contextmanager
    def staging(self, kind: Kind, name: str) -> Iterator[Path]:
        """A folder to fill for `publish`; only one process at a time holds that of an entry.

        It survives a block that failed, so that the next attempt goes on in it. Files that are
        hidden or end in `.part` are for working only: `publish` drops them. Whoever waited here
        looks with `find` again, since the other process may have published the entry meanwhile.

        Raises:
            InputError: the name is empty.
            OutputError: the cache cannot be written, or the disk is full.
        """
        place = self.root / kind / _folder_name(name)
        _make_folder(place.parent)
        with _locked(place), full_disk_named(place):
            _remove_folder(_beside(place, "old"))
            staging = _beside(place, "staging")
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
        place = self.root / kind / _folder_name(name)
        with full_disk_named(place):
            _drop_working_files(staging)
            entry = Entry(
                kind,
                name,
                place,
                {file: _record(staging / file) for file in _files_in(staging)},
                without_secrets(source),
                info,
                _now(),
                dict(details or {}),
            )
            _write_manifest(staging, entry)
            _move_into_place(staging, place)
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
        files = _files_in(path) if path.is_dir() else [path.name]
        if not files or not path.exists():
            raise InputError(f"{path} does not exist or is empty; name an existing file")
        place = self.root / kind / _folder_name(name)
        records = {file: _dated_record(path / file if path.is_dir() else path) for file in files}
        entry = Entry(
            kind, name, place, records, str(path), info, _now(), dict(details or {}), True
        )
        with self.staging(kind, name) as staging:
            _remove_folder(staging)  # of a download that was cut
            staging.mkdir()
            _write_manifest(staging, entry)
            _move_into_place(staging, place)
        return entry

    def remove(self, entry: Entry) -> None:
        """Deletes an entry and what an unfinished fetch of it left; never registered files.

        Raises:
            OutputError: it cannot be deleted.
        """
        with _locked(entry.folder):
            trash = _beside(entry.folder, "old")
            _remove_folder(trash)
            if entry.folder.is_dir():
                os.replace(entry.folder, trash)
            _remove_folder(trash)
            _remove_folder(_beside(entry.folder, "staging"))

    def verify(self, entry: Entry) -> list[str]:
        """Reads every file of an entry; returns what is wrong with it, nothing if it is sound."""
        entry = _load(entry.folder, entry.kind)
        if entry.problem:
            return [entry.problem]
        changed = [n for n, r in entry.files.items() if _hash_or_none(entry.file(n)) != r["sha256"]]
        return [f"{entry.file(name)} has other content than was recorded" for name in changed]


def cache_folder() -> Path:
    """Folder of what can be made or fetched again; `GEOLINK_CACHE` sets another."""
    named = os.environ.get("GEOLINK_CACHE")
    return Path(named) if named else platformdirs.user_cache_path("geolink")


# Folders


def _folder_name(name: str) -> str:
    """A folder name that is safe on every system, readable, and one for each entry name."""
    if not name.strip():
        raise InputError("an entry of the cache needs a name that is not empty")
    if _PLAIN.fullmatch(name) and not _RESERVED.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-")[: _MAX_SLUG - 9]
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{slug}-{digest}".lstrip("-")


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
    """Renames a whole folder to its place; a kill in between leaves no entry, but no broken one."""
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


# Files


def _files_in(folder: Path) -> list[str]:
    """Names of all files below a folder, hidden ones and a manifest aside."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return sorted(name.as_posix() for name in kept if name != Path(MANIFEST))


def _drop_working_files(staging: Path) -> None:
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.name.startswith(".") or path.suffix == ".part":
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _record(path: Path) -> FileRecord:
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def _dated_record(path: Path) -> FileRecord:
    return {**_record(path), "mtime_ns": path.stat().st_mtime_ns}


def _hash_or_none(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _file_problem(path: Path, record: FileRecord) -> str:
    """What a quick look finds wrong with a file; a registered one with a new date is read."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path} is gone"
    if stat.st_size != record["bytes"]:
        return f"{path} has {stat.st_size} bytes instead of {record['bytes']}"
    dated = record.get("mtime_ns", stat.st_mtime_ns)
    if stat.st_mtime_ns != dated and _hash_or_none(path) != record["sha256"]:
        return f"{path} has changed"
    return ""


# Manifests


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_manifest(folder: Path, entry: Entry) -> None:
    names = ("kind", "name", "source", "registered", "fetched", "files", "details")
    plain = {name: getattr(entry, name) for name in names}
    data = {"format": _FORMAT, **plain, "info": asdict(entry.info)}
    text = json.dumps(data, indent=1, ensure_ascii=False)
    replace_bytes(folder / MANIFEST, text.encode("utf-8", "backslashreplace"))


def _load(folder: Path, kind: Kind) -> Entry:
    """The entry in a folder; one that cannot be used has its `problem` set."""
    manifest = folder / MANIFEST
    try:
        if manifest.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("it is too large")
        entry = _parse(json.loads(manifest.read_text(encoding="utf-8")), folder, kind)
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{manifest} is no manifest ({error})"
        return Entry(kind, folder.name, folder, {}, "", SourceInfo(""), "", problem=problem)
    problems = (_file_problem(entry.file(name), record) for name, record in entry.files.items())
    return replace(entry, problem=next(filter(None, problems), ""))


def _parse(data: object, folder: Path, kind: Kind) -> Entry:
    """The entry of a manifest's JSON.

    Raises:
        ValueError: it is not of that form, or names files outside its folder.
    """
    table = _of(dict, data, "the manifest")
    if table.get("format") != _FORMAT or table.get("kind") != kind:
        raise ValueError("it is of another kind or version")
    text = {name: _of(str, table.get(name), name) for name in ("name", "source", "fetched")}
    if _folder_name(text["name"]) != folder.name:
        raise ValueError(f"it belongs to {text['name']!r}")
    files = _of(dict, table.get("files"), "files")
    if not files:
        raise ValueError("it names no files")
    return Entry(
        kind=kind,
        folder=folder,
        files={_inside(name): _parse_record(record) for name, record in files.items()},
        info=_parse_info(_of(dict, table.get("info"), "info")),
        details=_of(dict, table.get("details"), "details"),
        registered=_of(bool, table.get("registered"), "registered"),
        **text,
    )


def _of(kind: type[T], value: object, name: str) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is no {kind.__name__}")
    return value


def _inside(name: str) -> str:
    """A relative name, refused where it leads out of its folder on any system."""
    windows = PureWindowsPath(name)
    if not name or windows.anchor or PurePosixPath(name).is_absolute() or ".." in windows.parts:
        raise ValueError(f"{name!r} is no file of the entry")
    return name


def _parse_record(data: object) -> FileRecord:
    table = _of(dict, data, "a file")
    record: FileRecord = {
        "sha256": _of(str, table.get("sha256"), "sha256"),
        "bytes": _of(int, table.get("bytes"), "bytes"),
    }
    if "mtime_ns" in table:
        record["mtime_ns"] = _of(int, table["mtime_ns"], "mtime_ns")
    return record


def _parse_info(table: Mapping[str, object]) -> SourceInfo:
    optional = {}
    for name in ("date", "licence", "attribution"):
        value = table.get(name)
        optional[name] = None if value is None else _of(str, value, name)
    return SourceInfo(
        description=_of(str, table.get("description"), "description"),
        simulated=_of(bool, table.get("simulated"), "simulated"),
        **optional,
    )
