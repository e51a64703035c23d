"""OSM data of a small area from an Overpass server, only where a user asks for it.

The servers are shared and slow for large areas: cities come from extracts (`osm_fetch`).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from geolink.errors import ConfigError, UnavailableError
from geolink.grid import WGS84, reproject_bounds
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache, Entry
from geolink.sources.entries import covers
from geolink.sources.network import Network
from geolink.sources.osm import ATTRIBUTION, LICENCE, READ_MARGIN
from geolink.sources.osm_fetch import osm_details
from geolink.sources.pbf import iso_date, write_pbf
from geolink.sources.places import Place

OVERPASS = "https://overpass-api.de/api/interpreter"
LARGEST_KM2 = 25.0

_TIMEOUT_S = 120
_MAX_BYTES = 256 * 2**20
# Everything in the box, and the areas that reach into it with all their lines, except countries,
# states and counties: their borders run for thousands of kilometres.
_QUERY = """[out:json][timeout:{timeout}][maxsize:{maxsize}];
(node({box}); way({box});)->.near;
(
  relation["type"="multipolygon"]({box});
  relation["type"="boundary"]["admin_level"!~"^[2-6]$"]({box});
)->.areas;
(.near; .areas; way(r.areas);)->.objects;
(.objects; node(w.objects););
out body qt;"""


def fetch_overpass(place: Place, *, cache: Cache, network: Network) -> Entry:
    """OSM data around a small place, as an `.osm.pbf` in the cache.

    Up to 2 km around the place, `read_osm` finds in it what it finds in an extract of the same
    date, other than the boundaries of counties (admin_level 6) and larger units.

    Args:
        place: its rectangle has up to `LARGEST_KM2`.
        cache: where it goes.
        network: the way to the server, at GEOLINK_OVERPASS_URL or the public one.

    Raises:
        ConfigError: the place is too large.
        UnavailableError: the server cannot be reached, is busy, or does not finish.
        OutputError: the cache cannot be written.
    """
    size = place.bounds_metric.width * place.bounds_metric.height / 1e6
    if size > LARGEST_KM2:
        raise ConfigError(
            f"the rectangle around {place.name} has {size:.0f} km2, too much for Overpass, which "
            f"is asked for {LARGEST_KM2:.0f} km2 at most; leave --osm overpass away to use an "
            "extract"
        )
    name, what = f"{place.name}-overpass", f"the OSM data of {place.name}"
    entry = cache.find("osm", name)
    if entry is not None and covers(entry, place.aoi):
        return entry
    edges = ",".join(f"{edge:.6g}" for edge in place.aoi.bounds)
    network.require(what, f"geolink fetch --bbox {edges} --osm overpass")
    address = os.environ.get("GEOLINK_OVERPASS_URL", OVERPASS)
    # The server is silent while it works.
    patient = replace(network, timeout_s=max(network.timeout_s, _TIMEOUT_S + 10.0))
    answer = _parsed(patient.post(address, data={"data": _query(place)}, what=what), what)
    with cache.staging("osm", name) as staging:
        date = _write(staging / f"{place.name}.osm.pbf", answer, what)
        return cache.publish(
            "osm",
            name,
            staging,
            source=address,
            info=SourceInfo(f"{place.name} (Overpass)", date, LICENCE, ATTRIBUTION),
            details=osm_details("overpass", place.aoi),
        )


def _query(place: Place) -> str:
    """What is asked for: all that `read_osm` looks at around the place."""
    around = place.bounds_metric.buffered(READ_MARGIN)
    west, south, east, north = reproject_bounds(around, place.crs, WGS84)
    box = f"{south:.7f},{west:.7f},{north:.7f},{east:.7f}"
    return _QUERY.format(timeout=_TIMEOUT_S, maxsize=_MAX_BYTES, box=box)


def _parsed(payload: bytes, what: str) -> Mapping[str, Any]:
    """The answer, if it is whole."""
    try:
        answer = json.loads(payload)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, Mapping) or not isinstance(answer.get("elements"), list):
        raise UnavailableError(
            f"{what} cannot be fetched: the Overpass server answers with something that is no OSM "
            "data; check GEOLINK_OVERPASS_URL, or leave --osm overpass away to use an extract"
        )
    if remark := answer.get("remark"):
        raise UnavailableError(
            f"{what} cannot be fetched: the Overpass server did not finish ({str(remark)[:200]}); "
            "map a smaller area, or leave --osm overpass away to use an extract"
        )
    return answer


def _write(path: Path, answer: Mapping[str, Any], what: str) -> str | None:
    """Writes the elements of an answer; returns their date."""
    try:
        date = datetime.fromisoformat(answer["osm3s"]["timestamp_osm_base"])
        timestamp = int(date.timestamp())
        write_pbf(path, answer["elements"], timestamp=timestamp)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnavailableError(
            f"{what} cannot be used: the Overpass server sent elements in a form that is not known "
            f"({type(error).__name__}: {error}); try again later, or another server"
        ) from error
    return iso_date(timestamp)
