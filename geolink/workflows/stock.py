"""What a request needs: what of it is here, and how much the rest is."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from geolink.errors import UnavailableError
from geolink.sources.base import SourceInfo
from geolink.sources.entries import covers
from geolink.sources.fetched_imagery import checked_terms, plan_imagery
from geolink.sources.imagery import open_imagery
from geolink.sources.model_origins import parse_origin
from geolink.sources.models import is_remote
from geolink.sources.osm import ATTRIBUTION, LICENCE, extract_timestamp, iso_date
from geolink.sources.osm_fetch import plan_osm
from geolink.workflows.request import SourceRequest
from geolink.workflows.site import (
    NO_OSM,
    OVERPASS,
    Site,
    Supply,
    cached_imagery,
    fetch_command,
    imagery_text,
    is_simulated,
    osm_at_hand,
    remote_spec,
    way_out_named,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Need:
    """One thing that a request needs.

    Attributes:
        kind: what it is.
        what: the thing in words.
        info: provenance, as far as it is known.
        here: False where it must be fetched.
        size: bytes to fetch, about; None where unknown.
        gsd: metres per pixel of imagery.
        pieces: chunks of imagery to fetch.
    """

    kind: Literal["model", "osm", "imagery"]
    what: str
    info: SourceInfo
    here: bool
    size: int | None = 0
    gsd: float | None = None
    pieces: int = 0

    @property
    def terms(self) -> str:
        """Licence and credit line."""
        known = filter(None, (self.info.licence, self.info.attribution))
        return ", ".join(dict.fromkeys(known)) or "licence unknown"

    def to_dict(self) -> dict[str, Any]:
        """What would be fetched, as plain JSON data."""
        names = ("kind", "what", "here", "gsd", "pieces", "terms")
        plain = {name: getattr(self, name) for name in names}
        return plain | asdict(self.info) | {"bytes": self.size, "size": readable_size(self.size)}


def take_stock(request: SourceRequest, site: Site | None, supply: Supply) -> list[Need]:
    """What a request needs, the model first, and what of it is missing.

    The network is asked for sizes and scenes only.

    Args:
        request: what is asked for.
        site: where it is; None where only the model is wanted.
        supply: what is here.

    Raises:
        ConfigError: a specification cannot be read.
        UnavailableError: a catalogue does not answer, or has nothing of the area; or offline, with
            all that is missing and the command that gets it.
    """
    found = [model_need(request, supply)]
    if site is not None:
        with way_out_named(request, site):
            if request.osm != NO_OSM:
                found.append(_osm_need(request, site, supply))
            if not is_simulated(request, site):
                found.append(_imagery_need(request, site, supply))
    missing = [need.what for need in found if not need.here]
    if missing and supply.network.offline:
        verb = "are" if len(missing) > 1 else "is"
        raise UnavailableError(
            f"{' and '.join(missing)} {verb} not in the cache, and --offline forbids to fetch; "
            f"run `{fetch_command(request, site)}` on a connected machine"
        )
    return found


def model_need(request: SourceRequest, supply: Supply) -> Need:
    """The model of a request."""
    text = str(request.model)
    if not is_remote(text):
        return Need("model", f"the model {text}", SourceInfo(text), here=True)
    name = parse_origin(text).name
    entry = supply.cache.find("model", name)
    info = SourceInfo(name) if entry is None else entry.info
    return Need("model", f"the model {name}", info, here=entry is not None, size=None)


def _osm_need(request: SourceRequest, site: Site, supply: Supply) -> Need:
    place = site.place
    if request.osm == OVERPASS:
        entry = supply.cache.find("osm", f"{place.name}-overpass")
        info = SourceInfo("OSM from Overpass", licence=LICENCE, attribution=ATTRIBUTION)
        here = entry is not None and covers(entry, place.aoi)
        return Need("osm", f"the OSM data of {place.name}", info, here=here, size=None)
    path = osm_at_hand(request, site)
    if path is not None:
        return Need("osm", f"the OSM file {path.name}", describe_osm(path), here=True)
    plan = plan_osm(place, cache=supply.cache, network=supply.network)
    info = SourceInfo(plan.description, plan.date, plan.licence, plan.attribution)
    here = plan.size_bytes == 0
    return Need("osm", f"the OSM extract {plan.description}", info, here=here, size=plan.size_bytes)


def _imagery_need(request: SourceRequest, site: Site, supply: Supply) -> Need:
    if site.raster is not None:
        raster = site.raster
        what = f"the image {raster.info.description}"
        return Need("imagery", what, raster.info, here=True, gsd=raster.native_gsd)
    what = f"the {imagery_text(request)} imagery of {site.place.name}"
    entry = cached_imagery(request, site.place, supply.cache)
    if entry is not None:
        gsd = open_imagery(entry.path, bands=request.bands).native_gsd
        return Need("imagery", what, entry.info, here=True, gsd=gsd)
    if supply.network.offline:
        info = SourceInfo(imagery_text(request))
        return Need("imagery", what, info, here=False, size=None, gsd=request.gsd)
    spec = remote_spec(request)
    terms = checked_terms(spec, request.accept_imagery_terms)
    plan = plan_imagery(
        spec, site.place.aoi, gsd=request.gsd, network=supply.network, accept_terms=terms
    )
    return Need(
        "imagery",
        what,
        plan.info,
        here=False,
        size=plan.bytes_estimate,
        gsd=plan.grid.gsd,
        pieces=len(plan.windows),
    )


def describe_osm(path: Path) -> SourceInfo:
    """Provenance of an OSM file, by its name and header.

    Raises:
        InputError: an extract cannot be read.
    """
    date = iso_date(extract_timestamp(path)) if path.name.endswith(".pbf") else None
    return SourceInfo(path.name, date, LICENCE, ATTRIBUTION)


def announce(wanted: list[Need]) -> None:
    """Says what will be fetched, how much, and under which licence."""
    for need in wanted:
        if not need.here:
            logger.info("fetching %s: %s; %s", need.what, readable_size(need.size), need.terms)


def readable_size(size: int | None) -> str:
    """Bytes as people read them."""
    if size is None:
        return "size unknown"
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            return f"about {size / factor:.3g} {unit}"
    return f"about {max(size // 1000, 1)} kB"
