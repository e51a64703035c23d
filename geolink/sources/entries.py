"""Entries of the cache and their manifests; a manifest is data that nobody vouches for."""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, NotRequired, TypedDict, TypeVar

import shapely
from shapely.errors import GEOSException

from geolink.errors import InputError
from geolink.files import replace_bytes, sha256_of
from geolink.sources.base import Area, SourceInfo

T = TypeVar("T")
Kind = Literal["osm", "imagery", "model", "place"]

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


# Areas


def area_details(area: Area) -> dict[str, Any]:
    """What an entry records of the area (EPSG:4326) that it is complete for."""
    return {"area": json.loads(shapely.to_geojson(area))}


def covers(entry: Entry, area: Area) -> bool:
    """Whether fetched data is known to be complete for an area (EPSG:4326)."""
    try:
        held = shapely.from_geojson(json.dumps(entry.details.get("area")))
        return bool(held.covers(area))
    except (GEOSException, AttributeError):
        return False  # registered files do not say it


# Names


def folder_name(name: str) -> str:
    """A folder name that is safe on every system, readable, and one for each entry name.

    Raises:
        InputError: the name is empty.
    """
    if not name.strip():
        raise InputError("an entry of the cache needs a name that is not empty")
    if _PLAIN.fullmatch(name) and not _RESERVED.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-")[: _MAX_SLUG - 9]
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{slug}-{digest}".lstrip("-")


def stays_inside(name: str) -> bool:
    """Whether a relative file name with `/` stays within its folder, on any system."""
    windows = PureWindowsPath(name)  # knows both slashes, and drives
    return bool(windows.parts) and not windows.anchor and ".." not in windows.parts


# Files


def files_in(folder: Path) -> list[str]:
    """Names of all files below a folder, hidden ones and a manifest aside."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return sorted(name.as_posix() for name in kept if name != Path(MANIFEST))


def record_of(path: Path, *, dated: bool = False) -> FileRecord:
    """Hash and size of a file, with its date if asked."""
    stat = path.stat()
    record: FileRecord = {"sha256": sha256_of(path), "bytes": stat.st_size}
    return {**record, "mtime_ns": stat.st_mtime_ns} if dated else record


def changed_files(entry: Entry) -> list[str]:
    """Files of an entry whose content is not that of its manifest; reads all of them."""
    return [name for name, record in entry.files.items() if not _holds(entry.file(name), record)]


def _holds(path: Path, record: FileRecord) -> bool:
    try:
        return sha256_of(path) == record["sha256"]
    except OSError:
        return False


def _file_problem(path: Path, record: FileRecord) -> str:
    """What a quick look finds wrong with a file; a registered one with a new date is read."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path} is gone"
    if stat.st_size != record["bytes"]:
        return f"{path} has {stat.st_size} bytes instead of {record['bytes']}"
    dated = record.get("mtime_ns", stat.st_mtime_ns)
    if stat.st_mtime_ns != dated and not _holds(path, record):
        return f"{path} has changed"
    return ""


# Manifests


def write_manifest(folder: Path, entry: Entry) -> None:
    """Puts the manifest of an entry into a folder.

    Raises:
        OutputError: the disk is full, or the folder read-only.
    """
    names = ("kind", "name", "source", "registered", "fetched", "files", "details")
    plain = {name: getattr(entry, name) for name in names}
    data = {"format": _FORMAT, **plain, "info": asdict(entry.info)}
    text = json.dumps(data, indent=1, ensure_ascii=False)
    replace_bytes(folder / MANIFEST, text.encode("utf-8", "backslashreplace"))


def load_entry(folder: Path, kind: Kind) -> Entry:
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
    if folder_name(text["name"]) != folder.name:
        raise ValueError(f"it belongs to {text['name']!r}")
    files = _of(dict, table.get("files"), "files")
    if not files:
        raise ValueError("it names no files")
    return Entry(
        kind=kind,
        folder=folder,
        files={_parse_name(name): _parse_record(record) for name, record in files.items()},
        info=_parse_info(_of(dict, table.get("info"), "info")),
        details=_of(dict, table.get("details"), "details"),
        registered=_of(bool, table.get("registered"), "registered"),
        **text,
    )


def _of(kind: type[T], value: object, name: str) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"{name} is no {kind.__name__}")
    return value


def _parse_name(name: str) -> str:
    if not stays_inside(name):
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
