"""Which closed ways are areas: OSM draws a street loop and a park with the same kind of way.

The rules follow the OSM wiki (Key:area, Tag pages, "Overpass turbo/Polygon Features") and the
editors' practice: `area=yes|no` decides alone; otherwise one tag that names an area is enough.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple


class AreaRule(NamedTuple):
    """For one key: all values name areas, except the listed ones, or only the listed ones."""

    mode: Literal["except", "only"]
    values: frozenset[str]


def _except(values: str = "") -> AreaRule:
    return AreaRule("except", frozenset(values.split()))


def _only(values: str) -> AreaRule:
    return AreaRule("only", frozenset(values.split()))


AREA_RULES: dict[str, AreaRule] = {
    "aeroway": _except("jet_bridge parking_position runway stopway taxiway"),
    "amenity": _except("bench weighbridge"),
    "area:highway": _except(),
    "barrier": _only("city_wall ditch hedge retaining_wall spikes"),
    "boundary": _except(),
    "building": _except(),
    "building:part": _except(),
    "club": _except(),
    "craft": _except(),
    "emergency": _only("ambulance_station disaster_response landing_site mountain_rescue"),
    "golf": _except("cartpath hole path"),
    "healthcare": _except(),
    "highway": _only("elevator platform rest_area services"),
    "historic": _except("citywalls"),
    "indoor": _except("corridor wall"),
    "industrial": _except(),
    "landuse": _except(),
    "leisure": _except("slipway track"),
    "man_made": _except("breakwater cutline dyke embankment goods_conveyor groyne pier pipeline"),
    "military": _except("trench"),
    "natural": _except("arete cliff coastline gully ridge tree_row valley"),
    "office": _except(),
    "place": _except(),
    "playground": _except("balancebeam slide zipwire"),
    "power": _only("compensator converter generator plant substation switchgear transformer"),
    "public_transport": _only("platform station"),
    "railway": _only("platform roundhouse signal_box station traverser turntable workshop yard"),
    "ruins": _except(),
    "shop": _except(),
    "tourism": _except("artwork attraction"),
    "water": _except(),
    "waterway": _only("boatyard dam dock fuel riverbank"),
}


def is_area(tags: Mapping[str, str]) -> bool:
    """True where a closed way with these tags is an area, False where it is a line."""
    declared = tags.get("area")
    if declared in ("yes", "no"):
        return declared == "yes"
    return any(_names_area(key, value) for key, value in tags.items())


def _names_area(key: str, value: str) -> bool:
    rule = AREA_RULES.get(key)
    if rule is None or value == "no":
        return False
    return (value in rule.values) == (rule.mode == "only")
