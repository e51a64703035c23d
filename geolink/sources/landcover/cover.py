"""Land cover: which material an OSM object shows from above, and how materials look.

Keys of legal use (`landuse=residential`, `amenity=school`, ...) and values of `building` have no
entry, so that labels made from them cannot leak through the picture.
"""

import math
from collections.abc import Mapping
from enum import IntEnum, auto
from typing import NamedTuple

Tags = Mapping[str, str]


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


class Look(NamedTuple):
    """Appearance of one material.

    `spread` is the variation of lightness from object to object; `grain`, `mottle` and `patch` are
    amplitudes of noise of about 1, 5 and 30 m; `season` is how far it follows the colour of grass;
    `trees` is the share of 5 m cells with a tree, of crowns `crown` times the usual radius.
    """

    rgb: tuple[int, int, int]
    spread: float = 0.08
    grain: float = 0.05
    mottle: float = 0.05
    patch: float = 0.04
    season: float = 0.0
    trees: float = 0.0
    crown: float = 1.0


LOOKS: dict[Cover, Look] = {
    Cover.GROUND: Look((122, 122, 112)),
    Cover.GRASS: Look((106, 121, 76), 0.08, 0.07, 0.07, 0.08, 1.0, 0.03),
    Cover.PARK: Look((99, 116, 72), 0.07, 0.07, 0.08, 0.10, 1.0, 0.22),
    Cover.GARDEN: Look((98, 113, 71), 0.09, 0.09, 0.12, 0.10, 1.0, 0.20, 0.7),
    Cover.CEMETERY: Look((108, 120, 82), 0.07, 0.16, 0.08, 0.06, 0.8, 0.28, 0.8),
    Cover.MEADOW: Look((121, 131, 86), 0.10, 0.06, 0.06, 0.08, 1.0, 0.01),
    Cover.FARMLAND: Look((150, 140, 95), 0.10, 0.05, 0.04, 0.05, 0.3),
    Cover.ORCHARD: Look((112, 126, 74), 0.08, 0.07, 0.07, 0.07, 1.0, 0.45, 0.7),
    Cover.VINEYARD: Look((128, 128, 84), 0.08, 0.06, 0.06, 0.06, 0.7),
    Cover.ALLOTMENTS: Look((112, 118, 80), 0.08, 0.14, 0.10, 0.05, 0.6, 0.12, 0.6),
    Cover.FOREST: Look((62, 76, 46), 0.07, 0.10, 0.10, 0.08, 0.8, 0.97, 1.1),
    Cover.SCRUB: Look((96, 108, 66), 0.09, 0.12, 0.12, 0.10, 0.8, 0.65, 0.5),
    Cover.HEATH: Look((120, 108, 82), 0.08, 0.10, 0.10, 0.10, 0.4, 0.06, 0.5),
    Cover.WETLAND: Look((98, 104, 72), 0.07, 0.08, 0.12, 0.15, 0.6, 0.04, 0.6),
    Cover.SOIL: Look((156, 133, 105), 0.10, 0.07, 0.09, 0.12),
    Cover.SAND: Look((208, 192, 156), 0.06, 0.04, 0.04, 0.05),
    Cover.ROCK: Look((152, 147, 139), 0.08, 0.12, 0.12, 0.08),
    Cover.ICE: Look((232, 236, 240), 0.03, 0.02, 0.03, 0.04),
    Cover.WATER: Look((50, 68, 76), 0.02, 0.03, 0.02, 0.05),
    Cover.POOL: Look((92, 176, 198), 0.08, 0.03, 0.02, 0.0),
    Cover.ASPHALT: Look((126, 126, 126), 0.10, 0.04, 0.05, 0.05),
    Cover.ROAD: Look((112, 113, 116), 0.09, 0.03, 0.04, 0.05),
    Cover.CONCRETE: Look((172, 169, 162), 0.07, 0.04, 0.05, 0.04),
    Cover.PAVING: Look((160, 152, 143), 0.09, 0.06, 0.05, 0.05),
    Cover.GRAVEL: Look((168, 158, 140), 0.08, 0.06, 0.06, 0.05),
    Cover.TRACK: Look((158, 142, 115), 0.09, 0.08, 0.10, 0.06),
    Cover.PARKING: Look((122, 122, 123), 0.11, 0.04, 0.05, 0.04),
    Cover.BALLAST: Look((130, 118, 108), 0.06, 0.08, 0.05, 0.04),
    Cover.STEEL: Look((98, 84, 76), 0.05, 0.08, 0.04, 0.02),
    Cover.WOOD: Look((146, 132, 112), 0.09, 0.07, 0.05, 0.02),
    Cover.TURF: Look((82, 130, 76), 0.10, 0.04, 0.03, 0.03),
    Cover.CLAY: Look((172, 116, 90), 0.06, 0.04, 0.04, 0.03),
    Cover.TARTAN: Look((156, 97, 82), 0.08, 0.03, 0.03, 0.03),
    Cover.HARDCOURT: Look((88, 122, 138), 0.15, 0.03, 0.03, 0.03),
    Cover.MARKING: Look((214, 214, 208), 0.03, 0.06, 0.04, 0.0),
    Cover.CAR: Look((150, 150, 152), 0.0, 0.04, 0.0, 0.0),
    Cover.ROOF: Look((140, 130, 120), 0.09, 0.04, 0.05, 0.0),
    Cover.GLASS: Look((184, 200, 202), 0.05, 0.06, 0.03, 0.0),
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
        "tertiary_link": (5.0, Cover.ROAD), "residential": (5.5, Cover.ASPHALT),
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
        "rail": (5.2, Cover.BALLAST), "light_rail": (5.0, Cover.BALLAST),
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

# Roads with pavements on both sides, and roads with painted lanes.
KERBED = {"primary", "secondary", "tertiary"}
PAINTED = {"motorway", "trunk", "primary", "secondary"}


def is_hidden(tags: Tags) -> bool:
    """True for what lies underground or indoors."""
    return (
        tags.get("tunnel", "no") not in ("no", "building_passage")
        or tags.get("location") in ("underground", "indoor")
        or tags.get("indoor", "no") != "no"
    )


def number(text: str | None) -> float | None:
    """The leading number of a tag value such as `12`, `12.5 m`; None where there is none."""
    try:
        value = float((text or "").split()[0].rstrip("m").replace(",", "."))
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) else None


def _pitch(tags: Tags) -> Cover:
    sport = tags.get("sport", "").split(";")[0]
    by_sport = _SPORT_SURFACES.get(sport, Cover.TURF)
    return _SURFACES.get(tags.get("surface", ""), by_sport)


def area_cover(tags: Tags) -> Cover | None:
    """The material of a polygon with these tags; None where the tags say nothing visible."""
    if is_hidden(tags):
        return None
    if tags.get("building", "no") != "no":
        return Cover.GLASS if tags["building"] in ("greenhouse", "glasshouse") else Cover.ROOF
    if tags.get("parking") in ("underground", "multi-storey"):
        return None
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
    if is_hidden(tags):
        return None
    for key, ways in _WAYS.items():
        found = ways.get(tags.get(key, ""))
        if found is not None:
            width, cover = found
            lanes = number(tags.get("lanes"))
            tagged = number(tags.get("width")) or (lanes * 3.2 + 1 if lanes else None)
            if key == "highway":
                cover = _SURFACES.get(tags.get("surface", ""), cover)
                cover = Cover.ROAD if cover == Cover.ASPHALT and width >= 7 else cover
            return cover, min(max(tagged or width, 1.0), 60.0)
    return None
