"""Weak labels: the urban functional zones that OSM's own areas and streets tell.

One table maps tags to the nine classes of `legend.UFZ`. It holds only values that name a whole
site; what stands for a part of a building (a bank, a café, an office) says nothing about the zone.
Buildings are therefore no labels by their `building` tag, and are labels where they carry such a
value themselves (a church, a school, a hotel, a station).
"""

import math
import re
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.legend import IGNORE, UFZ
from geolink.sources.drawing import DrawnShapes
from geolink.sources.entities import EntityType, OsmEntities


class Layer(IntEnum):
    """Drawing order, lowest first."""

    COVER = 0  # what grows or lies there; it yields to every zone
    ZONE = 1
    WATER = 2
    LINE = 3  # streets and rails


class ZoneRule(NamedTuple):
    """`key` with one of the values (separated by spaces, `*` for any) is the class `zone`."""

    zone: str
    key: str
    values: str
    layer: Layer = Layer.ZONE


# The first rule that matches decides, so the more specific keys stand first.
ZONE_RULES: tuple[ZoneRule, ...] = (
    # What is inside a zone and stays visible from above.
    ZoneRule("water", "natural", "water", Layer.WATER),
    ZoneRule("water", "water", "*", Layer.WATER),
    ZoneRule("water", "waterway", "riverbank dock boatyard", Layer.WATER),
    ZoneRule("water", "landuse", "reservoir basin salt_pond", Layer.WATER),
    # Sites by what they are used for.
    ZoneRule("transport", "aeroway", "aerodrome terminal apron runway taxiway helipad hangar"),
    ZoneRule("transport", "amenity", "parking bus_station ferry_terminal fuel"),
    ZoneRule("transport", "railway", "station platform yard"),
    ZoneRule("transport", "public_transport", "station platform"),
    ZoneRule("transport", "highway", "services rest_area pedestrian residential service"),
    ZoneRule("transport", "area:highway", "*"),
    ZoneRule(
        "institution",
        "amenity",
        "school kindergarten university college music_school language_school research_institute"
        " hospital clinic nursing_home social_facility place_of_worship monastery townhall"
        " courthouse police fire_station prison public_building library theatre arts_centre"
        " community_centre conference_centre exhibition_centre crematorium grave_yard embassy"
        " customs",
    ),
    ZoneRule("institution", "healthcare", "hospital clinic"),
    ZoneRule("institution", "tourism", "museum gallery"),
    ZoneRule("institution", "office", "government diplomatic"),
    ZoneRule("institution", "military", "barracks base office"),
    ZoneRule("institution", "leisure", "stadium sports_centre sports_hall ice_rink"),
    ZoneRule("institution", "landuse", "education religious institutional military"),
    ZoneRule("commercial", "amenity", "marketplace casino events_venue"),
    ZoneRule("commercial", "shop", "mall supermarket department_store wholesale car garden_centre"),
    ZoneRule("commercial", "tourism", "hotel motel hostel theme_park aquarium"),
    ZoneRule("commercial", "leisure", "water_park resort"),
    ZoneRule("commercial", "landuse", "commercial retail"),
    ZoneRule("industrial", "man_made", "works wastewater_plant water_works gasometer storage_tank"),
    ZoneRule("industrial", "power", "plant substation generator"),
    ZoneRule("industrial", "landuse", "industrial quarry landfill depot"),
    ZoneRule("industrial", "amenity", "waste_transfer_station recycling_centre"),
    ZoneRule("green", "leisure", "park golf_course dog_park miniature_golf horse_riding"),
    ZoneRule("green", "tourism", "zoo camp_site picnic_site"),
    ZoneRule("green", "landuse", "forest cemetery recreation_ground village_green allotments"),
    ZoneRule("farmland", "landuse", "farmland farmyard orchard vineyard meadow plant_nursery"),
    ZoneRule("farmland", "landuse", "greenhouse_horticulture animal_keeping aquaculture paddy"),
    ZoneRule("undeveloped", "landuse", "brownfield greenfield construction vacant"),
    ZoneRule("residential", "landuse", "residential garages"),
    ZoneRule("transport", "landuse", "railway port harbour highway road traffic_island"),
    # Land cover, for the ground that no zone claims.
    ZoneRule("green", "natural", "wood scrub heath grassland fell wetland", Layer.COVER),
    ZoneRule("green", "landuse", "grass flowerbed greenery", Layer.COVER),
    ZoneRule("green", "leisure", "pitch playground garden track common", Layer.COVER),
    ZoneRule("undeveloped", "natural", "bare_rock beach sand scree shingle mud", Layer.COVER),
    ZoneRule("undeveloped", "natural", "glacier rock", Layer.COVER),
    ZoneRule("water", "natural", "bay strait", Layer.COVER),
)

# Width of a carriageway in metres where neither `width` nor `lanes` is given. Footways, cycleways,
# tracks and driveways are part of the zone that they lead through.
STREET_WIDTHS: dict[str, float] = {
    "motorway": 12.0,
    "trunk": 11.0,
    "primary": 10.0,
    "secondary": 8.5,
    "tertiary": 7.5,
    "unclassified": 6.0,
    "residential": 6.0,
    "living_street": 5.5,
    "pedestrian": 6.0,
    "busway": 6.5,
    "motorway_link": 6.0,
    "trunk_link": 6.0,
    "primary_link": 6.0,
    "secondary_link": 6.0,
    "tertiary_link": 6.0,
}
RAIL_WIDTHS: dict[str, float] = {
    "rail": 4.5,
    "light_rail": 4.0,
    "subway": 4.0,
    "narrow_gauge": 3.5,
    "monorail": 3.0,
    "tram": 3.0,
}
LANE_WIDTH = 3.25
WIDTH_RANGE = (2.0, 40.0)


def zone_class(frame: gpd.GeoDataFrame) -> NDArray[np.uint8]:
    """(n,) class id of each row of a frame of areas by `ZONE_RULES`, IGNORE for none."""
    return np.array([_zone(tags)[0] for tags in frame["tags"]], dtype=np.uint8)


def line_width(tags: Mapping[str, str]) -> float:
    """Metres of ground that a street or railway takes, 0 for lines that are neither or in tunnels.

    A street is as wide as its `width` says, else its `lanes`, else its kind.
    """
    if _is_underground(tags):
        return 0.0
    if (street := STREET_WIDTHS.get(tags.get("highway", ""))) is None:
        return RAIL_WIDTHS.get(tags.get("railway", ""), 0.0)
    width, lanes = _number(tags.get("width")), _number(tags.get("lanes"))
    if width is None and lanes is not None:
        width = lanes * LANE_WIDTH
    return street if width is None else float(np.clip(width, *WIDTH_RANGE))


def label_mask(entities: OsmEntities) -> dict[EntityType, NDArray[np.bool_]]:
    """Per entity type, (n,) True for the objects that give labels; points give none."""
    lines = np.array([line_width(tags) > 0 for tags in entities.line["tags"]], dtype=bool)
    return {
        "point": np.zeros(len(entities.point), dtype=bool),
        "line": lines,
        "polygon": zone_class(entities.polygon) != IGNORE,
    }


class WeakLabels(DrawnShapes):
    """Labels of a scene, prepared once and drawn for any grid in it.

    Where objects overlap, the later one in this order wins: land cover, zones, water with the sea,
    streets and rails; in each of these, the smaller over the larger, then the later row.

    Args:
        entities: OSM entities of the scene, in its metric CRS.
        sea: the open sea in the same CRS (`osm.sea_polygons`); water where given.
    """

    def __init__(self, entities: OsmEntities, *, sea: shapely.MultiPolygon | None = None) -> None:
        shapes = [_zones(entities.polygon), _lines(entities.line)]
        if sea is not None:
            parts = shapely.get_parts(sea)
            shapes.append(_shapes(parts, UFZ.id_of("water"), Layer.WATER))
        geometry, zones, layers = (np.concatenate(column) for column in zip(*shapes, strict=True))
        order = np.lexsort((-shapely.area(geometry), layers))  # stable: ties keep their order
        super().__init__(geometry[order], zones[order], entities.crs)


# --- the table -----------------------------------------------------------------------------------

_Lookup = dict[str, dict[str, tuple[int, int, Layer]]]


def _lookup() -> _Lookup:
    """`ZONE_RULES` as key -> value -> (rank, class id, layer)."""
    table: _Lookup = {}
    for rank, rule in enumerate(ZONE_RULES):
        for value in rule.values.split():
            entry = (rank, UFZ.id_of(rule.zone), rule.layer)
            table.setdefault(rule.key, {}).setdefault(value, entry)
    return table


_TABLE = _lookup()
_NO_ZONE = (len(ZONE_RULES), IGNORE, Layer.COVER)


def _zone(tags: Mapping[str, str]) -> tuple[int, Layer]:
    """Class id and layer of an area, (IGNORE, ...) where no rule matches or it is underground."""
    if _is_underground(tags):
        return IGNORE, Layer.COVER
    _, zone, layer = min(
        (_match(key, tags[key]) for key in tags if key in _TABLE), default=_NO_ZONE
    )
    return zone, layer


def _match(key: str, value: str) -> tuple[int, int, Layer]:
    values = _TABLE[key]
    return values.get(value) or (_NO_ZONE if value == "no" else values.get("*", _NO_ZONE))


def _is_underground(tags: Mapping[str, str]) -> bool:
    return (
        tags.get("tunnel", "no") != "no"
        or "underground" in (tags.get("location"), tags.get("parking"))
        or tags.get("covered") == "yes"
        or tags.get("layer", "").startswith("-")
    )


def _number(text: str | None) -> float | None:
    """The leading number of a tag value in metres, None where there is none or it is in feet."""
    match = re.match(r"\s*(\d+(?:[.,]\d+)?)\s*(?:m|metres|meters)?\s*(?:;|$)", text or "")
    value = float(match[1].replace(",", ".")) if match else math.nan
    return value if value > 0 else None


# --- the shapes ----------------------------------------------------------------------------------

_Shapes = tuple[NDArray[np.object_], NDArray[np.uint8], NDArray[np.int64]]


def _shapes(geometry: NDArray[np.object_], zone: int, layer: Layer) -> _Shapes:
    n = len(geometry)
    return geometry, np.full(n, zone, dtype=np.uint8), np.full(n, layer, dtype=np.int64)


def _zones(frame: gpd.GeoDataFrame) -> _Shapes:
    found = [_zone(tags) for tags in frame["tags"]]
    zones = np.array([zone for zone, _ in found], dtype=np.uint8)
    layers = np.array([layer for _, layer in found], dtype=np.int64)
    mapped = zones != IGNORE
    return frame.geometry.to_numpy()[mapped], zones[mapped], layers[mapped]


def _lines(frame: gpd.GeoDataFrame) -> _Shapes:
    """Streets and rails as wide as they are on the ground."""
    width = np.array([line_width(tags) for tags in frame["tags"]], dtype=float)
    lines = frame.geometry.to_numpy()[width > 0]
    strips = shapely.buffer(lines, width[width > 0] / 2, quad_segs=2)
    return _shapes(strips, UFZ.id_of("transport"), Layer.LINE)
