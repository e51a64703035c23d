"""The elements of real extracts, as the interfaces of OSM answer them in JSON."""

import json
import struct
import zlib
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from pyrosm.proto import fileformat_pb2, osmformat_pb2

from geolink.sources.entities import OsmEntities

MEMBER_TYPES = ("node", "way", "relation")


def overpass_answer(path: Path, *, date: str = "2024-05-06T10:00:00Z") -> bytes:
    """What Overpass would answer if its data base were this extract."""
    answer = {
        "version": 0.6,
        "generator": "Overpass API 0.7.62",
        "osm3s": {"timestamp_osm_base": date, "copyright": "ODbL"},
        "elements": list(elements(path)),
    }
    return json.dumps(answer).encode()


def elements(path: Path) -> Iterator[dict[str, Any]]:
    """All nodes, ways and relations of an extract."""
    for block in _blocks(path):
        strings = [text.decode() for text in block.stringtable.s]
        for group in block.primitivegroup:
            yield from _nodes(group.dense, block, strings)
            for way in group.ways:
                tags = {strings[k]: strings[v] for k, v in zip(way.keys, way.vals, strict=True)}
                nodes = list(accumulate(way.refs))
                yield {"type": "way", "id": way.id, "nodes": nodes, "tags": tags}
            for relation in group.relations:
                yield _relation(relation, strings)


def same(one: OsmEntities, other: OsmEntities) -> bool:
    """Whether two readings found the same objects, tags and geometries."""
    pairs = [(getattr(one, kind), getattr(other, kind)) for kind in ("point", "line", "polygon")]
    return all(
        a["osm_id"].tolist() == b["osm_id"].tolist()
        and a["tags"].tolist() == b["tags"].tolist()
        and a.geometry.geom_equals(b.geometry).all()
        for a, b in pairs
    )


def _blocks(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    at = 0
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        header = fileformat_pb2.BlobHeader.FromString(data[at + 4 : at + 4 + size])
        at += 4 + size
        blob = fileformat_pb2.Blob.FromString(data[at : at + header.datasize])
        at += header.datasize
        if header.type == "OSMData":
            content = zlib.decompress(blob.zlib_data) if blob.zlib_data else blob.raw
            yield osmformat_pb2.PrimitiveBlock.FromString(content)


def _nodes(dense: Any, block: Any, strings: list[str]) -> Iterator[dict[str, Any]]:
    tags = iter(dense.keys_vals)
    lats, lons = accumulate(dense.lat), accumulate(dense.lon)
    for osm_id, lat, lon in zip(accumulate(dense.id), lats, lons, strict=True):
        node: dict[str, Any] = {"type": "node", "id": osm_id}
        node["lat"] = round((block.lat_offset + block.granularity * lat) / 1e9, 7)
        node["lon"] = round((block.lon_offset + block.granularity * lon) / 1e9, 7)
        found = {}
        while key := next(tags, 0):
            found[strings[key]] = strings[next(tags)]
        yield {**node, "tags": found} if found else node


def _relation(relation: Any, strings: list[str]) -> dict[str, Any]:
    members = zip(relation.types, accumulate(relation.memids), relation.roles_sid, strict=True)
    return {
        "type": "relation",
        "id": relation.id,
        "members": [
            {"type": MEMBER_TYPES[kind], "ref": ref, "role": strings[role]}
            for kind, ref, role in members
        ],
        "tags": {
            strings[key]: strings[value]
            for key, value in zip(relation.keys, relation.vals, strict=True)
        },
    }
