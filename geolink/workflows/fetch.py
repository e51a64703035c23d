"""`fetch`: fills the cache with what a place's map needs, and looks after the cache."""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import shapely

from geolink.errors import ConfigError, InputError, UnavailableError
from geolink.files import replace_bytes
from geolink.grid import Bounds
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache, Entry
from geolink.sources.entries import covers
from geolink.sources.gazetteer import find_place
from geolink.sources.imagery import RasterImagery
from geolink.sources.model_origins import parse_origin
from geolink.sources.models import is_remote
from geolink.sources.network import Network
from geolink.sources.osm import extract_bounds
from geolink.sources.places import (
    SAMPLE_CITY,
    Place,
    place_from_bbox,
    place_from_file,
    place_from_raster,
    slug,
)
from geolink.workflows.acquire import bring_text_encoder, gather, local_model
from geolink.workflows.progress import Progress, silent
from geolink.workflows.request import FetchRequest
from geolink.workflows.results import download_rows
from geolink.workflows.site import (
    FROM,
    Site,
    Supply,
    local_osm,
    local_raster,
    locate,
    way_out_named,
)
from geolink.workflows.stock import Need, announce, describe_osm, readable_size, take_stock

_BITS_PER_SECOND = 20e6  # that the expected time of a plan is given for


@dataclass(frozen=True)
class FetchPlan:
    """What a fetch would do.

    Attributes:
        place: its name; None where only a model is asked for.
        area_km2: 0 without a place.
        needs: all that is needed, with what of it is missing.
    """

    place: str | None
    area_km2: float
    needs: list[Need]

    @property
    def missing(self) -> list[Need]:
        """What would be fetched."""
        return [need for need in self.needs if not need.here]

    @property
    def bytes(self) -> int:
        """About how much would be fetched, as far as it is known."""
        return sum(need.size or 0 for need in self.missing)

    @property
    def seconds(self) -> float:
        """How long that takes at 20 Mbit/s."""
        return self.bytes * 8 / _BITS_PER_SECOND

    @property
    def title(self) -> str:
        """Heading of a table."""
        return f"What {self.place or 'the model'} needs"

    @property
    def summary(self) -> str:
        """One line for people."""
        if not self.missing:
            return "nothing to fetch: everything is here"
        more = " and what has no known size" if any(n.size is None for n in self.missing) else ""
        return (
            f"nothing fetched; a run would fetch {readable_size(self.bytes)}{more}, "
            f"about {max(self.seconds / 60, 0.1):.1f} min at {_BITS_PER_SECOND / 1e6:.0f} Mbit/s"
        )

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        area = [("area", f"{self.area_km2:,.2f} km²")] if self.place else []
        here = [
            (need.kind, f"{need.what} is here; {need.terms}") for need in self.needs if need.here
        ]
        pieces = [("tiles", f"{need.pieces:,} of imagery") for need in self.missing if need.pieces]
        return [*area, *here, *pieces, *download_rows([n.to_dict() for n in self.missing])]

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON data."""
        return {
            "place": self.place,
            "area_km2": self.area_km2,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "needs": [need.to_dict() for need in self.needs],
        }


@dataclass(frozen=True)
class FetchResult:
    """What a fetch brought, or what the cache holds.

    Attributes:
        place: name of the place; None where there is none.
        entries: of the cache.
        seconds: wall time.
    """

    place: str | None
    entries: list[Entry]
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """Heading of a table."""
        return f"In the cache for {self.place}" if self.place else "In the cache"

    @property
    def summary(self) -> str:
        """One line for people."""
        size = readable_size(sum(entry.size for entry in self.entries))
        return f"{len(self.entries)} entries, {size}"

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data."""
        entries = [describe_entry(entry) for entry in self.entries]
        return {"place": self.place, "entries": entries, "seconds": self.seconds}


def fetch(
    request: FetchRequest | None = None,
    progress: Progress = silent,
    **settings: Any,  # noqa: ANN401 - checked by FetchRequest
) -> FetchResult:
    """Brings into the cache what `predict` with the same settings needs.

    With a city, local imagery and OSM are registered under its name and stay where they are.

    Args:
        request: what to fetch; or give its fields by name, as in `fetch(city="singapore")`.
        progress: called with (stage, done, total).
        **settings: fields of a `FetchRequest`.

    Raises:
        InputError: a file, an area or a setting cannot be used.
        UnavailableError: something cannot be had.
        OutputError: the cache cannot be written.
    """
    request = request or FetchRequest(**settings)
    started = time.monotonic()
    supply = Supply(Cache(), Network(offline=request.offline, progress=progress))
    site = _locate(request, supply)
    stale = _fetched(request, site, supply.cache) if request.overwrite else []
    supply = replace(supply, cache=supply.cache.renewing(stale))
    wanted = take_stock(request, site, supply)
    entries = [] if site is None else _register(request, site, supply.cache)
    announce(wanted)
    with way_out_named(request, site):
        bring_text_encoder(local_model(request.model, supply), supply)
        if site is not None:
            entries += gather(request, site, supply).entries
            _remove_superseded(stale, entries, site.place, supply.cache)
    return FetchResult(
        place=None if site is None else site.place.name,
        entries=[*entries, *_model_entries(request, supply.cache)],
        seconds=time.monotonic() - started,
    )


def plan(
    request: FetchRequest | None = None,
    **settings: Any,  # noqa: ANN401 - checked by FetchRequest
) -> FetchPlan:
    """What `fetch` would do with the same arguments; only sizes and scenes are asked for.

    Raises:
        InputError, UnavailableError: as `fetch`.
    """
    request = request or FetchRequest(**settings)
    supply = Supply(Cache(), Network(offline=request.offline))
    site = _locate(request, supply)
    wanted = take_stock(request, site, supply)
    if site is None:
        return FetchPlan(None, 0.0, wanted)
    return FetchPlan(site.place.name, site.place.aoi_metric.area / 1e6, wanted)


def look_after(*, remove: str | None = None, verify: bool = False) -> FetchResult:
    """Everything in the cache, or what was removed from it.

    Args:
        remove: name of the entries to delete, or of a place, with all of its imagery. Registered
            files stay where they are.
        verify: read every file and compare it with the recorded hash.

    Raises:
        ConfigError: both are asked for.
        InputError: there is nothing of that name.
        UnavailableError: something is damaged; all of it is named.
        OutputError: it cannot be deleted.
    """
    if remove is not None and verify:
        raise ConfigError("verify the cache or remove something from it, one at a time")
    cache = Cache()
    entries = cache.entries()
    if remove is not None:
        entries = _removed(remove, entries, cache)
    elif verify:
        _require_sound(entries, cache)
    return FetchResult(None, entries)


def _removed(name: str, entries: list[Entry], cache: Cache) -> list[Entry]:
    """Deletes the entries with a name, and returns them."""
    found = [e for e in entries if e.name == name or e.name.startswith(name + FROM)]
    if not found:
        raise InputError(
            f"nothing in the cache is called {name!r}; `geolink fetch --list` shows all names"
        )
    for entry in found:
        cache.remove(entry)
    return found


def _require_sound(entries: list[Entry], cache: Cache) -> None:
    problems = {entry.name: found for entry in entries if (found := cache.verify(entry))}
    if problems:
        told = "; ".join(f"{name!r}: {', '.join(found)}" for name, found in problems.items())
        raise UnavailableError(
            f"{len(problems)} of {len(entries)} entries are damaged ({told}); "
            "remove them with `geolink fetch --remove NAME` and fetch them again"
        )


def describe_entry(entry: Entry) -> dict[str, Any]:
    """An entry as plain JSON data."""
    return {
        "kind": entry.kind,
        "name": entry.name,
        **asdict(entry.info),
        "bytes": entry.size,
        "source": entry.source,
        "path": str(entry.path) if not entry.problem else None,
        "fetched": entry.fetched,
        "registered": entry.registered,
        "problem": entry.problem,
    }


def _locate(request: FetchRequest, supply: Supply) -> Site | None:
    """Where a request is; None where only a model is asked for."""
    if not request.names_a_place and request.imagery is None:
        if not (is_remote(str(request.model)) or Path(request.model).exists()):
            raise ConfigError("say what to fetch: a place (--city, --bbox or --aoi) or a --model")
        return None
    raster = local_raster(request)
    if request.city is None or not (raster or local_osm(request) or _names_area(request)):
        return locate(request, supply)
    place = _named_area(request) or _known_place(request, supply.cache)
    return Site(place or _place_of_files(request, raster), raster)


# Registering


def _names_area(request: FetchRequest) -> bool:
    return request.bbox is not None or request.aoi is not None


def _named_area(request: FetchRequest) -> Place | None:
    """The area that a request gives to the name of its city, None where it gives none."""
    if request.bbox is not None:
        return _named(request, place_from_bbox(Bounds(*request.bbox)))
    return None if request.aoi is None else _named(request, place_from_file(request.aoi))


def _known_place(request: FetchRequest, cache: Cache) -> Place | None:
    """The place of that name in the cache or the catalogue; nobody is asked."""
    try:
        return find_place(
            str(request.city),
            network=Network(offline=True),
            cache=cache,
            boundary=request.boundary,
        )
    except UnavailableError:
        if request.boundary is not None:
            raise
        return None


def _place_of_files(request: FetchRequest, raster: RasterImagery | None) -> Place:
    """The place that the given files cover, the image before the OSM extract."""
    if raster is not None:
        return _named(request, place_from_raster(raster))
    path = local_osm(request)
    if path is None or not path.name.endswith(".pbf"):
        raise ConfigError(
            f"the place {request.city!r} is unknown; give its area with --bbox or --aoi"
        )
    return _named(request, place_from_bbox(extract_bounds(path)))


def _named(request: FetchRequest, place: Place) -> Place:
    name = slug(str(request.city))
    if not name or name == SAMPLE_CITY:
        raise ConfigError(f"{request.city!r} cannot be the name of a place; choose another")
    return replace(place, name=name)


def _register(request: FetchRequest, site: Site, cache: Cache) -> list[Entry]:
    """Makes local files, and an area of its own, known under the name of a city."""
    if request.city is None:
        return []
    place, note = site.place, request.accept_imagery_terms
    entries = []
    if _names_area(request) or _known_place(request, cache) is None:
        entries.append(_publish_area(place, cache))
    if site.raster is not None:
        info = replace(site.raster.info, licence=note) if note else site.raster.info
        path = Path(str(request.imagery))
        entries.append(cache.register("imagery", place.name, path, info=info))
    if (osm := local_osm(request)) is not None:
        entries.append(cache.register("osm", place.name, osm, info=describe_osm(osm)))
    return entries


def _publish_area(place: Place, cache: Cache) -> Entry:
    with cache.staging("place", place.name) as staging:
        replace_bytes(staging / "area.geojson", shapely.to_geojson(place.aoi).encode())
        info = SourceInfo(f"the area of {place.name}")
        return cache.publish("place", place.name, staging, source="registered", info=info)


# Renewing


def _fetched(request: FetchRequest, site: Site | None, cache: Cache) -> list[Entry]:
    """What was fetched before and is to be fetched again."""
    if request.offline:
        raise ConfigError("--overwrite fetches again what is here, which --offline forbids")
    found = _model_entries(request, cache)
    if site is not None:
        found += [entry for entry in cache.entries() if entry.kind in ("osm", "imagery")]
    return [entry for entry in found if not entry.registered]


def _remove_superseded(old: list[Entry], new: list[Entry], place: Place, cache: Cache) -> None:
    """Removes older OSM data that would be taken in place of the new, as the smaller file."""
    sizes = {entry.folder: entry.size for entry in new if entry.kind == "osm"}
    for entry in old:
        smaller = entry.folder not in sizes and entry.size <= max(sizes.values(), default=-1)
        if entry.kind == "osm" and smaller and covers(entry, place.aoi):
            cache.remove(entry)


def _model_entries(request: FetchRequest, cache: Cache) -> list[Entry]:
    """The model of a request in the cache."""
    if not is_remote(str(request.model)):
        return []
    entry = cache.find("model", parse_origin(str(request.model)).name)
    return [] if entry is None else [entry]
