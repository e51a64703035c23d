"""OSM entities of a scene on disk: found by place, so that a country is never held whole."""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from geolink.files import probably_full, scratch_database
from geolink.grid import Bounds
from geolink.sources.base import SourceInfo
from geolink.sources.entities import ENTITY_TYPES, OsmEntities, sorting_text

# Entities that are decoded at once where many are asked for.
_BATCH = 10_000

_SCHEMA = """
CREATE TABLE entity (
    id INTEGER PRIMARY KEY, kind INTEGER, osm_id TEXT, tags TEXT, shape BLOB,
    west REAL, south REAL, east REAL, north REAL, sorting TEXT, digest BLOB,
    UNIQUE (osm_id, digest)
);
CREATE TABLE about (crs TEXT, info TEXT, dropped TEXT);
"""
_ARRANGE = """
CREATE VIRTUAL TABLE place USING rtree(id, west, east, south, north);
CREATE TABLE arranged (id INTEGER PRIMARY KEY, kind INTEGER, osm_id TEXT, tags TEXT, shape BLOB);
INSERT INTO arranged (kind, osm_id, tags, shape)
    SELECT kind, osm_id, tags, shape FROM entity ORDER BY kind, sorting, id;
INSERT INTO place SELECT row_number() OVER (ORDER BY kind, sorting, id), west, east, south, north
    FROM entity ORDER BY kind, sorting, id;
DROP TABLE entity;
ALTER TABLE arranged RENAME TO entity;
"""
_NEAR = (
    "SELECT {} FROM place JOIN entity USING (id) WHERE place.west <= ? AND place.east >= ? "
    "AND place.south <= ? AND place.north >= ? ORDER BY id"
)


class EntityTable:
    """The entities of a scene in a file that `keep_entities` made.

    It may be used by many threads and processes at a time; what is pickled is the path.

    Attributes:
        path: the file.
        crs: metric CRS of the entities.
        info: where they come from.
        dropped: number of entities left out, by reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()
        crs, info, dropped = self._database.execute("SELECT * FROM about").fetchone()
        self.crs = CRS.from_user_input(crs)
        self.info = SourceInfo(**json.loads(info))
        self.dropped: dict[str, int] = json.loads(dropped)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM entity").fetchone()
        return int(count)

    def within(self, bounds: Bounds) -> OsmEntities:
        """The entities that meet a rectangle, as `OsmEntities.within` gives them."""
        rows = self._near("kind, osm_id, tags, shape", bounds).fetchall()
        kinds, ids, tags, shapes = zip(*rows, strict=True) if rows else ((),) * 4
        geometry = shapely.from_wkb(np.array(shapes, dtype=object))
        met = shapely.intersects(geometry, shapely.box(*bounds))
        columns = {
            "osm_id": np.array(ids, dtype=object)[met],
            "tags": np.array([*map(json.loads, tags), None], dtype=object)[:-1][met],
        }
        frame = gpd.GeoDataFrame(columns, geometry=geometry[met], crs=self.crs)
        of_kind = np.array(kinds, dtype=np.int64)[met]
        frames = {
            kind: frame[of_kind == number].reset_index(drop=True)
            for number, kind in enumerate(ENTITY_TYPES)
        }
        return OsmEntities(**frames, info=self.info, dropped=self.dropped)

    def count_meeting(self, polygons: NDArray[np.object_]) -> NDArray[np.int64]:
        """(n,) number of entities that intersect each polygon."""
        return np.array([self._count(polygon) for polygon in polygons], dtype=np.int64)

    def _count(self, polygon: shapely.Geometry) -> int:
        shapely.prepare(polygon)
        found = self._near("shape", Bounds(*shapely.bounds(polygon).tolist()))
        total = 0
        while rows := found.fetchmany(_BATCH):
            shapes = shapely.from_wkb(np.array([row[0] for row in rows], dtype=object))
            total += int(shapely.intersects(polygon, shapes).sum())
        return total

    def _near(self, columns: str, bounds: Bounds) -> sqlite3.Cursor:
        west, south, east, north = bounds
        return self._database.execute(_NEAR.format(columns), (east, west, north, south))

    @property
    def _database(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._own, "database"):
            self._own.database = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True
            )
        connection: sqlite3.Connection = self._own.database
        return connection


def keep_entities(path: Path, parts: Iterable[OsmEntities], crs: CRS) -> EntityTable:
    """Keep the entities of the parts of a scene in one file; an entity of several parts once.

    Args:
        path: the file to make.
        parts: at least one; those of one scene as `read_osm_parts` gives them, held one at a time.
        crs: metric CRS of the parts.

    Raises:
        OutputError: the file cannot be written.
    """
    making = path.with_name(f"{path.name}.part")
    making.unlink(missing_ok=True)
    try:
        with closing(scratch_database(making)) as database:
            _fill(database, parts, crs)
    except sqlite3.OperationalError as error:  # SQLite calls a full disk an input/output error
        raise probably_full(path, error) from error
    os.replace(making, path)
    return EntityTable(path)


def _fill(database: sqlite3.Connection, parts: Iterable[OsmEntities], crs: CRS) -> None:
    database.executescript(_SCHEMA)
    info: SourceInfo | None = None
    dropped: dict[str, int] = {}
    for part in parts:
        database.execute("BEGIN")
        for number, kind in enumerate(ENTITY_TYPES):
            database.executemany(
                "INSERT OR IGNORE INTO entity (kind, osm_id, tags, shape, west, south, east, "
                "north, sorting, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                _rows(part.frame(kind), number),
            )
        database.execute("COMMIT")
        info, dropped = info or part.info, part.dropped
    record = (crs.to_wkt(), json.dumps(info and asdict(info)), json.dumps(dropped))
    database.execute("INSERT INTO about VALUES (?, ?, ?)", record)
    database.executescript(_ARRANGE)


def _rows(frame: gpd.GeoDataFrame, kind: int) -> Iterator[tuple[Any, ...]]:
    """The entities of one type, as the table takes them."""
    geometry = frame.geometry.to_numpy()
    shapes = shapely.to_wkb(geometry, byte_order=1)
    for osm_id, tags, shape, edges in zip(
        frame["osm_id"], frame["tags"], shapes, shapely.bounds(geometry).tolist(), strict=True
    ):
        digest = hashlib.blake2b(shape, digest_size=16).digest()
        text = json.dumps(tags, ensure_ascii=False)
        yield kind, osm_id, text, shape, *edges, sorting_text(osm_id), digest
