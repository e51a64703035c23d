"""Zones on disk while a map is made: found by place, in a fixed order, read a few at a time."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from geolink.files import scratch_database
from geolink.grid import Bounds

# Zones that are read at once: so many, and of outlines so many bytes beyond the first.
BATCH = 10_000
BATCH_BYTES = 4_000_000

# Sums of probabilities are kept as whole multiples of this, so that their order does not matter.
UNIT = 2.0**-24

Polygons = NDArray[np.object_]

_ZONE = """(
    id INTEGER PRIMARY KEY, class INTEGER, west REAL, south REAL, east REAL, north REAL, area REAL,
    outline BLOB, with_osm INTEGER DEFAULT 0, without INTEGER DEFAULT 0, pixels INTEGER DEFAULT 0,
    objects INTEGER DEFAULT 0, class_name TEXT
)"""
_OWN = "class, west, south, east, north, area, outline"
# In this order zones are numbered and written; the outline decides between equals.
_ORDER = "class, north DESC, west, south, east, outline"


class ZoneTable:
    """A table of zones in a file of its own, for use in a `with` block.

    Args:
        path: the file to make; no other program need read it.
        crs: metric CRS of the outlines.
    """

    def __init__(self, path: Path, crs: CRS) -> None:
        self.crs = crs
        self._database = scratch_database(path)
        self._database.execute(
            "CREATE VIRTUAL TABLE place USING rtree(id, west, east, south, north)"
        )
        self._database.execute(f"CREATE TABLE zone {_ZONE}")

    def __enter__(self) -> "ZoneTable":
        return self

    def __exit__(self, *raised: object) -> None:
        self._database.close()

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM zone").fetchone()
        return int(count)

    def add(self, polygons: Polygons, classes: NDArray[np.uint8]) -> None:
        """Take further zones, numbered after those that are there."""
        outlines = shapely.normalize(polygons)
        rows = zip(
            classes.tolist(),
            *shapely.bounds(outlines).reshape(-1, 4).T.tolist(),
            shapely.area(outlines).tolist(),
            shapely.to_wkb(outlines, byte_order=1).tolist(),
            strict=True,
        )
        self._database.executemany(f"INSERT INTO zone ({_OWN}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def remove(self, ids: Iterable[int]) -> None:
        """Drop zones."""
        self._database.executemany("DELETE FROM zone WHERE id = ?", ((int(i),) for i in ids))

    def arrange(self) -> None:
        """Number the zones from 1 by class, then from north to south and west to east."""
        self._database.execute(f"CREATE TABLE arranged {_ZONE}")
        self._database.execute(
            f"INSERT INTO arranged ({_OWN}) SELECT {_OWN} FROM zone ORDER BY {_ORDER}"
        )
        self._database.execute("DROP TABLE zone")
        self._database.execute("ALTER TABLE arranged RENAME TO zone")
        self._database.execute("DELETE FROM place")
        self._database.execute(
            "INSERT INTO place SELECT id, west, east, south, north FROM zone ORDER BY id"
        )

    def smaller_than(self, area_m2: float) -> NDArray[np.int64]:
        """Ids of the zones below an area."""
        return self._ids("SELECT id FROM zone WHERE area < ? ORDER BY id", (area_m2,))

    def without_pixels(self) -> NDArray[np.int64]:
        """Ids of the zones that no sums were added to."""
        return self._ids("SELECT id FROM zone WHERE pixels = 0 ORDER BY id")

    def near(self, bounds: Bounds) -> NDArray[np.int64]:
        """Ids of the zones whose bounds meet a rectangle, as the table was last arranged."""
        west, south, east, north = bounds
        return self._ids(
            "SELECT id FROM place WHERE west <= ? AND east >= ? AND south <= ? AND north >= ? "
            "ORDER BY id",
            (east, west, north, south),
        )

    def zones(self, ids: Sequence[int] | NDArray[np.int64]) -> tuple[Polygons, NDArray[np.uint8]]:
        """Outlines and classes of zones, in the order of `ids`."""
        rows = self._rows("outline, class", ids)
        outlines = np.array([row[0] for row in rows], dtype=object)
        classes = np.array([row[1] for row in rows], dtype=np.uint8)
        return np.asarray(shapely.from_wkb(outlines), dtype=object), classes

    def classes_and_areas(
        self, ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Classes and areas of zones, in the order of `ids`."""
        classes, areas = np.array(self._rows("class, area", ids)).reshape(-1, 2).T
        return classes.astype(np.uint8), areas

    def add_sums(self, ids: NDArray[np.int64], sums: NDArray[np.int64]) -> None:
        """Add (n, 3) sums: probabilities with OSM and without, in `UNIT`, and number of pixels."""
        self._database.executemany(
            "UPDATE zone SET with_osm = with_osm + ?, without = without + ?, pixels = pixels + ? "
            "WHERE id = ?",
            ((*row, i) for row, i in zip(sums.tolist(), ids.tolist(), strict=True)),
        )

    def set_objects(self, ids: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Record how many OSM entities meet each of these zones."""
        self._database.executemany(
            "UPDATE zone SET objects = ? WHERE id = ?",
            zip(counts.tolist(), ids.tolist(), strict=True),
        )

    def name_classes(self, names: Sequence[str]) -> None:
        """Record the name of each class, by its id."""
        self._database.executemany(
            "UPDATE zone SET class_name = ? WHERE class = ?",
            ((name, number) for number, name in enumerate(names)),
        )

    def batches(self) -> Iterator[tuple[NDArray[np.int64], Polygons]]:
        """Ids and outlines of all zones in their order, a batch at a time."""
        for first, last in self._runs():
            ids = np.arange(first, last + 1)
            yield ids, self.zones(ids)[0]

    def frames(self) -> Iterator[gpd.GeoDataFrame]:
        """The zones in their order, at least one frame, a batch in each.

        Columns: class_id, class_name, confidence, area_m2, osm_objects, osm_gain, geometry.
        """
        for run in self._runs() or [(1, 0)]:
            rows = self._database.execute(
                "SELECT class, class_name, with_osm, without, pixels, area, objects, outline "
                "FROM zone WHERE id BETWEEN ? AND ? ORDER BY id",
                run,
            ).fetchall()
            yield self._frame(rows)

    def frame(self) -> gpd.GeoDataFrame:
        """All zones at once, for uses that need them together."""
        return gpd.GeoDataFrame(pd.concat(list(self.frames()), ignore_index=True))

    def figures(self) -> pd.DataFrame:
        """All zones in their order without outline and name, in 28 bytes each."""
        columns = ["class_id", "confidence", "area_m2", "osm_gain"]
        return pd.concat([pd.DataFrame(f[columns]) for f in self.frames()], ignore_index=True)

    def _runs(self) -> list[tuple[int, int]]:
        """First and last id of each batch of the arranged table."""
        runs: list[tuple[int, int]] = []
        held = 0
        for zone, size in self._database.execute(
            "SELECT id, length(outline) FROM zone ORDER BY id"
        ):
            held += size
            if not runs or held > BATCH_BYTES or zone - runs[-1][0] == BATCH:
                runs.append((zone, zone))
                held = size
            runs[-1] = (runs[-1][0], zone)
        return runs

    def _frame(self, rows: list[tuple[Any, ...]]) -> gpd.GeoDataFrame:
        classes, names, with_osm, without, pixels, areas, objects, outlines = (
            zip(*rows, strict=True) if rows else ((),) * 8
        )
        scale = UNIT / np.maximum(np.array(pixels, np.int64), 1)
        mean, mean_without = (np.array(s, np.int64) * scale for s in (with_osm, without))
        columns = {
            "class_id": np.array(classes, np.int32),
            "class_name": pd.array(names, dtype="str"),
            "confidence": mean,
            "area_m2": np.array(areas, np.float64),
            "osm_objects": np.array(objects, np.int32),
            "osm_gain": mean - mean_without,
        }
        geometry = shapely.from_wkb(np.array(outlines, dtype=object))
        return gpd.GeoDataFrame(columns, geometry=geometry, crs=self.crs)

    def _rows(self, columns: str, ids: Sequence[int] | NDArray[np.int64]) -> list[tuple[Any, ...]]:
        query = f"SELECT {columns} FROM zone WHERE id = ?"
        return [self._database.execute(query, (int(i),)).fetchone() for i in ids]

    def _ids(self, query: str, values: tuple[float, ...] = ()) -> NDArray[np.int64]:
        found = self._database.execute(query, values)
        return np.fromiter((row[0] for row in found), np.int64)
