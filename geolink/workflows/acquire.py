"""Everything that a map needs, brought together as local files; what is missing is fetched."""

from dataclasses import dataclass
from pathlib import Path

from geolink.sources.base import SourceInfo
from geolink.sources.cache import Entry
from geolink.sources.fetched_imagery import fetch_imagery
from geolink.sources.imagery import RasterImagery, open_imagery
from geolink.sources.model_files import WEIGHTS
from geolink.sources.models import fetch_model, fetch_text_encoder, is_remote, text_encoder_of
from geolink.sources.osm_fetch import fetch_osm
from geolink.sources.overpass import fetch_overpass
from geolink.sources.places import Place
from geolink.workflows.request import SourceRequest
from geolink.workflows.site import (
    FROM,
    NO_OSM,
    OVERPASS,
    Site,
    Supply,
    cached_imagery,
    imagery_text,
    is_simulated,
    osm_at_hand,
    remote_spec,
)


@dataclass(frozen=True)
class OsmFile:
    """OSM data on disk; `info` is None where the file speaks for itself."""

    path: Path
    info: SourceInfo | None = None


@dataclass(frozen=True)
class Materials:
    """Everything that a request needs, on disk.

    Attributes:
        place: name and area.
        imagery: the pixels, None where they are rendered from OSM.
        osm: None where OSM is not used.
        entries: those of the cache that these come from.
    """

    place: Place
    imagery: RasterImagery | None
    osm: OsmFile | None
    entries: tuple[Entry, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the sources are read from, the imagery first."""
        pictures = () if self.imagery is None else self.imagery.rasters
        osm = () if self.osm is None else (self.osm.path,)
        return (*(Path(raster.path) for raster in pictures), *osm)


def gather(request: SourceRequest, site: Site, supply: Supply) -> Materials:
    """Brings place, OSM and imagery of a request together, and fetches what is missing.

    Raises:
        UnavailableError: something cannot be had.
        InputError, OutputError: the data cannot be used, or the cache cannot be written.
    """
    osm, osm_entry = _osm_file(request, site, supply)
    imagery, imagery_entry = site.raster, None
    if imagery is None and not is_simulated(request, site):
        imagery_entry = _imagery_entry(request, site.place, supply)
        imagery = open_imagery(imagery_entry.path, bands=request.bands, info=imagery_entry.info)
    entries = tuple(entry for entry in (osm_entry, imagery_entry) if entry is not None)
    return Materials(site.place, imagery, osm, entries)


def local_model(spec: str | Path, supply: Supply) -> str | Path:
    """A model as `load_model` finds it without the network: fetched, with its text encoder."""
    if not is_remote(str(spec)):
        return spec
    weights = fetch_model(str(spec), cache=supply.cache, network=supply.network)
    bring_text_encoder(weights, supply)
    return weights


def bring_text_encoder(model: str | Path, supply: Supply) -> None:
    """Fetches the text model that the tags of a model on disk need, where they need one."""
    weights = Path(model) / WEIGHTS if Path(model).is_dir() else Path(model)
    encoder = text_encoder_of(weights) if weights.is_file() else None
    if encoder is not None:
        fetch_text_encoder(encoder, cache=supply.cache, network=supply.network)


def _osm_file(
    request: SourceRequest, site: Site, supply: Supply
) -> tuple[OsmFile | None, Entry | None]:
    """The OSM data of a request, and the entry of the cache that it is."""
    if request.osm == NO_OSM:
        return None, None
    if request.osm == OVERPASS:
        entry = fetch_overpass(site.place, cache=supply.cache, network=supply.network)
        return OsmFile(entry.path, entry.info), entry
    path = osm_at_hand(request, site)
    if path is not None:
        return OsmFile(path), None
    entry = fetch_osm(site.place, cache=supply.cache, network=supply.network)
    return OsmFile(entry.path, entry.info), entry


def _imagery_entry(request: SourceRequest, place: Place, supply: Supply) -> Entry:
    return cached_imagery(request, place, supply.cache) or fetch_imagery(
        remote_spec(request),
        place.aoi,
        name=f"{place.name}{FROM}{imagery_text(request)}",
        gsd=request.gsd,
        cache=supply.cache,
        network=supply.network,
        accept_terms=request.accept_imagery_terms,
    )
