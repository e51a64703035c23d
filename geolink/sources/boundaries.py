"""Administrative boundaries inside an OSM extract, by name."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import numpy as np
import shapely

from geolink.errors import ConfigError, InputError
from geolink.sources.base import Area
from geolink.sources.extracts import name_key
from geolink.sources.pbf import raw_objects, ways_held

_KEPT: Mapping[str, bool | list[str]] = {"boundary": ["administrative"], "place": True}
_NAMES = ("name", "official_name", "alt_name", "short_name", "int_name", "loc_name")
# Two outlines are of one place if they share this much of what either encloses.
_SAME_SHARE = 0.9


@dataclass(frozen=True)
class _Boundary:
    """A relation or closed way with a name and an area."""

    osm_id: str
    tags: Mapping[str, Any]
    area: Area

    @property
    def names(self) -> list[str]:
        keys = [key for key in _NAMES if key in self.tags]
        keys += [key for key in self.tags if key.startswith("name:")]
        return [name.strip() for key in keys for name in str(self.tags[key]).split(";")]

    @property
    def title(self) -> str:
        """What tells it from others, e.g. `relation/1155956 (Vaduz, admin_level 8)`."""
        kind = next((key for key in ("admin_level", "place") if key in self.tags), "boundary")
        return f"{self.osm_id} ({self.names[0]}, {kind} {self.tags[kind]})"


def boundary_of(path: str | Path, name: str) -> Area:
    """The area within the boundary that has a name in an extract.

    Administrative boundaries come first, then places that are drawn as an area. Spelling is taken
    lightly, in any language of the map; an OSM id (`relation/1155956`) is exact.

    Args:
        path: an `.osm.pbf`.
        name: of the boundary.

    Returns:
        The area in EPSG:4326, valid.

    Raises:
        InputError: the file cannot be read, no boundary has this name (near ones are suggested),
            or the extract holds a part of the boundary only.
        ConfigError: several boundaries have this name; they are listed.
    """
    path = Path(path)
    if not name_key(name):
        raise ConfigError("the name of a boundary must not be empty")
    relations = list(_boundaries(path, relations=True))
    found = _named(relations, name)
    if not found:
        ways = list(_boundaries(path, relations=False))
        found = _named(ways, name)
        if not found:
            raise InputError(_unknown(path, name, [*relations, *ways]))
    chosen = _the_one_meant(name, found)
    _require_whole(path, chosen)
    return chosen.area


def _boundaries(path: Path, *, relations: bool) -> Iterator[_Boundary]:
    """The administrative boundaries and places of an extract that have an area."""
    frame = raw_objects(path, None, relations=relations, keep=_KEPT)
    if frame is None:
        return
    geometry = frame.geometry.to_numpy()
    lines = np.isin(shapely.get_dimensions(geometry), 1)
    geometry[lines] = shapely.build_area(geometry[lines])
    geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    usable = (shapely.get_dimensions(geometry) == 2) & ~shapely.is_empty(geometry)
    rows = frame.drop(columns="geometry").to_dict("records")
    for i in np.flatnonzero(usable):
        boundary = _Boundary(f"{rows[i]['osm_type']}/{rows[i]['id']}", _tags(rows[i]), geometry[i])
        if boundary.names:
            yield boundary


def _tags(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tags from the JSON of a row and the columns of the keys that were kept."""
    packed = row.get("tags")
    tags = json.loads(packed) if isinstance(packed, str) else {}
    return tags | {key: row[key] for key in _KEPT if isinstance(row.get(key), str)}


def _named(boundaries: Iterable[_Boundary], name: str) -> list[_Boundary]:
    """The boundaries with a name or id: administrative ones, or else places, largest first."""
    key = name_key(name)
    found = [b for b in boundaries if b.osm_id == name or key in map(name_key, b.names)]
    administrative = [b for b in found if b.tags.get("boundary") == "administrative"]
    return sorted(administrative or found, key=lambda boundary: -boundary.area.area)


def _the_one_meant(name: str, found: list[_Boundary]) -> _Boundary:
    """The first, where all others are the same place drawn again."""
    first = found[0]
    others = [b for b in found[1:] if _shared(first.area, b.area) < _SAME_SHARE]
    if others:
        titles = ", ".join(boundary.title for boundary in (first, *others)[:5])
        raise ConfigError(f"several boundaries are called {name!r}; choose one by its id: {titles}")
    return first


def _shared(one: Area, other: Area) -> float:
    both = shapely.intersection(one, other).area
    return float(both / (one.area + other.area - both))


def _require_whole(path: Path, boundary: _Boundary) -> None:
    """Refuse a boundary whose lines leave the extract: its area would be cut or wrong."""
    members = cast(list[dict[str, Any]], boundary.tags.get("members", []))
    lines = {member["member_id"] for member in members if member["member_type"] == "way"}
    held = ways_held(path, lines)
    if held != lines:
        raise InputError(
            f"{path.name} holds only {len(held)} of the {len(lines)} lines of {boundary.title}; "
            "use a larger extract, or --aoi FILE"
        )


def _unknown(path: Path, name: str, boundaries: list[_Boundary]) -> str:
    spelled = {name_key(spelling): spelling for b in boundaries for spelling in b.names}
    near = [spelled[key] for key in get_close_matches(name_key(name), spelled, n=3)]
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif boundaries:
        hint = f"there are {', '.join(sorted({b.names[0] for b in boundaries})[:5])} and others"
    else:
        hint = "it has no boundaries; draw the area and give it with --aoi FILE"
    return f"no boundary in {path.name} is called {name!r}; {hint}"
