"""OSM entities prepared for drawing: polygons in drawing order, trees, cars, built-up density."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import NamedTuple, Self

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.grid import Bounds
from geolink.sources.entities import OsmEntities
from geolink.sources.landcover.cover import (
    KERBED,
    PAINTED,
    Cover,
    Tags,
    area_cover,
    line_cover,
    number,
)
from geolink.sources.landcover.noise import Doubles, Floats, Hashes, Integers

# Moves everything by an odd fraction of a millimetre, which keeps vertices off the centres of
# pixels, where the rounding of a tile's origin would decide on which side they fall.
_NUDGE = np.array([0.000317, 0.000731])

MAX_CROWN = 5.5  # radius in metres
DENSITY_CELL = 32.0  # metres
_CELL_STRIDE = 1 << 24  # of the row in a cell's key; more than any projected system is wide

_ROADS = (Cover.ROAD, Cover.ASPHALT)
_PLANTED_OR_BARE = {
    Cover.GRASS, Cover.PARK, Cover.GARDEN, Cover.CEMETERY, Cover.MEADOW, Cover.FARMLAND,
    Cover.ORCHARD, Cover.VINEYARD, Cover.ALLOTMENTS, Cover.FOREST, Cover.SCRUB, Cover.HEATH,
    Cover.WETLAND, Cover.SOIL, Cover.SAND, Cover.ROCK, Cover.ICE,
}  # fmt: skip


class _Rank(IntEnum):
    """Drawing order of groups; within one, large objects come before small ones."""

    SEA = 0
    LAND = auto()
    WATER = auto()
    PAVED = auto()
    KERB = auto()
    WAY = auto()
    ROOF = auto()


class _Shape(NamedTuple):
    """One polygon to draw; `height` in metres above ground."""

    geometry: shapely.Geometry
    cover: Cover
    rank: float
    hash: int
    height: float = 0.0


@dataclass(frozen=True)
class Shapes:
    """Polygons in drawing order and their attributes, one row each.

    Attributes:
        geometry: polygons, in metres.
        cover: `Cover` codes.
        hash: of the entity's id.
        height: metres above ground.
        area: square metres.
        x, y: centre of the smallest rotated rectangle, metres.
        axis_x, axis_y: unit vector of its long side.
        length, width: half of its long and of its short side, metres.
    """

    geometry: NDArray[np.object_]
    cover: NDArray[np.uint8]
    hash: Hashes
    height: Floats
    area: Floats
    x: Doubles
    y: Doubles
    axis_x: Floats
    axis_y: Floats
    length: Floats
    width: Floats

    def __len__(self) -> int:
        return len(self.geometry)

    def take(self, rows: NDArray[np.intp]) -> "Shapes":
        """Only these rows."""
        return Shapes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def prepare_shapes(entities: OsmEntities, *, sea: shapely.Geometry | None = None) -> Shapes:
    """What is visible of the polygons and lines of `entities`, and of the open `sea`."""
    shapes = [*_area_shapes(entities.polygon), *_line_shapes(entities.line)]
    parts = shapely.get_parts(np.array([sea])) if sea is not None else ()
    shapes += [_Shape(part, Cover.WATER, _Rank.SEA, 0) for part in parts]
    geometry = np.array([shape.geometry for shape in shapes], dtype=object)
    geometry = shapely.transform(geometry, lambda xy: xy + _NUDGE)
    area = shapely.area(geometry)
    order = np.lexsort((-area, np.array([shape.rank for shape in shapes])))
    shapes = [shapes[row] for row in order]
    geometry, area = geometry[order], area[order]
    return Shapes(
        geometry,
        np.array([shape.cover for shape in shapes], dtype=np.uint8),
        np.array([shape.hash for shape in shapes], dtype=np.uint32),
        np.array([shape.height for shape in shapes], dtype=np.float32),
        area.astype(np.float32),
        *_rectangles(geometry),
    )


def _rectangles(
    geometry: NDArray[np.object_],
) -> tuple[Doubles, Doubles, Floats, Floats, Floats, Floats]:
    """Smallest rotated rectangles: `x`, `y`, `axis_x`, `axis_y`, `length`, `width` of `Shapes`."""
    ring = shapely.get_exterior_ring(shapely.oriented_envelope(geometry))
    corner = [shapely.get_point(ring, index) for index in range(3)]
    x = np.nan_to_num(np.stack([shapely.get_x(point) for point in corner]))  # (3, n)
    y = np.nan_to_num(np.stack([shapely.get_y(point) for point in corner]))
    dx, dy = np.diff(x, axis=0), np.diff(y, axis=0)  # (2 sides, n)
    side = np.hypot(dx, dy)
    long, row = side.argmax(axis=0), np.arange(len(geometry))
    scale = np.maximum(side[long, row], 1e-6)
    return (
        (x[0] + x[2]) / 2,
        (y[0] + y[2]) / 2,
        (dx[long, row] / scale).astype(np.float32),
        (dy[long, row] / scale).astype(np.float32),
        (side.max(axis=0) / 2).astype(np.float32),
        (side.min(axis=0) / 2).astype(np.float32),
    )


def _rows(frame: gpd.GeoDataFrame) -> Iterator[tuple[int, Tags, shapely.Geometry]]:
    """(hash of the id, tags, geometry) of each entity."""
    columns = (frame["osm_id"], frame["tags"], frame.geometry)
    for osm_id, tags, geometry in zip(*columns, strict=True):
        yield zlib.crc32(osm_id.encode()), tags, geometry


def _area_shapes(frame: gpd.GeoDataFrame) -> Iterator[_Shape]:
    areas = shapely.area(frame.geometry.to_numpy()).tolist()
    for (identity, tags, geometry), area in zip(_rows(frame), areas, strict=True):
        cover = area_cover(tags)
        if cover is None:
            continue
        if cover in (Cover.ROOF, Cover.GLASS):
            height = _building_height(tags, area, identity)
            yield _Shape(geometry, cover, _Rank.ROOF, identity, height)
        elif cover == Cover.WATER:
            yield _Shape(geometry, cover, _Rank.WATER, identity)
        else:
            rank = _Rank.LAND if cover in _PLANTED_OR_BARE else _Rank.PAVED
            yield _Shape(geometry, cover, rank, identity)


def _building_height(tags: Tags, area: float, identity: int) -> float:
    """Metres: as tagged, else taller for larger footprints, with a share by identity."""
    height, levels = number(tags.get("height")), number(tags.get("building:levels"))
    if height is None and levels is not None:
        height = 3.2 * levels + 1.5
    if height is None:
        height = min((3.0 + 0.35 * math.sqrt(area)) * (0.75 + identity % 97 / 194), 16.0)
    return min(max(height, 2.0), 150.0)


def _line_shapes(frame: gpd.GeoDataFrame) -> Iterator[_Shape]:
    for identity, tags, geometry in _rows(frame):
        found = line_cover(tags)
        if found is None:
            continue
        cover, width = found
        # A bridge is drawn over what passes below, layer by layer, and casts a shadow.
        raised = tags.get("bridge", "no") != "no"
        layer = min(max(number(tags.get("layer")) or 1.0, 1.0), 5.0) if raised else 0.0
        rank = (_Rank.WATER + 0.5 if cover == Cover.WATER else _Rank.WAY) + 0.1 * layer
        if tags.get("highway") in KERBED and not raised:
            yield _Shape(_strip(geometry, width + 4.0), Cover.PAVING, _Rank.KERB, identity)
        yield _Shape(_strip(geometry, width), cover, rank, identity, 4.0 * layer)
        if tags.get("highway") in PAINTED:
            paint = _strip(geometry, 0.3)
            yield _Shape(paint, Cover.MARKING, rank + 0.05, identity, 4.0 * layer)
        if cover == Cover.BALLAST:
            rails = _strip(geometry, 1.7)
            yield _Shape(rails, Cover.STEEL, rank + 0.05, identity, 4.0 * layer)


def _strip(line: shapely.Geometry, width: float) -> shapely.Geometry:
    """`line` widened to `width` metres, with flat ends."""
    return shapely.buffer(line, width / 2, quad_segs=2, cap_style="flat", join_style="round")


class Spots(NamedTuple):
    """Small things at points: crowns or cars.

    Attributes:
        x, y: centres, metres.
        hash: one each.
        radius: of a crown, metres; half the length of a car.
        axis_x, axis_y: unit vector along a car.
    """

    x: Doubles
    y: Doubles
    hash: Hashes
    radius: Floats
    axis_x: Floats
    axis_y: Floats

    def within(self, bounds: Bounds) -> "Spots":
        """Those whose centre lies in `bounds`."""
        inside = (self.x >= bounds.west) & (self.x <= bounds.east)
        inside &= (self.y >= bounds.south) & (self.y <= bounds.north)
        return Spots._make(column[inside] for column in self)


def _spots(
    xy: Doubles, hashes: NDArray[np.integer], radius: Doubles, axis: Doubles | None = None
) -> Spots:
    axis = np.zeros_like(xy) if axis is None else axis
    return Spots(
        xy[:, 0],
        xy[:, 1],
        hashes.astype(np.uint32),
        radius.astype(np.float32),
        axis[:, 0].astype(np.float32),
        axis[:, 1].astype(np.float32),
    )


class _Walk(NamedTuple):
    """Points at even distances along lines.

    Attributes:
        line: row of the line of each point.
        step: number of the point on its line.
        stride: metres from point to point of its line.
        xy: (n, 2) metres.
        heading: (n, 2) unit vector of the line there.
    """

    line: NDArray[np.intp]
    step: NDArray[np.intp]
    stride: Doubles
    xy: Doubles
    heading: Doubles

    @classmethod
    def along(cls, lines: NDArray[np.object_], spacing: Doubles) -> Self:
        """Points in the middle of pieces of about `spacing` metres, which is one per line."""
        length = shapely.length(lines)
        count = np.ceil(length / spacing).astype(np.intp)
        line = np.repeat(np.arange(len(lines)), count)
        step = np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count)
        stride = (length / np.maximum(count, 1))[line]
        here = (step + 0.5) * stride
        xy = _xy(shapely.line_interpolate_point(lines[line], here))
        ahead = _xy(shapely.line_interpolate_point(lines[line], here + 0.25 * stride)) - xy
        heading = ahead / np.maximum(np.hypot(ahead[:, 0], ahead[:, 1]), 1e-6)[:, None]
        return cls(line, step, stride, xy, heading)


def _xy(points: NDArray[np.object_]) -> Doubles:
    return np.stack([shapely.get_x(points), shapely.get_y(points)], axis=1).reshape(-1, 2)


def mapped_trees(entities: OsmEntities) -> Spots:
    """Crowns of single trees and of rows of trees."""
    single = [row for row in _rows(entities.point) if row[1].get("natural") == "tree"]
    rows = [row for row in _rows(entities.line) if row[1].get("natural") == "tree_row"]
    diameter = [number(tags.get("diameter_crown")) for _, tags, _ in single]
    identity = np.array([identity for identity, _, _ in single], dtype=np.int64)
    radius = [
        1.8 + known % 100 / 40 if size is None else size / 2
        for known, size in zip(identity.tolist(), diameter, strict=True)
    ]
    row_identity = np.array([identity for identity, _, _ in rows], dtype=np.int64)
    row_radius = 2.2 + row_identity % 100 / 60
    walk = _Walk.along(_geometries(rows), 2.2 * row_radius)
    return _spots(
        np.concatenate([_xy(_geometries(single)), walk.xy]),
        np.concatenate([identity, row_identity[walk.line] + walk.step]),
        np.concatenate([radius, row_radius[walk.line]]).clip(0.8, MAX_CROWN),
    )


def _geometries(rows: list[tuple[int, Tags, shapely.Geometry]]) -> NDArray[np.object_]:
    return np.array([geometry for _, _, geometry in rows], dtype=object)


class _Ways(NamedTuple):
    """Roads and railways; `width` in metres."""

    geometry: NDArray[np.object_]
    width: Doubles
    hash: Integers
    is_road: NDArray[np.bool_]

    @classmethod
    def of(cls, entities: OsmEntities) -> Self:
        rows = [(*row, line_cover(row[1])) for row in _rows(entities.line)]
        found = [
            (geometry, found[1], identity, found[0] in _ROADS)
            for identity, tags, geometry, found in rows
            if found is not None and found[0] in (*_ROADS, Cover.BALLAST)
        ]
        geometry, width, identity, is_road = zip(*found, strict=True) if found else ((),) * 4
        return cls(
            np.array(geometry, dtype=object),
            np.array(width, dtype=np.float64),
            np.array(identity, dtype=np.int64),
            np.array(is_road, dtype=bool),
        )


def road_cars(entities: OsmEntities) -> Spots:
    """Cars on the right-hand side of wide enough roads, one per 15 to 75 m of road."""
    roads = _Ways.of(entities)
    wide = roads.is_road & (roads.width >= 5)
    geometry, width, identity = roads.geometry[wide], roads.width[wide], roads.hash[wide]
    walk = _Walk.along(geometry, (15 + identity % 61).astype(np.float64))
    right = np.stack([walk.heading[:, 1], -walk.heading[:, 0]], axis=1)
    right *= np.where(walk.step % 2, 1, -1)[:, None]
    xy = walk.xy + right * (width[walk.line] / 4)[:, None]
    hashes = identity[walk.line] + 7919 * walk.step
    return _spots(xy, hashes, np.full(len(xy), 2.2), walk.heading)


@dataclass(frozen=True)
class Density:
    """Share of ground under roofs, roads and rails in cells of `DENSITY_CELL`, where not zero.

    Attributes:
        key: of the cells, ascending.
        share: per cell; may exceed 1, as an object counts whole where its centre lies.
    """

    key: Integers
    share: Floats

    @classmethod
    def of(cls, shapes: Shapes, entities: OsmEntities) -> Self:
        """The density of roofs among `shapes` and of the roads and rails of `entities`."""
        roof = shapes.cover == Cover.ROOF
        ways = _Ways.of(entities)
        walk = _Walk.along(ways.geometry, np.full(len(ways.geometry), 16.0))
        x = np.concatenate([shapes.x[roof], walk.xy[:, 0]])
        y = np.concatenate([shapes.y[roof], walk.xy[:, 1]])
        area = np.concatenate([shapes.area[roof], walk.stride * ways.width[walk.line]])
        key, member = np.unique(_cell_key(x, y), return_inverse=True)
        share = np.bincount(member, weights=area, minlength=len(key)) / DENSITY_CELL**2
        return cls(key, share.astype(np.float32))

    def at(self, rows: Integers, cols: Integers) -> Floats:
        """(len(rows), len(cols)) shares, zero where nothing is stored."""
        wanted = rows[:, None] * _CELL_STRIDE + cols[None, :]
        place = np.searchsorted(self.key, wanted)
        key = np.append(self.key, np.iinfo(np.int64).max)
        share = np.append(self.share, np.float32(0))
        return np.where(key[place] == wanted, share[place], np.float32(0))


def _cell_key(x: Doubles, y: Doubles) -> Integers:
    row, col = np.floor(y / DENSITY_CELL), np.floor(x / DENSITY_CELL)
    return row.astype(np.int64) * _CELL_STRIDE + col.astype(np.int64)
