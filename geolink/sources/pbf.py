"""Extracts (`.osm.pbf`): what pyrosm reads of them, and writing them.

A file is a row of blobs: a header, then blocks of nodes, ways and relations, each block with a
table of its strings. They are written through the messages of the format that pyrosm ships; the
rest of pyrosm is slow to import, and is imported where it is needed.
"""

import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import geopandas as gpd
import numpy as np
import shapely
from pyrosm.proto.fileformat_pb2 import Blob, BlobHeader
from pyrosm.proto.osmformat_pb2 import HeaderBlock, PrimitiveBlock, PrimitiveGroup, Relation, Way

from geolink.errors import InputError
from geolink.grid import Bounds

Element = Mapping[str, Any]

_BLOCK = 8_000  # elements, as other writers use
_PER_DEGREE = 10**7  # coordinates are whole numbers of the format's default granularity
_MEMBER_TYPES = {"node": 0, "way": 1, "relation": 2}


def raw_objects(
    path: Path,
    area: Bounds | None,
    *,
    relations: bool,
    keep: Mapping[str, bool | list[str]] | None = None,
) -> gpd.GeoDataFrame | None:
    """Tagged objects of an extract as pyrosm reads them: tags as JSON, the keys kept as columns.

    Args:
        path: the extract.
        area: box of degrees, None for all of it.
        relations: True for the relations, False for the nodes and ways.
        keep: keys to the values, or True, of which an object must have one; None for all objects.

    Returns:
        A table in EPSG:4326, or None where there is nothing.

    Raises:
        InputError: the file is missing, or not a readable extract.
    """
    require_file(path)
    with readable(path):
        from pyrosm import OSM

        box = None if area is None else list(area)
        source = OSM(str(path), bounding_box=box, complete_relations=True, progress=False)
        return source.get_data_by_custom_criteria(
            custom_filter=None if keep is None else dict(keep),
            tags_as_columns=[],
            keep_nodes=not relations,
            keep_ways=not relations,
            keep_relations=relations,
        )


def extract_timestamp(path: str | Path) -> int:
    """Seconds since 1970 of an extract's replication state; 0 where its header has none.

    Raises:
        InputError: the file is missing, or not an extract.
    """
    path = Path(path)
    require_file(path)
    with readable(path):
        from pyrosm.pbf_export import read_header_block

        return int(read_header_block(str(path)).osmosis_replication_timestamp)


def iso_date(timestamp: int) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC; None for 0."""
    if timestamp <= 0:
        return None
    return datetime.fromtimestamp(timestamp, UTC).isoformat().replace("+00:00", "Z")


def extract_bounds(path: str | Path) -> Bounds:
    """The area of an extract in degrees, as its header says, otherwise from its nodes and ways.

    Extracts hold their ways whole, and a few reach far out; without a header, the box is the one
    that leaves out a hundredth of the objects on each side.

    Raises:
        InputError: the file is missing, not an extract, or has no objects.
    """
    path = Path(path)
    require_file(path)
    with readable(path):
        from pyrosm.utils import get_bounding_box

        area = get_bounding_box(str(path))
    if area is not None:
        return Bounds(*area.bounds)
    frame = raw_objects(path, None, relations=False)
    if frame is None:
        raise InputError(f"{path} has no objects; download the extract again")
    edges = shapely.bounds(frame.geometry.to_numpy())
    west, south = np.quantile(edges[:, :2], 0.01, axis=0).tolist()
    east, north = np.quantile(edges[:, 2:], 0.99, axis=0).tolist()
    return Bounds(west, south, east, north)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns whatever damage pyrosm stumbles over into an `InputError`, and keeps it quiet."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from pyrosm.exceptions import PBFException

    try:
        with warnings.catch_warnings():
            # An empty area, and relations cut by the file's edge, are no news to a caller here.
            warnings.filterwarnings("ignore", ".*relation\\(s\\)", UserWarning)
            warnings.filterwarnings("ignore", "Could not find any", UserWarning)
            warnings.filterwarnings("ignore", "No node of", UserWarning)
            yield
    except (PBFException, DecodeError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable OSM PBF file (truncated, or another format); "
            "download it again"
        ) from error


def require_file(path: Path) -> None:
    """Refuse a path where there is nothing.

    Raises:
        InputError: there is no such file.
    """
    if not path.exists():
        raise InputError(f"the OSM file {path} does not exist; check the path")


def write_pbf(path: Path, elements: Iterable[Element], *, timestamp: int) -> None:
    """Writes elements, sorted by type and id.

    Args:
        path: file to write.
        elements: as the JSON of the OSM interfaces has them: `type`, `id`, `tags`, and `lat` and
            `lon`, or `nodes`, or `members` with `type`, `ref` and `role`.
        timestamp: date of the data, seconds since 1970.

    Raises:
        KeyError, TypeError, ValueError: an element is not of that form.
    """
    header = HeaderBlock(
        required_features=["OsmSchema-V0.6", "DenseNodes"],
        writingprogram="geolink",
        osmosis_replication_timestamp=timestamp,
    )
    unique = {(element["type"], element["id"]): element for element in elements}
    with path.open("wb") as file:
        _write_blob(file, "OSMHeader", header.SerializeToString())
        for kind, fill in _FILLERS.items():
            chosen = sorted((e for (k, _), e in unique.items() if k == kind), key=lambda e: e["id"])
            for start in range(0, len(chosen), _BLOCK):
                _write_blob(file, "OSMData", _block(chosen[start : start + _BLOCK], fill))


def copy_with_date(source: Path, target: Path, *, timestamp: int) -> None:
    """Copies an extract; the copy's header says the date (seconds since 1970)."""
    from pyrosm.pbf_export import read_header_block

    header = read_header_block(str(source))
    header.osmosis_replication_timestamp = timestamp
    with source.open("rb") as old, target.open("wb") as new:
        _write_blob(new, "OSMHeader", header.SerializeToString())
        (size,) = struct.unpack(">I", old.read(4))
        first = BlobHeader.FromString(old.read(size))
        old.seek(first.datasize, 1)
        shutil.copyfileobj(old, new)


def ways_held(path: Path, ids: Set[int]) -> set[int]:
    """Those of some ways that an extract holds."""
    held: set[int] = set()
    for block in _blocks(path):
        for group in block.primitivegroup:
            held.update(way.id for way in group.ways if way.id in ids)
    return held


class _Strings:
    """The string table of a block; its first string is a separator."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def __getitem__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def packed(self) -> list[bytes]:
        return [text.encode() for text in self._numbers]


def _blocks(path: Path) -> Iterator[PrimitiveBlock]:
    """The blocks of an extract, one at a time."""
    with path.open("rb") as file:
        while length := file.read(4):
            header = BlobHeader.FromString(file.read(*struct.unpack(">I", length)))
            blob = Blob.FromString(file.read(header.datasize))
            if header.type == "OSMData":
                packed = blob.zlib_data
                yield PrimitiveBlock.FromString(zlib.decompress(packed) if packed else blob.raw)


def _write_blob(file: BinaryIO, kind: str, content: bytes) -> None:
    blob = Blob(raw_size=len(content), zlib_data=zlib.compress(content))
    packed = blob.SerializeToString()
    header = BlobHeader(type=kind, datasize=len(packed)).SerializeToString()
    file.write(struct.pack(">I", len(header)) + header + packed)


def _block(elements: Sequence[Element], fill: Callable[..., None]) -> bytes:
    strings = _Strings()
    block = PrimitiveBlock()
    fill(block.primitivegroup.add(), elements, strings)
    block.stringtable.s.extend(strings.packed())
    return bytes(block.SerializeToString())


def _fill_nodes(group: PrimitiveGroup, elements: Sequence[Element], strings: _Strings) -> None:
    dense = group.dense
    dense.id.extend(_steps(node["id"] for node in elements))
    dense.lat.extend(_steps(round(node["lat"] * _PER_DEGREE) for node in elements))
    dense.lon.extend(_steps(round(node["lon"] * _PER_DEGREE) for node in elements))
    for node in elements:
        for key, value in _tags(node):
            dense.keys_vals.extend((strings[key], strings[value]))
        dense.keys_vals.append(0)


def _fill_ways(group: PrimitiveGroup, elements: Sequence[Element], strings: _Strings) -> None:
    for element in elements:
        way = group.ways.add(id=element["id"])
        _add_tags(way, element, strings)
        way.refs.extend(_steps(element["nodes"]))


def _fill_relations(group: PrimitiveGroup, elements: Sequence[Element], strings: _Strings) -> None:
    for element in elements:
        relation = group.relations.add(id=element["id"])
        _add_tags(relation, element, strings)
        members = element["members"]
        relation.memids.extend(_steps(member["ref"] for member in members))
        relation.types.extend(_MEMBER_TYPES[member["type"]] for member in members)
        relation.roles_sid.extend(strings[member["role"]] for member in members)


_FILLERS: Mapping[str, Callable[..., None]] = {
    "node": _fill_nodes,
    "way": _fill_ways,
    "relation": _fill_relations,
}


def _tags(element: Element) -> list[tuple[str, str]]:
    return list(element.get("tags", {}).items())


def _add_tags(message: Way | Relation, element: Element, strings: _Strings) -> None:
    for key, value in _tags(element):
        message.keys.append(strings[key])
        message.vals.append(strings[value])


def _steps(values: Iterable[int]) -> Iterator[int]:
    """Each value less the one before, as the format stores rows of numbers."""
    return (after - before for before, after in pairwise((0, *values)))
