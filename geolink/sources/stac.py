"""Scenes of a STAC catalogue: found with pystac-client, chosen, and planned as one image."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pystac
import shapely
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from geolink.errors import UnavailableError
from geolink.sources.base import Area
from geolink.sources.chunks import ImageryPlan, fetched_gsd, lay_chunks, plan_key
from geolink.sources.network import Network, NotFoundError
from geolink.sources.scene_mosaic import Credit, Scene, SceneMosaic
from geolink.sources.specs import StacImagery

_SENTINEL2 = Credit(
    "Sentinel-2 L2A",
    "Copernicus Sentinel data terms",
    "Contains modified Copernicus Sentinel data {years}",
)
_SENTINEL2_GSD = 10.0
_DAYS = 365  # that scenes are searched in, where no dates are given
_PAGE = 100
_MAX_SCENES = 2000
# What pystac and pystac-client raise over documents that are not what they should be.
_WRONG_ANSWERS = (
    APIError,
    PystacClientWarning,
    pystac.STACError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
_BYTES_PER_PIXEL = 6.0  # 8-bit RGB of two scenes, as if not compressed


def dated(spec: StacImagery) -> StacImagery:
    """The same source; Sentinel-2 without dates gets the last twelve months, counted from today."""
    if spec.dates is not None or spec.classes is None:
        return spec
    today = datetime.now(UTC).date()
    return replace(spec, dates=(today - timedelta(days=_DAYS), today))


def plan_stac(spec: StacImagery, area: Area, *, gsd: float | None, network: Network) -> ImageryPlan:
    """What is to be read for an area.

    Sentinel-2 scenes are taken by their share of clouds, then the newest first, then by id; those
    of other collections the newest first, then by id.

    Args:
        spec: catalogue, collection and assets.
        area: in EPSG:4326.
        gsd: metres per pixel; None for that of the scenes, which it is never finer than.
        network: to search with.

    Raises:
        UnavailableError: the catalogue does not answer, or has no scene for the area.
        InputError: the area cannot be mapped, or is too large for pixels of this size.
    """
    spec = dated(spec)
    scenes, credit = _search(spec, area, network)
    mosaic = SceneMosaic(scenes, credit, network)
    native = _SENTINEL2_GSD if spec.classes else mosaic.gsd(scenes[0])
    grid, windows = lay_chunks(area, fetched_gsd(gsd, native))
    info = credit.info([scene.day for scene in scenes])
    return ImageryPlan(
        what=f"{info.description} of {info.date}",
        items=len(scenes),
        bytes_estimate=round(sum(w.height * w.width for w in windows) * _BYTES_PER_PIXEL),
        info=info,
        url=spec.url,
        grid=grid,
        windows=windows,
        key=plan_key(spec.collection, spec.assets, grid.transform, grid.shape, _ids(scenes)),
        pixels=mosaic,
    )


def _ids(scenes: list[Scene]) -> list[str]:
    return [scene.name for scene in scenes]


def _search(spec: StacImagery, area: Area, network: Network) -> tuple[list[Scene], Credit]:
    """The scenes of an area in order of preference, and what must be said of them."""
    host = urlsplit(spec.url).netloc.rpartition("@")[2]
    with _wrong_answers_named(host):
        client = Client.open(spec.url, stac_io=_NetworkIO(network, f"the catalogue {host}"))
        credit = _SENTINEL2 if spec.classes else _credit(client, spec.collection, host=host)
        items = list(client.search(**_query(spec, area, client)).items())
    if not items:
        raise UnavailableError(
            f"{host} has no scene of {_asked(spec)} for this area; try other dates or another "
            "source"
        )
    return _usable(items, spec, area, host=host), credit


def _query(spec: StacImagery, area: Area, client: Client) -> dict[str, Any]:
    """Arguments of the search; what the catalogue cannot filter or sort by is done here anyway."""
    query: dict[str, Any] = {
        "collections": [spec.collection],
        "bbox": area.bounds,
        "limit": _PAGE,
        "max_items": _MAX_SCENES,
    }
    if spec.dates is not None:
        query["datetime"] = "/".join(day.isoformat() for day in spec.dates)
    if spec.max_cloud is not None and client.conforms_to("QUERY"):
        query["query"] = {"eo:cloud_cover": {"lte": spec.max_cloud}}
    if client.conforms_to("SORT"):
        key = "+properties.eo:cloud_cover" if spec.classes else "-properties.datetime"
        query["sortby"] = [key]
    return query


def _usable(items: list[pystac.Item], spec: StacImagery, area: Area, *, host: str) -> list[Scene]:
    """The scenes that can be read and meet the area, in order of preference.

    Raises:
        UnavailableError: there is none.
    """
    scenes: list[Scene] = []
    problems: Counter[str] = Counter()
    for item in items:
        found = _scene(item, spec)
        if isinstance(found, str):
            problems[found] += 1
        elif found.footprint.intersects(area) and not _too_cloudy(found, spec):
            scenes.append(found)
    if not scenes:
        reason = f" ({problems.most_common(1)[0][0]})" if problems else ""
        raise UnavailableError(
            f"{host} has no scene of {_asked(spec)} for this area that can be used{reason}; try "
            "other dates or another source"
        )
    newest_first = sorted(sorted(scenes, key=lambda s: s.name), key=lambda s: s.day, reverse=True)
    return sorted(newest_first, key=lambda s: s.cloud) if spec.classes else newest_first


def _too_cloudy(scene: Scene, spec: StacImagery) -> bool:
    return spec.max_cloud is not None and scene.cloud > spec.max_cloud


def _scene(item: pystac.Item, spec: StacImagery) -> Scene | str:
    """The scene of an item, or what is missing of it."""
    wanted = (*spec.assets, *filter(None, [spec.classes]))
    missing = [name for name in wanted if name not in item.assets]
    if missing:
        return f"they have no asset {missing[0]}, but {', '.join(sorted(item.assets)) or 'none'}"
    addresses = [item.assets[name].get_absolute_href() or "" for name in wanted]
    for address in addresses:
        if urlsplit(address).scheme not in ("http", "https"):
            return "their files cannot be had over https without an account"
    when = item.datetime or item.common_metadata.start_datetime
    footprint = _footprint(item.geometry)
    if when is None or footprint is None:
        return "they have no date or no footprint"
    cloud = item.properties.get("eo:cloud_cover")
    return Scene(
        name=item.id,
        day=when.date().isoformat(),
        cloud=float(cloud) if isinstance(cloud, int | float) else 0.0,
        footprint=footprint,
        assets=tuple(addresses[: len(spec.assets)]),
        classes=addresses[-1] if spec.classes else None,
    )


def _footprint(geometry: dict[str, Any] | None) -> BaseGeometry | None:
    """The polygon of an item; None where it has no valid one."""
    try:
        footprint = shapely.make_valid(shape(geometry or {}))
    except (shapely.errors.ShapelyError, ValueError, TypeError, KeyError, AttributeError):
        return None
    sound = not footprint.is_empty and np.isfinite(footprint.bounds).all()
    return footprint if sound else None


def _credit(client: Client, name: str, *, host: str) -> Credit:
    """What a collection says of its licence and of those who made it.

    Raises:
        UnavailableError: there is no such collection.
    """
    try:
        collection = client.get_collection(name)
    except NotFoundError:
        collection = None
    if collection is None:
        known = sorted(found.id for found in client.get_collections())
        near = get_close_matches(name, known, n=5, cutoff=0.3) or known[:5]
        raise UnavailableError(f"{host} has no collection {name}; it has e.g. {', '.join(near)}")
    providers = [provider.name for provider in collection.providers or []]
    return Credit(collection.title or name, collection.license, ", ".join(providers) or None)


def _asked(spec: StacImagery) -> str:
    """The search in words."""
    words = spec.collection
    if spec.dates is not None:
        words += f" between {spec.dates[0]} and {spec.dates[1]}"
    if spec.max_cloud is not None:
        words += f" with at most {spec.max_cloud:g} % clouds"
    return words


@contextmanager
def _wrong_answers_named(host: str) -> Iterator[None]:
    """Turn whatever pystac makes of an answer that is not STAC into one sentence."""
    try:
        with warnings.catch_warnings():
            # What a catalogue does not conform to is not asked of it.
            warnings.simplefilter("ignore", PystacClientWarning)
            yield
    except UnavailableError:
        raise
    except _WRONG_ANSWERS as error:
        raise UnavailableError(
            f"{host} does not answer as a STAC catalogue with search ({type(error).__name__}); "
            "check its address"
        ) from error


class _NetworkIO(StacApiIO):
    """pystac-client's requests, made through our network: its patience, its errors."""

    def __init__(self, network: Network, what: str) -> None:
        super().__init__(max_retries=None)
        self._network, self._what = network, what

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text that an address answers."""
        options: dict[str, Any] = {"params": parameters, "headers": headers}
        if method == "POST":
            kind = {"Content-Type": "application/json"}
            options = {"data": json.dumps(parameters), "headers": {**(headers or {}), **kind}}
        with self._network.open(
            href, what=self._what, method=method or "GET", **options
        ) as response:
            return response.content.decode("utf-8")
