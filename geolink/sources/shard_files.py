"""Shards: tars of images with their OSM objects, as the webdataset library lays them out.

A sample is three members with a common key: `KEY.png` or `KEY.jpg`, `KEY.wkb` (one geometry
collection of all objects) and `KEY.json` (tags, ids, provenance, checksums). The same samples make
the same bytes: members carry neither time nor owner. Nothing in a shard is ever executed.
"""

import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.errors import GEOSException

from geolink.errors import InputError

IMAGE_SUFFIXES = ("png", "jpg")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_OPEN_INDICES = 64  # a shard of a thousand samples takes about half a megabyte


@dataclass(frozen=True)
class TileObjects:
    """OSM objects of a tile, in tile units: x right, y down, both 0-1 within the tile.

    Attributes:
        geometry: (N,) valid points, lines and polygons, single or multi, clipped to the tile.
        ids: (N,) names of the objects; the parts of one object share its name.
        tags: N mappings, keys as OSM spells them.
    """

    geometry: NDArray[np.object_]
    ids: NDArray[np.object_]
    tags: Sequence[Mapping[str, str]]

    def __len__(self) -> int:
        return len(self.geometry)


@dataclass(frozen=True)
class TileSample:
    """An image as it is stored, with the objects on it.

    Attributes:
        key: unique in its set; letters, digits, hyphens and underscores.
        image: a PNG or JPEG file.
        suffix: which of the two, `png` or `jpg`.
        objects: what OSM knows of the tile.
        meta: provenance as JSON data, e.g. `gsd` in metres per pixel.
    """

    key: str
    image: bytes
    suffix: str
    objects: TileObjects
    meta: Mapping[str, Any] = field(default_factory=dict)


class Member(NamedTuple):
    """Where a file lies in a tar."""

    suffix: str
    offset: int
    size: int


class ShardEntry(NamedTuple):
    """The members of one sample of a shard."""

    key: str
    members: tuple[Member, ...]


# --- writing ------------------------------------------------------------------------------------


def write_shard(path: Path, samples: Sequence[TileSample]) -> None:
    """Writes samples into a tar; equal samples give equal bytes.

    Raises:
        InputError: a key is not fit for a file name, or occurs twice.
    """
    seen: set[str] = set()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            if not _KEY.fullmatch(sample.key) or sample.key in seen:
                raise InputError(
                    f"{sample.key!r} is no key for a sample: keys are unique and made of at most "
                    "80 letters, digits, hyphens and underscores"
                )
            seen.add(sample.key)
            for suffix, payload in members_of(sample):
                info = tarfile.TarInfo(f"{sample.key}.{suffix}")
                info.size = len(payload)
                tar.addfile(info, io.BytesIO(payload))


def members_of(sample: TileSample) -> list[tuple[str, bytes]]:
    """(suffix, content) of the three files of a sample."""
    objects = sample.objects
    wkb = shapely.GeometryCollection(objects.geometry.tolist()).wkb
    record = {
        "crc32": {"image": zlib.crc32(sample.image), "wkb": zlib.crc32(wkb)},
        "meta": sample.meta,
        "ids": objects.ids.tolist(),
        "tags": [dict(tags) for tags in objects.tags],
    }
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return [(sample.suffix, sample.image), ("wkb", wkb), ("json", text.encode())]


# --- reading ------------------------------------------------------------------------------------


def shard_index(path: Path) -> tuple[ShardEntry, ...]:
    """The samples of a shard in their order; where the tar is damaged, those before the damage.

    Raises:
        InputError: the shard is missing or no tar at all.
    """
    try:
        stat = path.stat()
        return _index(path, stat.st_size, stat.st_mtime_ns)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"the shard {path.name} cannot be read ({error})") from error


@lru_cache(maxsize=_OPEN_INDICES)
def _index(path: Path, size: int, _changed: int) -> tuple[ShardEntry, ...]:
    with tarfile.open(path, "r:") as tar:
        return tuple(ShardEntry(key, tuple(found)) for key, found in _grouped(tar, size))


def _grouped(tar: tarfile.TarFile, size: int) -> Iterator[tuple[str, list[Member]]]:
    """Runs of members with a common key; members that reach beyond the file's end are left out."""
    key, found = "", list[Member]()
    for info in _intact(tar):
        stem, _, suffix = os.path.basename(info.name).partition(".")
        if stem != key and found:
            yield key, found
            found = []
        key = stem
        if info.isreg() and info.offset_data + info.size <= size:
            found.append(Member(suffix, info.offset_data, info.size))
    if found:
        yield key, found


def _intact(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members up to the first header that cannot be read."""
    try:
        yield from tar
    except (tarfile.ReadError, OSError):
        return


def read_sample(path: Path, entry: ShardEntry) -> TileSample:
    """One sample of a shard.

    Raises:
        InputError: a member is missing or damaged.
    """
    files: dict[str, bytes] = {}
    try:
        with path.open("rb") as shard:
            for member in entry.members:
                shard.seek(member.offset)
                files[member.suffix] = shard.read(member.size)
    except OSError as error:
        raise InputError(f"the shard {path.name} cannot be read ({error})") from error
    try:
        return parse_sample(entry.key, files)
    except (AttributeError, KeyError, TypeError, ValueError, GEOSException) as error:
        raise InputError(
            f"the sample {entry.key} of {path.name} is damaged ({_reason(error)})"
        ) from error


def parse_sample(key: str, files: Mapping[str, bytes]) -> TileSample:
    """A sample from the contents of its members, by suffix.

    Raises:
        AttributeError, KeyError, TypeError, ValueError, GEOSException: it is damaged.
    """
    suffix = next((known for known in IMAGE_SUFFIXES if known in files), IMAGE_SUFFIXES[0])
    image, wkb, record = files[suffix], files["wkb"], json.loads(files["json"])
    for name, content in (("image", image), ("wkb", wkb)):
        if record["crc32"][name] != zlib.crc32(content):
            raise ValueError(f"the checksum of its {name} does not fit")
    geometry = shapely.get_parts(shapely.from_wkb(wkb))
    ids, tags = np.array(record["ids"], dtype=object), record["tags"]
    if not len(geometry) == len(ids) == len(tags):
        raise ValueError(f"{len(geometry)} geometries, {len(ids)} ids, {len(tags)} tags")
    if not {type(value) for some in tags for value in some.values()} <= {str}:
        raise ValueError("its tags are no text")
    return TileSample(key, image, suffix, TileObjects(geometry, ids, tags), record["meta"])


def _reason(error: Exception) -> str:
    return f"its {error} is missing" if isinstance(error, KeyError) else str(error)
