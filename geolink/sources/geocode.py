"""Names of places looked up with Nominatim, under its usage policy.

One request per second at most, whatever the number of processes; an identifying User-Agent; every
answer is kept in the cache, so that no name is asked for twice.
https://operations.osmfoundation.org/policies/nominatim/
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import shapely
from filelock import FileLock
from shapely.errors import GEOSException

from geolink.errors import ConfigError, UnavailableError
from geolink.files import replace_bytes
from geolink.sources.base import Area, SourceInfo
from geolink.sources.cache import Cache, Entry
from geolink.sources.network import Network
from geolink.sources.osm import ATTRIBUTION, LICENCE
from geolink.sources.places import slug

logger = logging.getLogger(__name__)

NOMINATIM = "https://nominatim.openstreetmap.org"

_PAUSE_S = 1.0
_LISTED = 5
# Places whose importance (0-1, by Nominatim) lies this much below the first are not meant.
_CLEAR_LEAD = 0.15
# Outlines are asked for with this tolerance: some 5 m, against megabytes of coastline.
_TOLERANCE_DEG = 0.00005


@dataclass(frozen=True)
class Candidate:
    """A place that a name may mean.

    Attributes:
        title: its full name, from the place to the country.
        area: its outline, or its bounding box where there is none; EPSG:4326.
        importance: as Nominatim ranks it, 0-1.
    """

    title: str
    area: Area
    importance: float


def geocode(name: str, *, cache: Cache, network: Network) -> Entry | None:
    """The place that a name means, as an entry of the cache: a GeoJSON file of its area.

    Args:
        name: in any language, the more parts the clearer: `Springfield, Illinois`.
        cache: where it is kept.
        network: the way to the geocoder, at GEOLINK_NOMINATIM_URL or the public one.

    Returns:
        The entry, named as `slug(name)`; None where nothing has this name.

    Raises:
        ConfigError: several places have this name; they are listed.
        UnavailableError: the geocoder cannot be reached.
    """
    base = os.environ.get("GEOLINK_NOMINATIM_URL", NOMINATIM).rstrip("/")
    key = slug(name)
    with cache.staging("place", key) as staging:
        candidates = _search(name, base, cache, network)
        if not candidates:
            return None
        chosen = _the_one_meant(name, candidates)
        logger.info("%r is %s", name, chosen.title)
        replace_bytes(staging / "area.geojson", shapely.to_geojson(chosen.area).encode())
        return cache.publish(
            "place",
            key,
            staging,
            source=f"{base}/search",
            info=SourceInfo(chosen.title, licence=LICENCE, attribution=ATTRIBUTION),
            details={"query": name},
        )


def _search(name: str, base: str, cache: Cache, network: Network) -> list[Candidate]:
    """What Nominatim finds, each place once, the most important first."""
    params = {
        "q": name,
        "format": "jsonv2",
        "limit": 2 * _LISTED,
        "polygon_geojson": 1,
        "polygon_threshold": _TOLERANCE_DEG,
        "accept-language": "en",
    }
    what = f"the place {name!r}"
    with _turn(cache):
        answer = network.get_json(f"{base}/search", params=params, what=what)
    if not isinstance(answer, list):
        raise UnavailableError(
            f"{what} cannot be looked up: {base} answers in another form than Nominatim; "
            "check GEOLINK_NOMINATIM_URL"
        )
    # Regions, towns and quarters; only without any of these, a lake or a park of that name.
    settled = [item for item in answer if _of_category(item, "boundary", "place")]
    found = [candidate for item in settled or answer if (candidate := _candidate(item))]
    found.sort(key=lambda candidate: -candidate.importance)
    return _distinct(found)


@contextmanager
def _turn(cache: Cache) -> Iterator[None]:
    """Waits until a second after the last request of any process that uses this cache."""
    stamp = cache.root / ".geocoder"
    cache.root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{stamp}.lock"):
        if stamp.exists():
            since = time.time() - stamp.stat().st_mtime
            time.sleep(min(max(_PAUSE_S - since, 0.0), _PAUSE_S))
        try:
            yield
        finally:
            stamp.touch()


def _of_category(item: object, *categories: str) -> bool:
    return isinstance(item, Mapping) and item.get("category") in categories


def _candidate(item: object) -> Candidate | None:
    """One result, None where it has no area or is not of the form that is expected."""
    if not isinstance(item, Mapping):
        return None
    try:
        area = _outline(item) or _box(item)
        importance = float(item.get("importance") or 0.0)
        title = str(item["display_name"])
    except (KeyError, TypeError, ValueError, GEOSException):
        return None
    return Candidate(title, area, importance) if area and area.area > 0 else None


def _outline(item: Mapping[str, Any]) -> Area | None:
    geometry = shapely.from_geojson(json.dumps(item.get("geojson")), on_invalid="ignore")
    if geometry is None or shapely.get_dimensions(geometry) != 2:
        return None
    return cast(Area, shapely.make_valid(geometry, method="structure", keep_collapsed=False))


def _box(item: Mapping[str, Any]) -> Area:
    south, north, west, east = (float(edge) for edge in item["boundingbox"])
    return shapely.box(west, south, east, north)


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates that lie apart: a city, its boundary and its county are one place."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if not any(candidate.area.intersects(other.area) for other in kept):
            kept.append(candidate)
    return kept


def _the_one_meant(name: str, candidates: list[Candidate]) -> Candidate:
    """The first, unless others are nearly as important."""
    first = candidates[0]
    rivals = [c for c in candidates if first.importance - c.importance < _CLEAR_LEAD]
    if len(rivals) > 1:
        titles = [f"{candidate.title!r}" for candidate in rivals[:_LISTED]]
        raise ConfigError(
            f"several places are called {name!r}; write a longer name, such as "
            f"{', '.join(titles[:-1])} or {titles[-1]}"
        )
    return first
