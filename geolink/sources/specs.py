"""What a user can name as imagery, parsed: one frozen record for each kind of source."""

import os
import string
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from geolink.errors import ConfigError

SENTINEL2 = "sentinel2"
SIMULATED = "simulated"

Dates = tuple[date, date]  # the first and the last day

# Public catalogue of Sentinel-2 scenes as cloud-optimised files, open without a key.
_CATALOGUE = "https://earth-search.aws.element84.com/v1"
_COLLECTION, _COLOURS, _CLASSES = "sentinel-2-l2a", "visual", "scl"
_CLOUDIEST = 80.0  # per cent; above, what little is clear is mostly haze and shadow
_DEEPEST_ZOOM = 23  # 2 cm at the equator


@dataclass(frozen=True)
class LocalImagery:
    """A raster, VRT or folder of rasters."""

    path: Path


@dataclass(frozen=True)
class Simulated:
    """An orthophoto rendered from OSM."""


@dataclass(frozen=True)
class StacImagery:
    """Scenes of a STAC catalogue, laid over one another.

    Attributes:
        url: the catalogue's landing page.
        collection: id of the collection.
        assets: one asset with red, green and blue, or three with one band each.
        dates: the days that scenes may be from; None for all.
        max_cloud: scenes with more clouds are left out, per cent; None for all.
        classes: asset with the classes of Sentinel-2's scene classification, by which clear
            pixels are told; None where every valid pixel counts as clear.
    """

    url: str
    collection: str
    assets: tuple[str, ...]
    dates: Dates | None = None
    max_cloud: float | None = None
    classes: str | None = None


@dataclass(frozen=True)
class XyzImagery:
    """Tiles of a web map server, in web mercator.

    Attributes:
        template: address of a tile, with {z}, {x} and {y} or {-y}, and perhaps {s}.
        zoom: level of the finest tiles to read.
    """

    template: str
    zoom: int


ImagerySpec = LocalImagery | Simulated | StacImagery | XyzImagery
RemoteImagery = StacImagery | XyzImagery


def parse_imagery(spec: str | Path) -> ImagerySpec:
    """The source that a specification names.

    Args:
        spec: path of a raster, VRT or folder; `simulated`; `sentinel2[:START/END]`;
            `stac:URL#COLLECTION/ASSETS`; or `xyz:URL_TEMPLATE@ZOOM`. Sentinel-2 comes from the
            catalogue that `GEOLINK_STAC_URL` names, where it is set.

    Raises:
        ConfigError: the specification is not complete, or contradicts itself.
    """
    text = str(spec)
    kind, colon, rest = text.partition(":")
    if text == SIMULATED:
        return Simulated()
    if kind == SENTINEL2:
        return _sentinel2(rest, spec=text)
    if kind + colon == "stac:":
        return _stac(rest, spec=text)
    if kind + colon == "xyz:":
        return _xyz(rest, spec=text)
    if kind + colon in ("http:", "https:"):
        raise ConfigError(
            f"imagery {text} is an address; download the file and give its path, or write "
            "stac:URL#COLLECTION/ASSETS or xyz:URL_TEMPLATE@ZOOM"
        )
    if not text.strip():
        raise ConfigError(
            "the imagery has no name; give a file, sentinel2, stac:, xyz: or simulated"
        )
    return LocalImagery(Path(spec))


def _sentinel2(dates: str, *, spec: str) -> StacImagery:
    if spec.endswith(":"):
        raise ConfigError(f"imagery {spec!r} has no dates; write {SENTINEL2}, or add START/END")
    url = os.environ.get("GEOLINK_STAC_URL") or _CATALOGUE
    return StacImagery(
        _web_address(url, named="GEOLINK_STAC_URL"),
        _COLLECTION,
        (_COLOURS,),
        dates=_span(dates, spec=spec) if dates else None,
        max_cloud=_CLOUDIEST,
        classes=_CLASSES,
    )


def _span(text: str, *, spec: str) -> Dates:
    """The two days of `START/END`."""
    try:
        first, last = (date.fromisoformat(part) for part in text.split("/"))
    except ValueError as error:
        raise ConfigError(
            f"imagery {spec} needs two dates, e.g. {SENTINEL2}:2025-05-01/2025-09-30"
        ) from error
    if first > last:
        raise ConfigError(f"imagery {spec} ends before it starts; write START/END")
    return first, last


def _stac(rest: str, *, spec: str) -> StacImagery:
    url, _, layers = rest.rpartition("#")
    collection, _, listed = layers.rpartition("/")
    assets = tuple(name.strip() for name in listed.split(","))
    if not (url and collection and all(assets)):
        raise ConfigError(
            f"imagery {spec} is not complete; write stac:URL#COLLECTION/ASSETS, e.g. "
            "stac:https://host/v1#naip/image"
        )
    if len(assets) not in (1, 3):
        raise ConfigError(
            f"imagery {spec} names {len(assets)} assets; name one that holds RGB, or three: "
            "red,green,blue"
        )
    return StacImagery(_web_address(url, named=f"imagery {spec}"), collection, assets)


def _xyz(rest: str, *, spec: str) -> XyzImagery:
    template, _, zoom = rest.rpartition("@")
    if not (zoom.isdecimal() and int(zoom) <= _DEEPEST_ZOOM):
        raise ConfigError(
            f"imagery {spec} needs a zoom level from 0 to {_DEEPEST_ZOOM} at its end, e.g. "
            "xyz:https://host/{z}/{x}/{y}.png@17"
        )
    _check_fields(template, spec=spec)
    return XyzImagery(_web_address(template, named=f"imagery {spec}"), int(zoom))


def _check_fields(template: str, *, spec: str) -> None:
    """A tile's address must depend on its level, column and row, and on nothing unknown."""
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigError(f"imagery {spec} has a brace without its partner") from error
    unknown = fields - {"z", "x", "y", "-y", "s"}
    if unknown:
        raise ConfigError(
            f"imagery {spec} has the unknown field {{{min(unknown)}}}; use {{z}}, {{x}}, {{y}} or "
            "{-y}, and {s}"
        )
    if not {"z", "x"} <= fields or len(fields & {"y", "-y"}) != 1:
        raise ConfigError(f"imagery {spec} must contain {{z}}, {{x}} and one of {{y}} and {{-y}}")


def _web_address(url: str, *, named: str) -> str:
    """The address, checked to be one of the web."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(f"{named} must hold a web address (https://...), got {url!r}")
    return url
