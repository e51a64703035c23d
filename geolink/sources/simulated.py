"""A simulated orthophoto: the land cover of OpenStreetMap rendered as RGB pixels.

Only what a camera would see is drawn: roofs, roads, rails, trees, lawns, fields, bare ground,
water, pitches. The legal use of a zone (`landuse=residential`, `amenity=school`, ...) and the use
of a building (`building=office`) never reach a pixel, so that labels made from them do not leak
through the picture.
"""

import copy
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, auto
from typing import Any, NamedTuple, Self

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from geolink.errors import CRSError
from geolink.grid import Bounds, GridSpec, require_metric
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.entities import OsmEntities

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Hashes = NDArray[np.uint32]
Tags = Mapping[str, str]


# --- Noise: functions of world coordinates -------------------------------------------------------


def _mix(value: Hashes) -> Hashes:
    """Avalanche of 32-bit integers: every input bit moves about half of the output bits."""
    value = value ^ (value >> np.uint32(16))
    value *= np.uint32(0x7FEB352D)
    value ^= value >> np.uint32(15)
    value *= np.uint32(0x846CA68B)
    value ^= value >> np.uint32(16)
    return value


def _keyed(value: NDArray[Any], key: int) -> Hashes:
    """Hashes of integers, independent from key to key."""
    return _mix(value.astype(np.uint32) ^ np.uint32(key * 0x9E3779B9 & 0xFFFFFFFF))


def _lattice_hash(rows: NDArray[np.int64], cols: NDArray[np.int64], key: int) -> Hashes:
    """(len(rows), len(cols)) hashes of the integer lattice points."""
    return _mix(_keyed(rows, 2 * key)[:, None] + _keyed(cols, 2 * key + 1)[None, :])


def _unit(hashes: Hashes) -> Floats:
    """Hashes as numbers in [0, 1)."""
    return (hashes >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


class _Knots(NamedTuple):
    """Where pixels lie between the knots of a coarser world lattice, along one axis."""

    index: NDArray[np.int64]  # of the knots
    lower: NDArray[np.int64]  # per pixel, position of the knot before it in `index`
    weight: Floats  # per pixel, weight of the knot after it

    @classmethod
    def between(cls, coordinate: Doubles, spacing: float) -> Self:
        position = coordinate / spacing
        below = np.floor(position).astype(np.int64)
        first, last = int(below.min()), int(below.max()) + 1
        fraction = (position - below).astype(np.float32)
        return cls(
            np.arange(first, last + 1), below - first, fraction * fraction * (3 - 2 * fraction)
        )

    def interpolate(self, values: Floats, axis: int) -> Floats:
        """`values` at the knots brought to the pixels along `axis`."""
        shape = [1, 1]
        shape[axis] = -1
        low = values.take(self.lower, axis)
        high = values.take(self.lower + 1, axis)
        high -= low
        high *= self.weight.reshape(shape)
        low += high
        return low


# --- Land cover: what a tag looks like from above ------------------------------------------------


class Cover(IntEnum):
    """Materials of the ground. The order is the order of the appearance table."""

    GROUND = 0  # between mapped objects
    GRASS = auto()
    PARK = auto()
    GARDEN = auto()
    CEMETERY = auto()
    MEADOW = auto()
    FARMLAND = auto()
    ORCHARD = auto()
    VINEYARD = auto()
    ALLOTMENTS = auto()
    FOREST = auto()
    SCRUB = auto()
    HEATH = auto()
    WETLAND = auto()
    SOIL = auto()
    SAND = auto()
    ROCK = auto()
    ICE = auto()
    WATER = auto()
    POOL = auto()
    ASPHALT = auto()
    ROAD = auto()
    CONCRETE = auto()
    PAVING = auto()
    GRAVEL = auto()
    TRACK = auto()
    PARKING = auto()
    BALLAST = auto()
    STEEL = auto()
    WOOD = auto()
    TURF = auto()
    CLAY = auto()
    TARTAN = auto()
    HARDCOURT = auto()
    MARKING = auto()
    CAR = auto()
    ROOF = auto()
    GLASS = auto()


class _Look(NamedTuple):
    """Appearance of one material.

    `spread` is the variation of lightness from object to object; `grain`, `mottle` and `patch` are
    amplitudes of noise of about 1, 5 and 30 m; `season` is how far it follows the colour of grass;
    `trees` is the share of 6 m cells with a tree, of crowns `crown` times the usual radius.
    """

    rgb: tuple[int, int, int]
    spread: float = 0.08
    grain: float = 0.05
    mottle: float = 0.05
    patch: float = 0.04
    season: float = 0.0
    trees: float = 0.0
    crown: float = 1.0


_LOOKS: dict[Cover, _Look] = {
    Cover.GROUND: _Look((122, 122, 112)),
    Cover.GRASS: _Look((104, 124, 70), 0.08, 0.07, 0.07, 0.08, 1.0, 0.03),
    Cover.PARK: _Look((98, 120, 66), 0.07, 0.07, 0.08, 0.10, 1.0, 0.22),
    Cover.GARDEN: _Look((96, 116, 66), 0.09, 0.09, 0.12, 0.10, 1.0, 0.20, 0.7),
    Cover.CEMETERY: _Look((108, 120, 82), 0.07, 0.16, 0.08, 0.06, 0.8, 0.28, 0.8),
    Cover.MEADOW: _Look((122, 138, 80), 0.10, 0.06, 0.06, 0.10, 1.0, 0.01),
    Cover.FARMLAND: _Look((150, 140, 95), 0.10, 0.05, 0.05, 0.08, 0.3),
    Cover.ORCHARD: _Look((112, 126, 74), 0.08, 0.07, 0.07, 0.07, 1.0, 0.45, 0.7),
    Cover.VINEYARD: _Look((128, 128, 84), 0.08, 0.06, 0.06, 0.06, 0.7),
    Cover.ALLOTMENTS: _Look((112, 118, 80), 0.08, 0.14, 0.10, 0.05, 0.6, 0.12, 0.6),
    Cover.FOREST: _Look((62, 76, 46), 0.07, 0.10, 0.10, 0.08, 0.8, 0.97, 1.1),
    Cover.SCRUB: _Look((96, 108, 66), 0.09, 0.12, 0.12, 0.10, 0.8, 0.65, 0.5),
    Cover.HEATH: _Look((120, 108, 82), 0.08, 0.10, 0.10, 0.10, 0.4, 0.06, 0.5),
    Cover.WETLAND: _Look((98, 104, 72), 0.07, 0.08, 0.12, 0.15, 0.6, 0.04, 0.6),
    Cover.SOIL: _Look((156, 133, 105), 0.10, 0.07, 0.09, 0.12),
    Cover.SAND: _Look((208, 192, 156), 0.06, 0.04, 0.04, 0.05),
    Cover.ROCK: _Look((152, 147, 139), 0.08, 0.12, 0.12, 0.08),
    Cover.ICE: _Look((232, 236, 240), 0.03, 0.02, 0.03, 0.04),
    Cover.WATER: _Look((50, 68, 76), 0.02, 0.03, 0.02, 0.05),
    Cover.POOL: _Look((92, 176, 198), 0.08, 0.03, 0.02, 0.0),
    Cover.ASPHALT: _Look((126, 126, 126), 0.10, 0.04, 0.05, 0.05),
    Cover.ROAD: _Look((112, 113, 116), 0.09, 0.03, 0.04, 0.05),
    Cover.CONCRETE: _Look((172, 169, 162), 0.07, 0.04, 0.05, 0.04),
    Cover.PAVING: _Look((160, 152, 143), 0.09, 0.06, 0.05, 0.05),
    Cover.GRAVEL: _Look((168, 158, 140), 0.08, 0.06, 0.06, 0.05),
    Cover.TRACK: _Look((158, 142, 115), 0.09, 0.08, 0.10, 0.06),
    Cover.PARKING: _Look((122, 122, 123), 0.11, 0.04, 0.05, 0.04),
    Cover.BALLAST: _Look((130, 118, 108), 0.06, 0.08, 0.05, 0.04),
    Cover.STEEL: _Look((98, 84, 76), 0.05, 0.08, 0.04, 0.02),
    Cover.WOOD: _Look((146, 132, 112), 0.09, 0.07, 0.05, 0.02),
    Cover.TURF: _Look((82, 130, 76), 0.10, 0.04, 0.03, 0.03),
    Cover.CLAY: _Look((180, 110, 78), 0.06, 0.04, 0.04, 0.03),
    Cover.TARTAN: _Look((166, 88, 70), 0.08, 0.03, 0.03, 0.03),
    Cover.HARDCOURT: _Look((88, 122, 138), 0.15, 0.03, 0.03, 0.03),
    Cover.MARKING: _Look((214, 214, 208), 0.03, 0.06, 0.04, 0.0),
    Cover.CAR: _Look((150, 150, 152), 0.0, 0.04, 0.0, 0.0),
    Cover.ROOF: _Look((140, 130, 120), 0.09, 0.04, 0.05, 0.0),
    Cover.GLASS: _Look((184, 200, 202), 0.05, 0.06, 0.03, 0.0),
}

_SURFACES: dict[str, Cover] = {
    "asphalt": Cover.ASPHALT, "paved": Cover.ASPHALT, "chipseal": Cover.ASPHALT,
    "concrete": Cover.CONCRETE, "concrete:plates": Cover.CONCRETE, "concrete:lanes": Cover.CONCRETE,
    "paving_stones": Cover.PAVING, "sett": Cover.PAVING, "cobblestone": Cover.PAVING,
    "unhewn_cobblestone": Cover.PAVING, "bricks": Cover.PAVING, "stone": Cover.PAVING,
    "gravel": Cover.GRAVEL, "fine_gravel": Cover.GRAVEL, "compacted": Cover.GRAVEL,
    "pebblestone": Cover.GRAVEL, "unpaved": Cover.TRACK, "dirt": Cover.TRACK,
    "ground": Cover.TRACK, "earth": Cover.TRACK, "mud": Cover.TRACK, "sand": Cover.SAND,
    "grass": Cover.GRASS, "grass_paver": Cover.GRASS, "artificial_turf": Cover.TURF,
    "clay": Cover.CLAY, "tartan": Cover.TARTAN, "rubber": Cover.TARTAN, "wood": Cover.WOOD,
    "acrylic": Cover.HARDCOURT, "hard": Cover.HARDCOURT, "metal": Cover.CONCRETE,
}  # fmt: skip

_SPORT_SURFACES: dict[str, Cover] = {
    "tennis": Cover.CLAY, "basketball": Cover.HARDCOURT, "athletics": Cover.TARTAN,
    "running": Cover.TARTAN, "beachvolleyball": Cover.SAND, "skateboard": Cover.CONCRETE,
    "boules": Cover.GRAVEL, "equestrian": Cover.SAND, "table_tennis": Cover.CONCRETE,
    "multi": Cover.TARTAN, "volleyball": Cover.TARTAN, "horse_racing": Cover.SAND,
    "bmx": Cover.SOIL, "motor": Cover.ASPHALT,
}  # fmt: skip

# First match wins. Keys of legal use (landuse=residential, amenity=school, ...) are not here.
_AREAS: dict[str, dict[str, Cover]] = {
    "natural": {
        "water": Cover.WATER, "bay": Cover.WATER, "wood": Cover.FOREST, "scrub": Cover.SCRUB,
        "shrubbery": Cover.SCRUB, "heath": Cover.HEATH, "fell": Cover.HEATH,
        "grassland": Cover.MEADOW, "wetland": Cover.WETLAND, "marsh": Cover.WETLAND,
        "beach": Cover.SAND, "sand": Cover.SAND, "dune": Cover.SAND, "shoal": Cover.SAND,
        "bare_rock": Cover.ROCK, "rock": Cover.ROCK, "stone": Cover.ROCK, "scree": Cover.ROCK,
        "shingle": Cover.GRAVEL, "mud": Cover.SOIL, "glacier": Cover.ICE,
    },
    "waterway": {"riverbank": Cover.WATER, "dock": Cover.WATER, "river": Cover.WATER,
                 "canal": Cover.WATER, "stream": Cover.WATER},
    "golf": {"bunker": Cover.SAND, "green": Cover.TURF, "fairway": Cover.GRASS,
             "tee": Cover.TURF, "rough": Cover.MEADOW, "water_hazard": Cover.WATER},
    "leisure": {
        "park": Cover.PARK, "garden": Cover.GARDEN, "golf_course": Cover.GRASS,
        "common": Cover.GRASS, "dog_park": Cover.GRASS, "playground": Cover.SAND,
        "swimming_pool": Cover.POOL, "recreation_ground": Cover.GRASS,
    },
    "amenity": {"parking": Cover.PARKING, "parking_space": Cover.PARKING,
                "fountain": Cover.POOL, "grave_yard": Cover.CEMETERY},
    "highway": {"pedestrian": Cover.PAVING, "footway": Cover.PAVING, "platform": Cover.PAVING,
                "service": Cover.ASPHALT, "residential": Cover.ASPHALT, "steps": Cover.PAVING,
                "unclassified": Cover.ASPHALT, "living_street": Cover.ASPHALT,
                "track": Cover.TRACK, "cycleway": Cover.ASPHALT, "path": Cover.GRAVEL,
                "rest_area": Cover.ASPHALT},
    "railway": {"platform": Cover.PAVING},
    "place": {"square": Cover.PAVING},
    "aeroway": {"runway": Cover.ROAD, "taxiway": Cover.ROAD, "apron": Cover.CONCRETE,
                "helipad": Cover.CONCRETE},
    "man_made": {"bridge": Cover.CONCRETE, "pier": Cover.WOOD, "breakwater": Cover.ROCK,
                 "groyne": Cover.ROCK, "quay": Cover.CONCRETE},
    "landuse": {
        "grass": Cover.GRASS, "village_green": Cover.GRASS, "recreation_ground": Cover.GRASS,
        "flowerbed": Cover.GARDEN, "cemetery": Cover.CEMETERY, "forest": Cover.FOREST,
        "meadow": Cover.MEADOW, "orchard": Cover.ORCHARD, "plant_nursery": Cover.ORCHARD,
        "vineyard": Cover.VINEYARD, "farmland": Cover.FARMLAND, "farm": Cover.FARMLAND,
        "field": Cover.FARMLAND, "allotments": Cover.ALLOTMENTS, "greenfield": Cover.MEADOW,
        "brownfield": Cover.SOIL, "construction": Cover.SOIL, "quarry": Cover.ROCK,
        "landfill": Cover.SOIL, "basin": Cover.WATER, "reservoir": Cover.WATER,
    },
}  # fmt: skip

# Width in metres, where no tag gives it, and surface of ways.
_WAYS: dict[str, dict[str, tuple[float, Cover]]] = {
    "highway": {
        "motorway": (11.0, Cover.ROAD), "trunk": (10.0, Cover.ROAD), "primary": (9.5, Cover.ROAD),
        "secondary": (8.5, Cover.ROAD), "tertiary": (7.5, Cover.ROAD),
        "motorway_link": (6.0, Cover.ROAD), "trunk_link": (6.0, Cover.ROAD),
        "primary_link": (5.5, Cover.ROAD), "secondary_link": (5.5, Cover.ROAD),
        "tertiary_link": (5.0, Cover.ROAD), "residential": (6.0, Cover.ASPHALT),
        "unclassified": (5.5, Cover.ASPHALT), "living_street": (5.5, Cover.ASPHALT),
        "road": (5.0, Cover.ASPHALT), "busway": (6.5, Cover.ASPHALT),
        "raceway": (10.0, Cover.ROAD), "service": (3.8, Cover.ASPHALT),
        "pedestrian": (5.0, Cover.PAVING), "footway": (2.0, Cover.PAVING),
        "cycleway": (2.4, Cover.ASPHALT), "steps": (2.2, Cover.PAVING),
        "platform": (3.0, Cover.PAVING), "path": (1.4, Cover.GRAVEL),
        "bridleway": (2.0, Cover.TRACK), "track": (2.8, Cover.TRACK),
        "construction": (7.0, Cover.SOIL),
    },
    "railway": {
        "rail": (4.2, Cover.BALLAST), "light_rail": (4.0, Cover.BALLAST),
        "subway": (4.0, Cover.BALLAST), "narrow_gauge": (3.4, Cover.BALLAST),
        "disused": (3.6, Cover.BALLAST), "abandoned": (3.0, Cover.TRACK),
        "platform": (3.0, Cover.PAVING),
    },
    "aeroway": {"runway": (40.0, Cover.ROAD), "taxiway": (18.0, Cover.ROAD)},
    "waterway": {
        "river": (14.0, Cover.WATER), "canal": (9.0, Cover.WATER), "stream": (2.2, Cover.WATER),
        "drain": (1.6, Cover.WATER), "ditch": (1.2, Cover.WATER),
    },
    "man_made": {"pier": (3.0, Cover.WOOD), "breakwater": (8.0, Cover.ROCK),
                 "groyne": (4.0, Cover.ROCK)},
    "barrier": {"hedge": (1.6, Cover.SCRUB)},
}  # fmt: skip

# Streets with pavements on both sides, and roads with painted lanes.
_KERBED = {"primary", "secondary", "tertiary", "residential", "living_street"}
_PAINTED = {"motorway", "trunk", "primary", "secondary"}


class _Rank(IntEnum):
    """Drawing order of groups; within one, large objects come before small ones."""

    SEA = 0
    LAND = auto()
    WATER = auto()
    PAVED = auto()
    KERB = auto()
    WAY = auto()
    PAINT = auto()
    ROOF = auto()


def _hidden(tags: Tags) -> bool:
    """True for what lies underground or indoors."""
    return (
        tags.get("tunnel", "no") not in ("no", "building_passage")
        or tags.get("location") in ("underground", "indoor")
        or tags.get("indoor", "no") != "no"
        or tags.get("parking") in ("underground", "multi-storey")
    )


def _number(text: str | None) -> float | None:
    """The leading number of a tag value such as `12`, `12.5 m`; None where there is none."""
    try:
        value = float((text or "").split()[0].rstrip("m").replace(",", "."))
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) else None


def _is_building(tags: Tags) -> bool:
    return tags.get("building", "no") != "no"


def _pitch(tags: Tags) -> Cover:
    sport = tags.get("sport", "").split(";")[0]
    by_sport = _SPORT_SURFACES.get(sport, Cover.TURF)
    return _SURFACES.get(tags.get("surface", ""), by_sport)


def area_cover(tags: Tags) -> Cover | None:
    """The material of a polygon with these tags; None where the tags say nothing visible."""
    if _hidden(tags):
        return None
    if _is_building(tags):
        return Cover.GLASS if tags["building"] in ("greenhouse", "glasshouse") else Cover.ROOF
    if tags.get("leisure") in ("pitch", "track"):
        return _pitch(tags)
    for key, covers in _AREAS.items():
        cover = covers.get(tags.get(key, ""))
        if cover is not None:
            paved = key in ("highway", "amenity", "place", "railway") and cover != Cover.POOL
            return _SURFACES.get(tags.get("surface", ""), cover) if paved else cover
    return None


def line_cover(tags: Tags) -> tuple[Cover, float] | None:
    """Material and width in metres of a line with these tags; None where nothing is visible."""
    if _hidden(tags):
        return None
    for key, ways in _WAYS.items():
        found = ways.get(tags.get(key, ""))
        if found is not None:
            width, cover = found
            lanes = _number(tags.get("lanes"))
            tagged = _number(tags.get("width")) or (lanes * 3.2 + 1 if lanes else None)
            if key == "highway":
                cover = _SURFACES.get(tags.get("surface", ""), cover)
                cover = Cover.ROAD if cover == Cover.ASPHALT and width >= 7 else cover
            return cover, min(max(tagged or width, 1.0), 60.0)
    return None


# --- Shapes: entities as polygons in drawing order -----------------------------------------------


_NUDGE = np.array([0.000317, 0.000731])  # metres


class _Shape(NamedTuple):
    """One polygon to burn, with what decides its place in the drawing order."""

    geometry: shapely.Geometry
    cover: Cover
    rank: float
    hash: int
    height: float = 0.0


def _id_hash(osm_id: str) -> int:
    return zlib.crc32(str(osm_id).encode())


def _building_height(tags: Tags, area: float, identity: int) -> float:
    """Metres: as tagged, else taller for larger footprints, with a share by identity."""
    height = _number(tags.get("height"))
    levels = _number(tags.get("building:levels"))
    if height is None and levels is not None:
        height = 3.2 * levels + 1.5
    if height is None:
        height = (3.0 + 0.35 * math.sqrt(max(area, 0.0))) * (0.75 + 0.5 * (identity % 97) / 97)
        height = min(height, 16.0)
    return min(max(height, 2.0), 150.0)


def _polygon_shapes(entities: OsmEntities) -> Iterator[_Shape]:
    frame = entities.polygon
    areas = shapely.area(frame.geometry.to_numpy())
    for osm_id, tags, geometry, area in zip(
        frame["osm_id"], frame["tags"], frame.geometry, areas, strict=True
    ):
        cover = area_cover(tags)
        if cover is None:
            continue
        identity = _id_hash(osm_id)
        if cover in (Cover.ROOF, Cover.GLASS):
            height = _building_height(tags, area, identity)
            yield _Shape(geometry, cover, _Rank.ROOF, identity, height)
        elif cover == Cover.WATER:
            yield _Shape(geometry, cover, _Rank.WATER, identity)
        elif cover in _SOFT:
            yield _Shape(geometry, cover, _Rank.LAND, identity)
        else:
            yield _Shape(geometry, cover, _Rank.PAVED, identity)


_SOFT = {
    Cover.GRASS, Cover.PARK, Cover.GARDEN, Cover.CEMETERY, Cover.MEADOW, Cover.FARMLAND,
    Cover.ORCHARD, Cover.VINEYARD, Cover.ALLOTMENTS, Cover.FOREST, Cover.SCRUB, Cover.HEATH,
    Cover.WETLAND, Cover.SOIL, Cover.SAND, Cover.ROCK, Cover.ICE,
}  # fmt: skip


def _line_shapes(entities: OsmEntities) -> Iterator[_Shape]:
    frame = entities.line
    for osm_id, tags, geometry in zip(frame["osm_id"], frame["tags"], frame.geometry, strict=True):
        found = line_cover(tags)
        if found is None:
            continue
        cover, width = found
        identity = _id_hash(osm_id)
        # A bridge is drawn over what passes below, layer by layer, and casts a shadow.
        raised = tags.get("bridge", "no") != "no"
        layer = min(max(_number(tags.get("layer")) or 1.0, 1.0), 5.0) if raised else 0.0
        rank = (_Rank.WATER + 0.5 if cover == Cover.WATER else _Rank.WAY) + 0.1 * layer
        kind = tags.get("highway", "")
        if kind in _KERBED and not raised:
            yield _Shape(_strip(geometry, width + 4.0), Cover.PAVING, _Rank.KERB, identity)
        yield _Shape(_strip(geometry, width), cover, rank, identity, 4.0 * layer)
        if kind in _PAINTED:
            yield _Shape(_strip(geometry, 0.3), Cover.MARKING, rank + 0.05, identity, 4.0 * layer)
        if cover == Cover.BALLAST:
            yield _Shape(_strip(geometry, 1.7), Cover.STEEL, rank + 0.05, identity, 4.0 * layer)


def _strip(line: shapely.Geometry, width: float) -> shapely.Geometry:
    """`line` widened to `width` metres, with flat ends."""
    return shapely.buffer(line, width / 2, quad_segs=2, cap_style="flat", join_style="round")


@dataclass(frozen=True)
class _Shapes:
    """Polygons in drawing order, and their constant attributes, one row each.

    Attributes:
        geometry: polygons, in metres.
        cover: `Cover` codes.
        hash: identity of the entity, the same for all its parts.
        height: metres above ground.
        area: square metres.
        centre: (n, 2) centre of the smallest rotated rectangle.
        axis: (n, 2) unit vector of its long side.
        half: (n, 2) half of its long and its short side, metres.
    """

    geometry: NDArray[np.object_]
    cover: NDArray[np.uint8]
    hash: Hashes
    height: Floats
    area: Doubles
    centre: Doubles
    axis: Doubles
    half: Doubles
    tree: shapely.STRtree

    @classmethod
    def of(cls, shapes: list[_Shape]) -> Self:
        geometry = np.array([shape.geometry for shape in shapes], dtype=object)
        # A shift by an odd fraction of a millimetre keeps vertices off the centres of pixels,
        # where the rounding of a tile's origin would decide on which side they fall.
        geometry = shapely.transform(geometry, lambda xy: xy + _NUDGE)
        area = shapely.area(geometry)
        order = np.lexsort((-area, np.array([shape.rank for shape in shapes])))
        geometry, area = geometry[order], area[order]
        centre, axis, half = _rectangles(geometry)
        return cls(
            geometry,
            np.array([shape.cover for shape in shapes], dtype=np.uint8)[order],
            np.array([shape.hash for shape in shapes], dtype=np.uint32)[order],
            np.array([shape.height for shape in shapes], dtype=np.float32)[order],
            area,
            centre,
            axis,
            half,
            shapely.STRtree(geometry),
        )


def _rectangles(geometry: NDArray[np.object_]) -> tuple[Doubles, Doubles, Doubles]:
    """Centre, long axis and half sides of the smallest rotated rectangles; see `_Shapes`."""
    corners = np.zeros((len(geometry), 3, 2))
    outline = shapely.oriented_envelope(geometry)
    for step in range(3):
        point = shapely.get_point(shapely.get_exterior_ring(outline), step)
        corners[:, step] = np.nan_to_num(shapely.get_coordinates(point, include_z=False))
    sides = np.diff(corners, axis=1)  # (n, 2 sides, 2)
    lengths = np.hypot(sides[..., 0], sides[..., 1])  # (n, 2)
    long = lengths.argmax(axis=1)
    row = np.arange(len(geometry))
    axis = sides[row, long] / np.maximum(lengths[row, long], 1e-6)[:, None]
    half = np.stack([lengths.max(axis=1), lengths.min(axis=1)], axis=1) / 2
    return (corners[:, 0] + corners[:, 2]) / 2, axis, half


@dataclass(frozen=True)
class _Trees:
    """Mapped trees.

    Attributes:
        xy: (n, 2) metres.
        radius: of the crown, metres.
    """

    xy: Doubles
    radius: Floats
    tree: shapely.STRtree

    @classmethod
    def of(cls, entities: OsmEntities) -> Self:
        found = [*_single_trees(entities), *_tree_rows(entities)]
        points = [point for point, _ in found]
        xy = np.array([(point.x, point.y) for point in points]).reshape(-1, 2)
        radius = np.array([radius for _, radius in found], dtype=np.float32)
        return cls(xy, np.clip(radius, 0.8, _MAX_CROWN), shapely.STRtree(points))


_MAX_CROWN = 5.5  # metres


def _single_trees(entities: OsmEntities) -> Iterator[tuple[shapely.Point, float]]:
    frame = entities.point
    for osm_id, tags, geometry in zip(frame["osm_id"], frame["tags"], frame.geometry, strict=True):
        if tags.get("natural") == "tree":
            diameter = _number(tags.get("diameter_crown"))
            yield geometry, diameter / 2 if diameter else 1.8 + _id_hash(osm_id) % 100 / 40


def _tree_rows(entities: OsmEntities) -> Iterator[tuple[shapely.Point, float]]:
    frame = entities.line
    for osm_id, tags, geometry in zip(frame["osm_id"], frame["tags"], frame.geometry, strict=True):
        if tags.get("natural") == "tree_row":
            radius = 2.2 + _id_hash(osm_id) % 100 / 60
            for distance in np.arange(radius, geometry.length, 2.2 * radius):
                yield geometry.interpolate(distance), radius


_DENSITY_CELL = 32.0  # metres
_CELL_STRIDE = 1 << 24  # cells per row of the key; more than any projected CRS is wide


@dataclass(frozen=True)
class _Density:
    """Share of ground under roofs in square cells of `_DENSITY_CELL`, stored where not zero."""

    key: NDArray[np.int64]
    share: Floats

    @classmethod
    def of(cls, shapes: _Shapes) -> Self:
        roofs = shapes.cover == Cover.ROOF
        cell = np.floor(shapes.centre[roofs] / _DENSITY_CELL).astype(np.int64)
        key, member = np.unique(cell[:, 1] * _CELL_STRIDE + cell[:, 0], return_inverse=True)
        covered = np.bincount(member, weights=shapes.area[roofs], minlength=len(key))
        return cls(key, (covered / _DENSITY_CELL**2).astype(np.float32))

    def at(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
        """(len(rows), len(cols)) shares, zero where nothing is stored."""
        wanted = rows[:, None] * _CELL_STRIDE + cols[None, :]
        if not len(self.key):
            return np.zeros(wanted.shape, dtype=np.float32)
        place = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
        return np.where(self.key[place] == wanted, self.share[place], np.float32(0))


# --- Style: how one flight over the scene looks --------------------------------------------------

_ROOFS = np.array(
    [
        (158, 92, 70),  # red tiles
        (120, 88, 74),  # brown tiles
        (84, 86, 90),  # dark slate
        (124, 125, 127),  # grey sheet
        (166, 166, 163),  # light sheet
        (206, 206, 201),  # white membrane
        (122, 148, 132),  # copper
        (72, 72, 75),  # bitumen
        (162, 151, 135),  # gravel
    ],
    dtype=np.float32,
)
_ROOFS_SMALL = (0.30, 0.17, 0.16, 0.13, 0.07, 0.02, 0.02, 0.07, 0.06)
_ROOFS_LARGE = (0.07, 0.04, 0.10, 0.20, 0.19, 0.14, 0.03, 0.09, 0.14)
_CARS = np.array(
    [(225, 226, 228), (42, 43, 46), (150, 152, 155), (92, 95, 100), (150, 48, 44), (58, 78, 118)],
    dtype=np.float32,
)
_CROPS = np.array(
    [(112, 132, 72), (86, 112, 60), (176, 160, 108), (150, 126, 96), (134, 142, 86)],
    dtype=np.float32,
)
_WATERS = np.array([(38, 56, 72), (58, 76, 70), (46, 78, 88), (30, 40, 48)], dtype=np.float32)


@dataclass(frozen=True)
class SceneStyle:
    """Light, season and camera of one rendering, the same for all its tiles.

    Attributes:
        sun_azimuth, sun_elevation: degrees; azimuth clockwise from north.
        season: (3,) gain of vegetation, from lush to dry.
        autumn: (3,) gain of tree crowns.
        water: (3,) RGB of open water.
        roofs: (2, k) cumulative shares of roof colours, of small and of large buildings.
        cast: (3,) gain of the camera.
        haze: share of veil over the picture.
        contrast, brightness: of the whole picture.
        noise: sensor noise, grey levels.
        blur: weight of each neighbour in the point spread function.
    """

    sun_azimuth: float
    sun_elevation: float
    season: Floats
    autumn: Floats
    water: Floats
    roofs: Floats
    cast: Floats
    haze: float
    contrast: float
    brightness: float
    noise: float
    blur: float

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """The style that belongs to `seed`."""
        draw = np.random.default_rng([0x51D, seed])
        dryness = draw.beta(1.5, 3.0)
        lush, dry = np.array([0.95, 1.02, 0.92]), np.array([1.42, 1.14, 1.16])
        summer, fall = np.array([1.0, 1.0, 1.0]), np.array([1.5, 1.08, 0.95])
        water = _WATERS.T @ draw.dirichlet(np.ones(len(_WATERS)))
        roofs = np.array([_ROOFS_SMALL, _ROOFS_LARGE]) * draw.gamma(1.5, size=len(_ROOFS))
        return cls(
            sun_azimuth=draw.uniform(110, 250),
            sun_elevation=draw.uniform(30, 60),
            season=(lush + (dry - lush) * dryness).astype(np.float32),
            autumn=(summer + (fall - summer) * draw.beta(0.6, 3.0)).astype(np.float32),
            water=(water * draw.uniform(0.85, 1.2)).astype(np.float32),
            roofs=(np.cumsum(roofs, 1) / roofs.sum(1, keepdims=True)).astype(np.float32),
            cast=draw.normal(1.0, 0.025, 3).astype(np.float32),
            haze=draw.uniform(0.0, 0.14),
            contrast=draw.uniform(0.9, 1.15),
            brightness=draw.uniform(0.92, 1.12),
            noise=draw.uniform(1.0, 4.0),
            blur=draw.uniform(0.04, 0.16),
        )


def _pick(shares: Floats, chance: Floats) -> NDArray[np.intp]:
    """Index of the class in which `chance` falls; `shares` (n, k) are cumulative."""
    return np.minimum((chance[:, None] >= shares).sum(axis=1), shares.shape[1] - 1)


def _palette(shapes: _Shapes, style: SceneStyle, seed: int) -> Floats:
    """(3, 1 + n) colours: of unmapped ground, then of every shape."""
    base = np.array([_LOOKS[cover].rgb for cover in Cover], dtype=np.float32)
    seasonal = np.array([_LOOKS[cover].season for cover in Cover], dtype=np.float32)
    base = base * (1 + seasonal[:, None] * (style.season - 1))
    base[Cover.WATER] = style.water
    colour = base[shapes.cover]
    chance = _unit(_keyed(shapes.hash, seed * 4 + 1))
    roof = shapes.cover == Cover.ROOF
    large = np.clip((np.log10(np.maximum(shapes.area, 1.0)) - 2.3) / 1.0, 0, 1)[roof, None]
    shares = (style.roofs[0] * (1 - large) + style.roofs[1] * large).astype(np.float32)
    colour[roof] = _ROOFS[_pick(shares, chance[roof])]
    field_ = shapes.cover == Cover.FARMLAND
    colour[field_] = _CROPS[(chance[field_] * len(_CROPS)).astype(int)]
    spread = np.array([_LOOKS[cover].spread for cover in Cover], dtype=np.float32)[shapes.cover]
    lightness = _unit(_keyed(shapes.hash, seed * 4 + 2)) * 2 - 1
    warmth = _unit(_keyed(shapes.hash, seed * 4 + 3)) * 2 - 1
    colour *= 1 + (spread * lightness)[:, None]
    colour *= 1 + (0.4 * spread * warmth)[:, None] * np.array([1, 0, -1], dtype=np.float32)
    return np.concatenate([base[:1], colour]).T.copy()


# --- Rendering -----------------------------------------------------------------------------------

_SUBPIXELS = 256
_REACH = 40.0  # metres; about the longest shadow drawn


@dataclass(frozen=True)
class _Canvas:
    """The fine pixels on which one tile is drawn: the tile's own, split, and a margin around.

    Attributes:
        px: metres.
        split: fine pixels per pixel and side.
        margin: fine pixels on every side.
        x, y: centres of columns and rows, metres.
        cols, rows: their numbers on the world lattice.
    """

    px: float
    split: int
    margin: int
    x: Doubles
    y: Doubles
    cols: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, grid: GridSpec) -> Self:
        split = min(max(math.ceil(grid.gsd / 1.5), 2), 4)
        px = grid.gsd / split
        margin = math.ceil(_MAX_CROWN / px) + (1 << _doublings(px)) + 2 * split
        margin += -margin % split
        # Everything follows from the corner in whole subpixels, so that overlapping tiles agree.
        west = round(grid.west / px * _SUBPIXELS)
        south_up = round(grid.north / px * _SUBPIXELS)
        cols = np.arange(-margin, grid.width * split + margin)
        rows = np.arange(-margin, grid.height * split + margin)
        x = (west + _SUBPIXELS * cols + _SUBPIXELS // 2) * (px / _SUBPIXELS)
        y = (south_up - _SUBPIXELS * rows - _SUBPIXELS // 2) * (px / _SUBPIXELS)
        return cls(
            px, split, margin, x, y, cols + west // _SUBPIXELS, rows - south_up // _SUBPIXELS
        )

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.x)

    @property
    def bounds(self) -> Bounds:
        half = self.px / 2
        return Bounds(self.x[0] - half, self.y[-1] - half, self.x[-1] + half, self.y[0] + half)

    @property
    def transform(self) -> Affine:
        return Affine(self.px, 0, self.bounds.west, 0, -self.px, self.bounds.north)

    def noise(self, spacing: float, key: int) -> Floats:
        """(rows, cols) smooth noise in -1..1 with features of about `spacing` metres.

        What is finer than a pixel averages out.
        """
        if spacing < 1.5 * self.px:
            spacing, gain = 1.5 * self.px, spacing / (1.5 * self.px)
        else:
            gain = 1.0
        across, down = _Knots.between(self.x, spacing), _Knots.between(self.y, spacing)
        values = _unit(_lattice_hash(down.index, across.index, key))
        values = (2 * values - 1) * np.float32(gain)
        return across.interpolate(down.interpolate(values, 0), 1)

    def density(self, density: _Density) -> Floats:
        """(rows, cols) share of ground under roofs nearby."""
        across = _Knots.between(self.x, _DENSITY_CELL)
        down = _Knots.between(self.y, _DENSITY_CELL)
        rows = np.arange(down.index[0] - 2, down.index[-1] + 2)
        cols = np.arange(across.index[0] - 2, across.index[-1] + 2)
        # A knot lies at the corner of four cells; the mean of the 4 x 4 cells around it.
        values = _running_mean(_running_mean(density.at(rows, cols), 0), 1)
        return across.interpolate(down.interpolate(values, 0), 1)


def _running_mean(values: Floats, axis: int) -> Floats:
    """Mean of each four neighbours along `axis`."""
    values = np.moveaxis(values, axis, 0)
    mean = (values[:-3] + values[1:-2] + values[2:-1] + values[3:]) / np.float32(4)
    return np.moveaxis(mean, 0, axis)


def _doublings(px: float) -> int:
    return max(round(math.log2(_REACH / px)), 1)


def _burn(shapes: _Shapes, canvas: _Canvas) -> NDArray[np.int32]:
    """(rows, cols) 1 + row of the topmost shape, 0 where there is none."""
    frame = canvas.bounds
    chosen = np.sort(shapes.tree.query(shapely.box(*frame)))
    if not len(chosen):
        return np.zeros(canvas.shape, dtype=np.int32)
    geometry = shapes.geometry[chosen]
    wide = frame.buffered(1.0)
    long = shapely.get_num_coordinates(geometry) > 100
    geometry[long] = shapely.clip_by_rect(geometry[long], *wide)
    keep = ~shapely.is_empty(geometry)
    if not keep.any():
        return np.zeros(canvas.shape, dtype=np.int32)
    burned: NDArray[np.int32] = rasterize(
        zip(geometry[keep], (chosen[keep] + 1).tolist(), strict=True),
        out_shape=canvas.shape,
        transform=canvas.transform,
        dtype="int32",
    )
    return burned


class SimulatedImagery:
    """An `ImageSource` that renders the land cover of OSM entities.

    Pixels are a pure function of entities, seed and grid: noise follows world coordinates, so that
    overlapping tiles of one lattice agree exactly.

    Args:
        entities: in a metric CRS.
        seed: decides light, season, camera and the colours of objects.
        sea: area of open sea in the same CRS, for coasts, which OSM maps as lines.

    Raises:
        CRSError: the entities are not in a metric CRS.
    """

    def __init__(
        self, entities: OsmEntities, *, seed: int = 0, sea: shapely.Geometry | None = None
    ) -> None:
        self._crs = require_metric(entities.crs)
        shapes = [*_polygon_shapes(entities), *_line_shapes(entities)]
        if sea is not None and not sea.is_empty:
            shapes += [_Shape(part, Cover.WATER, _Rank.SEA, 0) for part in _polygons(sea)]
        self._shapes = _Shapes.of(shapes)
        self._trees = _Trees.of(entities)
        self._density = _Density.of(self._shapes)
        self._source = entities.info
        self._set_style(seed)

    def _set_style(self, seed: int) -> None:
        self.seed = seed
        self.style = SceneStyle.from_seed(seed)
        self._palette = _palette(self._shapes, self.style, seed)

    def with_seed(self, seed: int) -> "SimulatedImagery":
        """The same place in another light; shares the prepared geometry."""
        other = copy.copy(self)
        other._set_style(seed)
        return other

    @property
    def info(self) -> SourceInfo:
        """Where the pixels come from: the OSM data that was drawn, marked as simulated."""
        return replace(
            self._source,
            description=f"simulated orthophoto (seed {self.seed}) of {self._source.description}",
            simulated=True,
        )

    def read(self, grid: GridSpec) -> ImageTile:
        """Pixels of `grid`, valid everywhere.

        Raises:
            CRSError: `grid` is in another CRS than the entities.
        """
        if grid.crs != self._crs:
            raise CRSError(
                f"the grid is in {grid.crs.name} but the entities are in {self._crs.name}; "
                "reproject the entities to the grid's system"
            )
        canvas = _Canvas.of(grid)
        rgb = self._draw(canvas)
        rgb = _downsample(rgb, canvas)
        rgb = self._expose(rgb, canvas)
        return ImageTile(rgb, np.ones(grid.shape, dtype=bool))

    def _draw(self, canvas: _Canvas) -> Floats:
        """(3, rows, cols) radiance of the canvas in grey levels, before camera and air."""
        top = _burn(self._shapes, canvas)
        cover = _with_ground(self._shapes.cover, Cover.GROUND).take(top)
        rgb = self._palette.take(top, axis=1)
        green = _greenness(canvas, self._density)
        _fill_ground(rgb, cover, green, canvas, self.style)
        shade = _texture(cover, canvas)
        shade *= _patterns(rgb, top, cover, canvas, self._shapes, self.style)
        rgb *= shade
        crowns = _crowns(cover, green, canvas, self._trees)
        _paint_crowns(rgb, crowns, canvas, self.style)
        height = _with_ground(self._shapes.height, 0).take(top)
        np.maximum(height, crowns, out=height)
        _cast_shadows(rgb, height, canvas, self.style)
        return rgb

    def _expose(self, rgb: Floats, canvas: _Canvas) -> NDArray[np.uint8]:
        """Camera and air: `rgb` with one pixel of margin becomes (3, height, width) uint8."""
        style = self.style
        rgb = _blur(_blur(rgb, 1, style.blur), 2, style.blur)
        gain = style.cast * style.brightness * style.contrast
        offset = 112 * (1 - style.contrast)
        veil = np.array([176, 186, 198], dtype=np.float32) * style.haze
        rgb *= (gain * (1 - style.haze))[:, None, None].astype(np.float32)
        rgb += (veil + offset * (1 - style.haze))[:, None, None].astype(np.float32)
        inner = slice(canvas.margin, -canvas.margin, canvas.split)
        for band in range(3):
            rgb[band] += style.noise * _sensor_noise(
                canvas.rows[inner], canvas.cols[inner], self.seed * 4 + band
            )
        return (rgb + np.float32(0.5)).clip(0, 255).astype(np.uint8)


def _polygons(geometry: shapely.Geometry) -> list[shapely.Geometry]:
    parts = shapely.get_parts(geometry)
    return [part for part in parts if shapely.get_dimensions(part) == 2]


def _with_ground(values: NDArray[Any], ground: float) -> NDArray[Any]:
    """`values` of shapes as a table for `_burn`'s numbers, whose 0 is unmapped ground."""
    return np.concatenate([np.array([ground], dtype=values.dtype), values])


def _smoothstep(values: Floats, low: float, high: float) -> Floats:
    t = ((values - np.float32(low)) * np.float32(1 / (high - low))).clip(0, 1)
    return t * t * (3 - 2 * t)


def _greenness(canvas: _Canvas, density: _Density) -> Floats:
    """(rows, cols) how much unmapped ground is overgrown, 0..1: less where more is built."""
    built = canvas.density(density)
    wild = canvas.noise(42.0, 11) + np.float32(0.7) * canvas.noise(13.0, 12)
    wild += np.float32(0.35) * canvas.noise(4.0, 13)
    return _smoothstep(wild + np.float32(0.75) - np.float32(4.0) * built.clip(0, 0.5), -0.25, 0.25)


def _fill_ground(
    rgb: Floats, cover: NDArray[np.uint8], green: Floats, canvas: _Canvas, style: SceneStyle
) -> None:
    """Colours unmapped ground as a mix of paving, soil and grass, in place."""
    ground = np.flatnonzero(cover == Cover.GROUND)
    if not ground.size:
        return
    grass = np.array(_LOOKS[Cover.GRASS].rgb, dtype=np.float32) * style.season
    paved = np.array(_LOOKS[Cover.ASPHALT].rgb, dtype=np.float32) * np.float32(1.06)
    soil = np.array(_LOOKS[Cover.SOIL].rgb, dtype=np.float32)
    bare = _smoothstep(canvas.noise(27.0, 14).ravel()[ground], 0.1, 0.5) * np.float32(0.7)
    grown = green.ravel()[ground]
    for band in range(3):
        mix = paved[band] + (soil[band] - paved[band]) * bare
        rgb[band].reshape(-1)[ground] = mix + (grass[band] - mix) * grown


def _texture(cover: NDArray[np.uint8], canvas: _Canvas) -> Floats:
    """(rows, cols) gain from noise at three scales, by material."""
    looks = np.array(
        [(_LOOKS[c].grain, _LOOKS[c].mottle, _LOOKS[c].patch) for c in Cover], dtype=np.float32
    )
    gain = np.ones(cover.shape, dtype=np.float32)
    for column, spacing in enumerate((0.8, 5.0, 31.0)):
        noise = canvas.noise(spacing, 20 + column)
        noise *= (2.0 * looks[:, column]).take(cover)
        gain += noise
    return gain


def _crowns(cover: NDArray[np.uint8], green: Floats, canvas: _Canvas, mapped: _Trees) -> Floats:
    """(rows, cols) height of tree crowns, 0 where there is none: mapped trees and wild ones."""
    x, y, radius = _wild_trees(cover, green, canvas)
    near = np.sort(mapped.tree.query(shapely.box(*canvas.bounds)))
    x = np.concatenate([x, mapped.xy[near, 0]])
    y = np.concatenate([y, mapped.xy[near, 1]])
    radius = np.concatenate([radius, mapped.radius[near]])
    return _stamp_domes(canvas, x, y, radius)


def _wild_trees(
    cover: NDArray[np.uint8], green: Floats, canvas: _Canvas
) -> tuple[Doubles, Doubles, Floats]:
    """Centres and radii of one tree per cell of `_TREE_CELL`, where the cover lets it grow."""
    frame = canvas.bounds
    cols = np.arange(math.ceil(frame.west / _TREE_CELL), math.floor(frame.east / _TREE_CELL))
    rows = np.arange(math.ceil(frame.south / _TREE_CELL), math.floor(frame.north / _TREE_CELL))
    chance = _unit(_lattice_hash(rows, cols, 30))
    x = (cols[None, :] + _unit(_lattice_hash(rows, cols, 31)).astype(np.float64)) * _TREE_CELL
    y = (rows[:, None] + _unit(_lattice_hash(rows, cols, 32)).astype(np.float64)) * _TREE_CELL
    size = _unit(_lattice_hash(rows, cols, 33))
    at = (
        np.clip((frame.north - y) / canvas.px, 0, canvas.shape[0] - 1).astype(np.intp),
        np.clip((x - frame.west) / canvas.px, 0, canvas.shape[1] - 1).astype(np.intp),
    )
    under = cover[at]
    share = np.array([_LOOKS[c].trees for c in Cover], dtype=np.float32).take(under)
    share += np.where(under == Cover.GROUND, np.float32(0.22) * green[at], np.float32(0))
    crown = np.array([_LOOKS[c].crown for c in Cover], dtype=np.float32).take(under)
    grown = chance < share
    radius = ((2.0 + 2.4 * size) * crown).astype(np.float32)
    return x[grown], y[grown], radius[grown]


_TREE_CELL = 5.0  # metres


def _stamp_domes(canvas: _Canvas, x: Doubles, y: Doubles, radius: Floats) -> Floats:
    """(rows, cols) upper envelope of domes with these centres and radii, metres."""
    heights = np.zeros(canvas.shape, dtype=np.float32)
    frame = canvas.bounds
    col = (x - frame.west) / canvas.px - 0.5
    row = (frame.north - y) / canvas.px - 0.5
    reach = np.ceil(radius / canvas.px).astype(np.intp)
    for size in np.unique(reach):
        chosen = reach == size
        _stamp(heights, row[chosen], col[chosen], radius[chosen], size, canvas.px)
    return heights


def _stamp(
    heights: Floats, row: Doubles, col: Doubles, radius: Floats, size: int, px: float
) -> None:
    """Raises `heights` to domes that reach `size` pixels, in place."""
    step = np.arange(-size, size + 1)
    near_row, near_col = np.rint(row).astype(np.intp), np.rint(col).astype(np.intp)
    rows, cols = near_row[:, None] + step, near_col[:, None] + step  # (n, k)
    dy = ((rows - row[:, None]) * px).astype(np.float32)
    dx = ((cols - col[:, None]) * px).astype(np.float32)
    inside_rows = (rows >= 0) & (rows < heights.shape[0])
    inside_cols = (cols >= 0) & (cols < heights.shape[1])
    left = 1 - (dy * dy)[:, :, None] / (radius**2)[:, None, None]
    left = left - (dx * dx)[:, None, :] / (radius**2)[:, None, None]  # (n, k, k)
    chosen = (left > 0) & inside_rows[:, :, None] & inside_cols[:, None, :]
    place = (rows * heights.shape[1])[:, :, None] + cols[:, None, :]
    dome = (1.2 + 1.6 * left) * radius[:, None, None]
    np.maximum.at(heights.reshape(-1), place[chosen], dome[chosen])


def _paint_crowns(rgb: Floats, crowns: Floats, canvas: _Canvas, style: SceneStyle) -> None:
    """Colours pixels under crowns, brighter on the side of the sun, in place."""
    where = np.flatnonzero(crowns)
    if not where.size:
        return
    rise, run = _sun_step(style, 1.0 / canvas.px)
    slope = (crowns - np.roll(crowns, (-rise, -run), (0, 1))).ravel()[where]
    light = 1 + np.float32(0.14) * slope.clip(-3, 3)
    light *= 1 + np.float32(0.16) * canvas.noise(1.0, 40).ravel()[where]
    light *= 1 + np.float32(0.16) * canvas.noise(6.0, 41).ravel()[where]
    hue = canvas.noise(9.0, 42).ravel()[where] + canvas.noise(70.0, 43).ravel()[where]
    leaf = np.array([74, 92, 52], dtype=np.float32) * style.autumn
    turn = np.array([0.14, 0.02, 0.04], dtype=np.float32)
    for band in range(3):
        rgb[band].reshape(-1)[where] = leaf[band] * light * (1 + turn[band] * hue)


def _sun_step(style: SceneStyle, pixels: float) -> tuple[int, int]:
    """(rows, cols) of `pixels` towards the sun, at least one pixel."""
    azimuth = math.radians(style.sun_azimuth)
    length = max(pixels, 1.0)
    return round(-math.cos(azimuth) * length), round(math.sin(azimuth) * length)


def _cast_shadows(rgb: Floats, height: Floats, canvas: _Canvas, style: SceneStyle) -> None:
    """Darkens in place what higher things towards the sun hide.

    The lowest height that the sun still reaches is the largest of height(p + t) - t tan(elevation)
    over all steps t towards the sun; doubling the reach finds it in a few passes.
    """
    fall = canvas.px * math.tan(math.radians(style.sun_elevation))
    lit = height.copy()
    for power in range(_doublings(canvas.px)):
        rise, run = _sun_step(style, 1 << power)
        before = lit.copy()
        rows, from_rows = _overlap(rise, height.shape[0])
        cols, from_cols = _overlap(run, height.shape[1])
        np.maximum(
            lit[rows, cols],
            before[from_rows, from_cols] - np.float32(fall * (1 << power)),
            out=lit[rows, cols],
        )
    shadow = ((lit - height) * np.float32(1 / 0.8)).clip(0, 1)
    for band, dark in enumerate((0.60, 0.56, 0.48)):  # skylight is blue
        rgb[band] *= 1 - np.float32(dark) * shadow


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Slices of an axis such that the second, `shift` further on, falls inside."""
    if shift >= 0:
        return slice(0, max(size - shift, 0)), slice(min(shift, size), size)
    return slice(min(-shift, size), size), slice(0, max(size + shift, 0))


# --- Patterns: what lies inside one object -------------------------------------------------------


def _patterns(
    rgb: Floats,
    top: NDArray[np.int32],
    cover: NDArray[np.uint8],
    canvas: _Canvas,
    shapes: _Shapes,
    style: SceneStyle,
) -> Floats:
    """(rows, cols) gain from rows of crops, roof faces, ...; paints parked cars into `rgb`."""
    gain = np.ones(cover.shape, dtype=np.float32)
    flat = gain.reshape(-1)
    for covers, pattern in _PATTERNS:
        chosen = np.flatnonzero(_MEMBER[covers].take(cover))
        if chosen.size:
            place = _Local.of(chosen, top, canvas, shapes)
            flat[chosen] = pattern(place, style)
    parked = np.flatnonzero(cover == Cover.PARKING)
    if parked.size and canvas.px < 2:
        _park_cars(rgb, flat, parked, _Local.of(parked, top, canvas, shapes))
    roofs = np.isin(cover, (Cover.ROOF, Cover.GLASS))
    edge = np.zeros(cover.shape, dtype=bool)
    edge[1:] |= top[1:] != top[:-1]
    edge[:, 1:] |= top[:, 1:] != top[:, :-1]
    gain[edge & roofs] *= np.float32(0.82)
    return gain


class _Local(NamedTuple):
    """Pixels in the frame of the object they belong to.

    `along` and `across` are metres from its centre, along its long and its short side; the others
    are attributes of the object, one per pixel.
    """

    along: Floats
    across: Floats
    shape: NDArray[np.intp]
    hash: Hashes
    area: Doubles
    half: Floats
    axis: Floats
    cover: NDArray[np.uint8]
    px: float

    @classmethod
    def of(
        cls,
        chosen: NDArray[np.intp],
        top: NDArray[np.int32],
        canvas: _Canvas,
        shapes: _Shapes,
    ) -> Self:
        row, col = np.divmod(chosen, top.shape[1])
        shape = top.reshape(-1)[chosen].astype(np.intp) - 1
        centre, axis = shapes.centre[shape], shapes.axis[shape].astype(np.float32)
        dx = (canvas.x[col] - centre[:, 0]).astype(np.float32)
        dy = (canvas.y[row] - centre[:, 1]).astype(np.float32)
        along = dx * axis[:, 0] + dy * axis[:, 1]
        across = dy * axis[:, 0] - dx * axis[:, 1]
        return cls(
            along,
            across,
            shape,
            shapes.hash[shape],
            shapes.area[shape],
            shapes.half[shape].astype(np.float32),
            axis,
            shapes.cover[shape],
            canvas.px,
        )


def _stripes(position: Floats, period: NDArray[Any] | float, px: float) -> Floats:
    """Triangle wave in -1..1 with `period` in metres, fading where pixels are too coarse."""
    turn = position / period
    wave = np.abs(turn - np.floor(turn) - np.float32(0.5)) * 4 - 1
    fade = np.clip((np.asarray(period) / px - 2) / 2, 0, 1)
    return (wave * fade).astype(np.float32)


def _crop_rows(place: _Local, style: SceneStyle) -> Floats:
    chance = _unit(_keyed(place.hash, 50))
    fine = _stripes(place.across, 1.5 + 2.0 * chance, place.px)
    tramlines = _stripes(place.across, 18.0 + 8.0 * chance, place.px)
    return 1 + np.float32(0.06) * fine - np.float32(0.10) * (tramlines > 0.86)


def _vine_rows(place: _Local, style: SceneStyle) -> Floats:
    return 1 - np.float32(0.28) * _stripes(place.across, 2.2, place.px)


def _mown_rows(place: _Local, style: SceneStyle) -> Floats:
    strength = np.where(place.cover == Cover.TURF, np.float32(0.06), np.float32(0.02))
    return 1 + strength * np.sign(_stripes(place.along, 10.0, place.px))


def _plots(place: _Local, style: SceneStyle) -> Floats:
    u, v = np.floor(place.along / 11).astype(np.int64), np.floor(place.across / 17).astype(np.int64)
    plot = _unit(_mix(_keyed(u, 51) + _keyed(v, 52) + place.hash))
    edge = (place.along / 11 - u < 0.09) | (place.across / 17 - v < 0.06)
    return 0.8 + np.float32(0.4) * plot - np.float32(0.12) * edge


def _roof_faces(place: _Local, style: SceneStyle) -> Floats:
    """Pitched roofs are lit by side; flat ones carry small things."""
    azimuth = math.radians(style.sun_azimuth)
    east, north = math.sin(azimuth), math.cos(azimuth)
    chance = _unit(_keyed(place.hash, 53))
    pitched = chance < np.clip(1.25 - place.area / 900, 0.12, 0.9)
    hipped = _unit(_keyed(place.hash, 54)) < 0.35
    beyond = np.abs(place.along) - (place.half[:, 0] - place.half[:, 1])
    end = hipped & (beyond > np.abs(place.across))
    facing_side = np.sign(place.across) * (north * place.axis[:, 0] - east * place.axis[:, 1])
    facing_end = np.sign(place.along) * (east * place.axis[:, 0] + north * place.axis[:, 1])
    facing = np.where(end, facing_end, facing_side)
    steep = 0.10 + 0.16 * _unit(_keyed(place.hash, 55))
    faces = 1 + np.where(pitched, steep * facing, 0)
    u, v = (
        np.floor(place.along / 2.4).astype(np.int64),
        np.floor(place.across / 2.4).astype(np.int64),
    )
    thing = _unit(_mix(_keyed(u, 56) + _keyed(v, 57) + place.hash))
    things = np.where(thing < 0.05, -0.28, np.where(thing > 0.96, 0.25, 0.0))
    seams = 0.05 * _stripes(place.along, 4.0, place.px)
    return (faces + np.where(pitched, seams * 0.5, things)).astype(np.float32)


def _park_cars(rgb: Floats, gain: Floats, parked: NDArray[np.intp], place: _Local) -> None:
    """Paints cars in double rows with lanes between, in place."""
    bay, row = (place.along + 1.25) / 2.5, (place.across + 2.6) / 15.6
    u, v = np.floor(bay), np.floor(row)
    in_bay, in_row = (bay - u) * 2.5, (row - v) * 15.6  # metres
    second = in_row > 10.4
    in_row = np.where(second, in_row - 10.4, in_row)
    cell = _mix(
        _keyed(u.astype(np.int64), 58) + _keyed(2 * v.astype(np.int64) + second, 59) + place.hash
    )
    fill = 0.25 + 0.6 * _unit(_keyed(place.hash, 60))
    car = (_unit(cell) < fill) & (np.abs(in_bay - 1.25) < 0.95) & (np.abs(in_row - 2.6) < 2.2)
    paint = _CARS[_keyed(cell, 61) % len(_CARS)]
    where = parked[car]
    rgb.reshape(3, -1)[:, where] = paint[car].T
    line = (np.abs(in_bay - 1.25) > 1.18) & (in_row < 5.2)
    gain[parked[line & ~car]] *= np.float32(1.18)


_PATTERNS = (
    ("rows", _crop_rows),
    ("vines", _vine_rows),
    ("mown", _mown_rows),
    ("plots", _plots),
    ("roofs", _roof_faces),
)


def _member(*covers: Cover) -> NDArray[np.bool_]:
    return np.isin(np.arange(len(Cover)), covers)


_MEMBER = {
    "rows": _member(Cover.FARMLAND, Cover.MEADOW),
    "vines": _member(Cover.VINEYARD, Cover.ORCHARD),
    "mown": _member(Cover.TURF),
    "plots": _member(Cover.ALLOTMENTS),
    "roofs": _member(Cover.ROOF, Cover.GLASS),
}


# --- Camera --------------------------------------------------------------------------------------


def _downsample(rgb: Floats, canvas: _Canvas) -> Floats:
    """Mean of the fine pixels of each pixel, with one pixel of margin left on every side."""
    skip, split = canvas.margin - canvas.split, canvas.split
    inner = rgb[:, skip:-skip, skip:-skip]
    total = np.zeros((3, inner.shape[1] // split, inner.shape[2] // split), dtype=np.float32)
    for row in range(split):
        for col in range(split):
            total += inner[:, row::split, col::split]
    total *= np.float32(1 / split**2)
    return total


def _blur(rgb: Floats, axis: int, weight: float) -> Floats:
    """Mixes each pixel with both neighbours along `axis`, which shortens it by two."""
    rgb = np.moveaxis(rgb, axis, 0)
    mixed = np.float32(weight) * (rgb[:-2] + rgb[2:]) + np.float32(1 - 2 * weight) * rgb[1:-1]
    return np.moveaxis(mixed, 0, axis)


def _sensor_noise(rows: NDArray[np.int64], cols: NDArray[np.int64], key: int) -> Floats:
    """(rows, cols) noise of unit variance, nearly normal: the sum of the four bytes of a hash."""
    hashes = _lattice_hash(rows, cols, key)
    total = np.zeros(hashes.shape, dtype=np.float32)
    for shift in (0, 8, 16, 24):
        total += (hashes >> np.uint32(shift) & np.uint32(255)).astype(np.float32)
    return (total - 510) / np.float32(147.8)
