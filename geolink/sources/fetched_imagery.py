"""Imagery from catalogues and tile servers, planned and fetched into the cache."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any

import shapely

from geolink.errors import ConfigError
from geolink.files import replace_bytes
from geolink.sources.base import Area
from geolink.sources.cache import Cache, Entry
from geolink.sources.chunks import ImageryPlan, fetch_chunks
from geolink.sources.entries import area_details
from geolink.sources.network import Network, without_secrets
from geolink.sources.specs import RemoteImagery, StacImagery, XyzImagery
from geolink.sources.stac import dated, plan_stac
from geolink.sources.xyz import plan_xyz

_NOTE = ".plan.json"  # hidden: dropped by the cache when the image is whole


def plan_imagery(
    spec: RemoteImagery,
    area: Area,
    *,
    gsd: float | None,
    network: Network,
    accept_terms: str | None = None,
) -> ImageryPlan:
    """What `fetch_imagery` would do; only the catalogue is asked.

    Raises:
        UnavailableError: the catalogue does not answer, or has no image of the area.
        InputError: the area cannot be mapped, or needs too many tiles or pixels.
    """
    if isinstance(spec, XyzImagery):
        return plan_xyz(spec, area, gsd=gsd, network=network, terms=accept_terms)
    return plan_stac(spec, area, gsd=gsd, network=network)


def fetch_imagery(
    spec: RemoteImagery,
    area: Area,
    *,
    name: str,
    gsd: float | None,
    cache: Cache,
    network: Network,
    accept_terms: str | None = None,
) -> Entry:
    """Imagery of an area as an entry of the cache, which `open_imagery` reads.

    The same request is answered from the cache. One that was interrupted goes on where it stopped,
    with the dates that it began with, unless the catalogue has other scenes now.

    Args:
        spec: what to fetch.
        area: in EPSG:4326.
        name: of the entry.
        gsd: metres per pixel; None for that of the source, which it is never finer than. Coarser
            pixels are read from overviews.
        cache: where it goes.
        network: to fetch with; its `progress` is told of chunks and tiles.
        accept_terms: the user's note of a tile server's licence.

    Raises:
        ConfigError: tiles are asked for without a note of their licence.
        UnavailableError: the server does not answer, not as it should, or has no image here.
        CoverageError: no pixel of the area has an image.
        InputError: the area cannot be mapped, or needs too many tiles or pixels.
        OutputError: the cache cannot be written, or the disk is full.
    """
    request = _request(spec, area, gsd)
    entry = _same(cache.find("imagery", name), request)
    if entry is not None:
        return entry
    terms = checked_terms(spec, accept_terms)
    network.require(f"the imagery {name!r}", "geolink fetch")
    with cache.staging("imagery", name) as staging:
        entry = _same(cache.find("imagery", name), request)
        if entry is not None:  # another process fetched it meanwhile
            return entry
        spec = _with_recorded_dates(spec, staging, request)
        plan = plan_imagery(spec, area, gsd=gsd, network=network, accept_terms=terms)
        _start(staging, plan, spec, request)
        info = fetch_chunks(plan, staging, progress=network.progress)
        details = {"request": request, "gsd": plan.grid.gsd, "dates": _dates(spec)}
        details |= area_details(area)
        return cache.publish("imagery", name, staging, source=plan.url, info=info, details=details)


def area_key(area: Area) -> str:
    """What tells an area (EPSG:4326) from others that are not the same within a centimetre."""
    shape = shapely.set_precision(area, 1e-7).normalize()
    return sha256(shape.wkb).hexdigest()


def _same(entry: Entry | None, request: Mapping[str, Any]) -> Entry | None:
    """The entry, if it is the answer to this request."""
    return entry if entry is not None and entry.details.get("request") == request else None


def source_record(spec: RemoteImagery) -> dict[str, Any]:
    """What tells one source from another, as JSON data without secrets."""
    plain = asdict(spec)
    if isinstance(spec, StacImagery) and spec.classes is not None:
        del plain["url"]  # a mirror has the same scenes
    for field in plain.keys() & {"url", "template"}:
        plain[field] = without_secrets(plain[field])
    data: dict[str, Any] = json.loads(json.dumps(plain, default=date.isoformat))
    return data


def _request(spec: RemoteImagery, area: Area, gsd: float | None) -> dict[str, Any]:
    """What tells one request from another, as JSON data without secrets."""
    return {"source": source_record(spec), "gsd": gsd, "area": area_key(area)}


def checked_terms(spec: RemoteImagery, note: str | None) -> str | None:
    """The note of the licence, without which tiles are not fetched.

    Raises:
        ConfigError: tiles have none.
    """
    note = (note or "").strip() or None
    if isinstance(spec, XyzImagery) and note is None:
        raise ConfigError(
            "tile servers have terms of use that often forbid to store tiles or to derive maps; "
            'read them, then note the licence with --accept-imagery-terms "NOTE", which is '
            "recorded as the imagery's licence and credit"
        )
    return note


def _dates(spec: RemoteImagery) -> list[str] | None:
    """The days that scenes may be from, as JSON data."""
    if isinstance(spec, XyzImagery) or spec.dates is None:
        return None
    return [day.isoformat() for day in spec.dates]


def _with_recorded_dates(
    spec: RemoteImagery, staging: Path, request: Mapping[str, Any]
) -> RemoteImagery:
    """The source with fixed dates: those that an interrupted fetch of the same request noted."""
    if isinstance(spec, XyzImagery):
        return spec
    note = _read_note(staging)
    if note.get("request") == request and isinstance(note.get("dates"), list):
        first, last = (date.fromisoformat(day) for day in note["dates"])
        return replace(spec, dates=(first, last))
    return dated(spec)


def _start(
    staging: Path, plan: ImageryPlan, spec: RemoteImagery, request: Mapping[str, Any]
) -> None:
    """Clear what another plan left, and note this one."""
    if _read_note(staging).get("key") != plan.key:
        for left in staging.iterdir():
            rmtree(left) if left.is_dir() else left.unlink()
    note = {"request": request, "dates": _dates(spec), "key": plan.key}
    replace_bytes(staging / _NOTE, json.dumps(note).encode())


def _read_note(staging: Path) -> dict[str, Any]:
    """What an interrupted fetch noted; nothing where there was none."""
    try:
        note = json.loads((staging / _NOTE).read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
