"""Where a request is, and what of its sources is on this machine."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from geolink.errors import ConfigError, UnavailableError
from geolink.grid import Bounds
from geolink.sources.cache import Cache, Entry
from geolink.sources.entries import covers
from geolink.sources.fetched_imagery import area_key, source_record
from geolink.sources.gazetteer import find_place
from geolink.sources.imagery import RasterImagery, open_imagery
from geolink.sources.models import is_remote
from geolink.sources.network import Network, without_secrets
from geolink.sources.places import (
    SAMPLE_CITY,
    Place,
    place_from_bbox,
    place_from_file,
    place_from_raster,
    sample_extract,
)
from geolink.sources.specs import (
    SENTINEL2,
    SIMULATED,
    LocalImagery,
    RemoteImagery,
    Simulated,
    parse_imagery,
)
from geolink.workflows.request import SourceRequest

NO_OSM, OVERPASS = "none", "overpass"
FROM = " from "  # entries of fetched imagery are called "singapore from sentinel2"


@dataclass(frozen=True)
class Supply:
    """Where data comes from: the cache, and the network for what it lacks."""

    cache: Cache
    network: Network


@dataclass(frozen=True)
class Site:
    """Where a request is.

    Attributes:
        place: name and area.
        raster: the local imagery that the request names, opened; None where it names none.
    """

    place: Place
    raster: RasterImagery | None


def locate(request: SourceRequest, supply: Supply) -> Site:
    """The place of a request: the one it names, else that of its imagery.

    Raises:
        ConfigError: it names neither, or contradicts itself.
        UnavailableError: the place is unknown.
        InputError: the imagery or the area cannot be used.
    """
    raster = local_raster(request)
    if request.city is not None:
        with way_out_named(request):
            place = find_place(
                request.city, network=supply.network, cache=supply.cache, boundary=request.boundary
            )
    elif request.bbox is not None:
        place = place_from_bbox(Bounds(*request.bbox))
    elif request.aoi is not None:
        place = place_from_file(request.aoi)
    elif raster is not None:
        place = place_from_raster(raster)
    else:
        raise ConfigError(
            "give a place (--city, --bbox or --aoi) or --imagery FILE to map it whole"
        )
    site = Site(place, raster)
    if request.osm == NO_OSM and is_simulated(request, site):
        raise ConfigError("simulated imagery is drawn from OSM: it cannot be used without OSM")
    return site


def local_raster(request: SourceRequest) -> RasterImagery | None:
    """The raster on disk that a request names as its imagery, opened.

    Raises:
        InputError: it cannot be used.
    """
    spec = None if request.imagery is None else parse_imagery(request.imagery)
    if not isinstance(spec, LocalImagery):
        return None
    return open_imagery(spec.path, bands=request.bands)


def local_osm(request: SourceRequest) -> Path | None:
    """The OSM file on disk that a request names."""
    return None if request.osm in (None, NO_OSM, OVERPASS) else Path(str(request.osm))


def is_simulated(request: SourceRequest, site: Site) -> bool:
    """Whether the imagery of a request is rendered from OSM."""
    bundled = request.imagery is None and site.place.name == SAMPLE_CITY
    return bundled or request.imagery == SIMULATED


# What is here


def osm_at_hand(request: SourceRequest, site: Site) -> Path | None:
    """The OSM file that a request names, or the bundled one."""
    bundled = request.osm is None and site.place.name == SAMPLE_CITY
    return sample_extract() if bundled else local_osm(request)


def imagery_text(request: SourceRequest) -> str:
    """The imagery that a request names, without secrets; Sentinel-2 by default."""
    return SENTINEL2 if request.imagery is None else without_secrets(str(request.imagery))


def remote_spec(request: SourceRequest) -> RemoteImagery:
    """What to fetch as imagery of a request that has none on disk.

    Raises:
        ConfigError: the specification cannot be read.
    """
    spec = parse_imagery(request.imagery or SENTINEL2)
    assert not isinstance(spec, LocalImagery | Simulated)  # these are told apart by `locate`
    return spec


def cached_imagery(request: SourceRequest, place: Place, cache: Cache) -> Entry | None:
    """What the cache has of a place: what was registered, else what was fetched.

    Fetched imagery serves every place that it covers, if it is of the source that the request
    names and fine enough. Without a name, that is whatever was fetched for the place, else
    Sentinel-2. What was fetched for the place itself comes first, then the newest.
    """
    if request.imagery is None:
        registered = cache.find("imagery", place.name)
        if registered is not None:
            return registered
    found = [
        entry
        for entry in cache.entries()
        if entry.kind == "imagery" and not entry.problem and _serves(entry, request, place)
    ]
    return max(found, key=lambda entry: (_is_of(entry, place), entry.fetched), default=None)


def _is_of(entry: Entry, place: Place) -> bool:
    """Whether imagery was fetched for a place."""
    return entry.name.startswith(place.name + FROM)


def _serves(entry: Entry, request: SourceRequest, place: Place) -> bool:
    """Whether fetched imagery is of the right source, covers a place, and is fine enough."""
    asked, gsd = entry.details.get("request"), entry.details.get("gsd")
    if not isinstance(asked, dict):
        return False  # registered
    own = _is_of(entry, place)
    any_source = own and request.imagery is None
    if not any_source and asked.get("source") != source_record(remote_spec(request)):
        return False
    if asked.get("area") != area_key(place.aoi) and not covers(entry, place.aoi):
        return False
    if request.gsd is None:  # the source's own pixels, or what the user chose for this place
        return own or asked.get("gsd") is None
    return isinstance(gsd, int | float) and gsd <= request.gsd


# Without the network


def fetch_command(request: SourceRequest, site: Site | None) -> str:
    """The command that fetches everything that a request needs."""
    options: dict[str, object | None] = {
        "--city": request.city,
        "--bbox": request.bbox and ",".join(f"{edge:.12g}" for edge in request.bbox),
        "--aoi": request.aoi,
        "--boundary": request.boundary,
        "--osm": request.osm,
        "--imagery": request.imagery,
        "--gsd": request.gsd,
        "--accept-imagery-terms": request.accept_imagery_terms,
    }
    if is_remote(str(request.model)):
        options["--model"] = request.model
    if site is not None and site.raster is None and not is_simulated(request, site):
        options["--imagery"] = imagery_text(request)
    given = [(name, without_secrets(str(value))) for name, value in options.items() if value]
    return shlex.join(["geolink", "fetch", *(part for option in given for part in option)])


@contextmanager
def way_out_named(request: SourceRequest, site: Site | None = None) -> Iterator[None]:
    """Adds to "no network" how to get along without one."""
    try:
        yield
    except UnavailableError as error:
        if not isinstance(error.__cause__, requests.ConnectionError):
            raise
        command = fetch_command(request, site)
        raise UnavailableError(
            f"{error}, or run `{command}` where there is one and copy the cache"
        ) from error
