"""OSM extracts in the cache: downloaded, verified, dated, and cropped around the place.

Two forms of entries come of it. A whole extract serves every place that it covers. A crop is what
`read_osm` reads of it for one place, and is made where the extract is much larger than the place.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import requests
import shapely

from geolink.errors import InputError, UnavailableError
from geolink.grid import WGS84, Bounds, reproject_bounds
from geolink.sources.base import Area, SourceInfo
from geolink.sources.cache import Cache, Entry
from geolink.sources.entries import area_details, covers
from geolink.sources.extracts import Extract, covering_extract
from geolink.sources.http_failures import NotFoundError
from geolink.sources.network import Network
from geolink.sources.osm import ATTRIBUTION, LICENCE
from geolink.sources.pbf import copy_with_date, extract_timestamp, iso_date, readable
from geolink.sources.places import Place, slug

logger = logging.getLogger(__name__)

Form = Literal["extract", "crop", "overpass"]

# `read_osm` looks for objects 2 km beyond its bounds, which themselves reach a tile (224 pixels)
# beyond the place: with 5 km around the place, a crop holds all that it finds at 13 m per pixel.
CROP_MARGIN = 5_000.0
# Smaller extracts are read fast enough whole; others are cropped to less than a quarter.
_CROPPED_FROM_BYTES = 10 * 10**6
_CROPPED_SHARE = 0.25


@dataclass(frozen=True)
class OsmPlan:
    """What `fetch_osm` would do.

    Attributes:
        description: the extract or the file.
        size_bytes: size of the download, 0 where the data is here, None where unknown.
        date: of the data that is here.
        licence, attribution: of the data.
    """

    description: str
    size_bytes: int | None
    date: str | None = None
    licence: str | None = LICENCE
    attribution: str | None = ATTRIBUTION


def plan_osm(place: Place, *, cache: Cache, network: Network) -> OsmPlan:
    """What OSM data a place would be mapped with; the network is asked for an unknown size only.

    Raises:
        UnavailableError: no extract covers the place, or its server cannot be reached.
    """
    entry = _cached(place, cache)
    if entry is not None:
        info = entry.info
        return OsmPlan(info.description, 0, info.date, info.licence, info.attribution)
    extract = place.extract or covering_extract(place.aoi)
    size = extract.size_bytes
    if size is None and not network.offline:
        size = _announced_size(extract, network)
    return OsmPlan(_described(extract), size)


def fetch_osm(place: Place, *, cache: Cache, network: Network) -> Entry:
    """OSM data that covers a place, downloaded unless the cache has it.

    What was registered under the place's name comes first, then the smallest crop or extract in
    the cache that covers the place, then the catalogue's smallest.

    Raises:
        UnavailableError: no extract covers the place, or it cannot be had or is damaged.
        OutputError: the cache cannot be written.
    """
    found = _cached(place, cache)
    if found is None:
        extract = place.extract or covering_extract(place.aoi)
        found = fetch_extract(extract, cache=cache, network=network, command=_command(place))
    if found.details.get("form") == "extract" and _worth_cropping(place, found):
        return _crop(place, found, cache)
    return found


def fetch_extract(
    extract: Extract, *, cache: Cache, network: Network, command: str | None = None
) -> Entry:
    """A whole extract of the catalogue, downloaded unless the cache has it.

    Args:
        extract: of the catalogue.
        cache: where it goes.
        network: where it comes from.
        command: that fetches it, for messages; by default that of the place with its name.

    Raises:
        UnavailableError: it cannot be had, or is damaged; nothing broken is left behind.
        OutputError: the cache cannot be written.
    """
    name, what = _entry_name(extract), f"the OSM extract {_described(extract)}"
    entry = cache.find("osm", name)
    if entry is not None:
        return entry
    network.require(what, command or f'geolink fetch --city "{extract.title}"')
    with cache.staging("osm", name) as staging:
        entry = cache.find("osm", name)  # another process may have been faster
        if entry is not None:
            return entry
        address = extract.address
        path = staging / PurePosixPath(address).name
        network.download(address, path, what=what)
        return cache.publish(
            "osm",
            name,
            staging,
            source=address,
            info=SourceInfo(
                _described(extract),
                date=_verified_date(path, extract, what, network),
                licence=LICENCE,
                attribution=ATTRIBUTION,
            ),
            details=osm_details("extract", extract.area),
        )


def osm_details(form: Form, area: Area) -> dict[str, Any]:
    """What the cache records of OSM data: how it was made, and for which area it is complete."""
    return {"form": form, **area_details(area)}


# What is here


def _cached(place: Place, cache: Cache) -> Entry | None:
    """What the cache has for a place, None where it must be fetched."""
    named = cache.find("osm", place.name)
    if named is not None and named.registered:
        return named
    found = [entry for entry in _complete(cache) if covers(entry, place.aoi)]
    if place.extract is not None:
        whole = cache.find("osm", _entry_name(place.extract))
        found += [] if whole is None else [whole]
    return min(found, key=lambda entry: entry.size, default=None)


def _complete(cache: Cache) -> list[Entry]:
    """Extracts and crops, which hold everything within their area."""
    return [
        entry
        for entry in cache.entries()
        if entry.kind == "osm"
        and entry.details.get("form") in ("extract", "crop")
        and not entry.problem
    ]


def _entry_name(extract: Extract) -> str:
    name = extract.name if extract.provider == "BBBike" else extract.title
    return f"{extract.provider.lower()}-{slug(name)}"


def _described(extract: Extract) -> str:
    return f"{extract.name} ({extract.provider})"


def _command(place: Place) -> str:
    if place.extract is not None:
        return f'geolink fetch --city "{place.extract.title}"'
    return f"geolink fetch --bbox {','.join(f'{edge:.6g}' for edge in place.aoi.bounds)}"


# Downloads


def _announced_size(extract: Extract, network: Network) -> int | None:
    """Bytes of an extract as its server tells them, None where it does not."""
    try:
        length = _headers(extract, network).get("Content-Length", "")
    except UnavailableError as error:
        if isinstance(error.__cause__, requests.ConnectionError):
            raise  # where the extract cannot be had either
        logger.info("%s", error)
        return None
    return int(length) if length.isdigit() else None


def _headers(extract: Extract, network: Network) -> Mapping[str, str]:
    """What the server tells of an extract without sending it."""
    what = f"the OSM extract {_described(extract)}"
    with network.open(extract.address, method="HEAD", what=what) as response:
        return response.headers


def _verified_date(path: Path, extract: Extract, what: str, network: Network) -> str | None:
    """Date of a downloaded extract; a damaged one is deleted."""
    try:
        _require_checksum(path, extract, what, network)
        timestamp = extract_timestamp(path)
    except InputError as error:
        path.unlink()
        raise UnavailableError(
            f"{what} cannot be used: what was sent is no OSM PBF file; try again later, "
            "or another mirror"
        ) from error
    try:
        modified = "" if timestamp else _headers(extract, network).get("Last-Modified", "")
        timestamp = timestamp or int(parsedate_to_datetime(modified).timestamp())
    except (ValueError, UnavailableError):
        logger.info("%s does not tell its date", what)
    return iso_date(timestamp)


def _require_checksum(path: Path, extract: Extract, what: str, network: Network) -> None:
    """Compare with the checksum that the provider publishes beside the file, if it does."""
    published = _published_checksum(extract, what, network)
    if published is None:
        logger.info("%s: no checksum is published, only its size was checked", what)
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != published:
        path.unlink()
        raise UnavailableError(
            f"{what} cannot be used: it does not have the checksum that is published beside it; "
            "it may just be renewed there: run the same command again in a few minutes"
        )


def _published_checksum(extract: Extract, what: str, network: Network) -> str | None:
    """The MD5 that the provider publishes, None where there is none."""
    address = extract.address
    folder, _, file = address.rpartition("/")
    listed = f"{folder}/CHECKSUM.txt" if extract.provider == "BBBike" else f"{address}.md5"
    try:
        text = network.get_bytes(listed, what=f"the checksum of {what}").decode("utf-8", "replace")
    except NotFoundError:
        return None
    if extract.provider == "BBBike":  # one list of all files of the city
        of_file = re.compile(rf"(?<![\w.]){re.escape(file)}(?![\w.])")
        text = "\n".join(line for line in text.splitlines() if of_file.search(line))
    found = re.search(r"(?<!\w)[0-9a-f]{32}(?!\w)", text.lower())
    return found[0] if found else None


# Crops


def _worth_cropping(place: Place, entry: Entry) -> bool:
    if entry.size < _CROPPED_FROM_BYTES:
        return False
    whole = shapely.from_geojson(json.dumps(entry.details["area"]))
    return bool(shapely.box(*_crop_box(place)).area < _CROPPED_SHARE * whole.area)


def _crop_box(place: Place) -> Bounds:
    """Degrees of the rectangle around a place that a crop holds."""
    return reproject_bounds(place.bounds_metric.buffered(CROP_MARGIN), place.crs, WGS84)


def _crop(place: Place, whole: Entry, cache: Cache) -> Entry:
    """The part of an extract that `read_osm` reads for a place."""
    digest = hashlib.sha256(shapely.normalize(place.aoi).wkb).hexdigest()[:6]
    name = f"{place.name}-{digest}"
    with cache.staging("osm", name) as staging:
        entry = cache.find("osm", name)
        if entry is not None:
            return entry
        path = staging / f"{place.name}.osm.pbf"
        _write_crop(whole.path, path, _crop_box(place))
        info = SourceInfo(
            f"{whole.info.description}, around {place.name}",
            date=whole.info.date,
            licence=whole.info.licence,
            attribution=whole.info.attribution,
        )
        details = osm_details("crop", place.aoi)
        return cache.publish("osm", name, staging, source=whole.source, info=info, details=details)


def _write_crop(whole: Path, path: Path, box: Bounds) -> None:
    """Writes what lies in a box of degrees, ways and areas that leave it included."""
    from pyrosm import OSM  # slow to import, and needed here only

    cut = path.with_suffix(".part")
    with readable(whole):
        source = OSM(
            str(whole), bounding_box=list(box), complete_relations=True, progress=False, workers=1
        )
        source.to_pbf(str(cut), repack=True)
        copy_with_date(cut, path, timestamp=extract_timestamp(whole))
