"""The OSM extracts that can be downloaded: BBBike's cities and Geofabrik's regions.

The catalogue is the pair of indexes that pyrosm ships, so that names and areas are known offline.
"""

import gzip
import json
import os
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import shapely
from pyproj import Geod
from shapely.geometry import shape

from geolink.errors import ConfigError, UnavailableError
from geolink.sources.base import Area

Provider = Literal["BBBike", "Geofabrik"]

# Nobody waits for a continent to map a town that lies on its inner borders.
_LARGEST_BYTES = 7 * 10**9

_ELLIPSOID = Geod(ellps="WGS84")

# English names of cities that the catalogue lists under another one.
_ENGLISH = MappingProxyType(
    {
        "antwerp": "antwerpen",
        "bruges": "bruegge",
        "brussels": "bruessel",
        "cologne": "koeln",
        "damascus": "damaskus",
        "dusseldorf": "duesseldorf",
        "geneva": "genf",
        "ghent": "gent",
        "gothenburg": "goeteborg",
        "hanover": "hannover",
        "hochiminhcity": "saigon",
        "krakow": "cracow",
        "kyiv": "kiew",
        "malmo": "malmoe",
        "mumbai": "bombay",
        "munich": "muenchen",
        "nuremberg": "nuernberg",
        "prague": "prag",
        "saintpetersburg": "sanktpetersburg",
        "sarajevo": "sarajewo",
        "strasbourg": "strassburg",
        "thehague": "denhaag",
        "ulaanbaatar": "ulanbator",
        "vienna": "wien",
        "zurich": "zuerich",
    }
)


@dataclass(frozen=True)
class Extract:
    """An OSM extract of the catalogue, known but not necessarily here.

    Attributes:
        name: as the provider spells it.
        provider: who cuts and serves it.
        url: where it can be downloaded.
        outline: its extent as the catalogue draws it, GeoJSON.
        size_bytes: size of the download when the catalogue was made, None where unknown.
    """

    name: str
    provider: Provider
    url: str
    outline: dict[str, Any] = field(repr=False, compare=False)
    size_bytes: int | None = None

    @cached_property
    def area(self) -> Area:
        """Its extent, EPSG:4326; made when it is asked for, since most never are."""
        return cast(Area, shapely.make_valid(shape(self.outline), method="structure"))

    @property
    def address(self) -> str:
        """Where it is downloaded from: its `url`, or the mirror that GEOLINK_OSM_MIRROR names.

        Raises:
            ConfigError: the mirror is no address.
        """
        mirror = os.environ.get("GEOLINK_OSM_MIRROR", "").rstrip("/")
        if not mirror:
            return self.url
        if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
            raise ConfigError(
                f"GEOLINK_OSM_MIRROR is {mirror!r}; it must be an address such as "
                "https://mirror.example.org"
            )
        return mirror + urlsplit(self.url).path

    @property
    def title(self) -> str:
        """The name with what tells it from others of that name, e.g. `Georgia, US`."""
        return f"{self.name}, {self.qualifiers[-1]}"

    @cached_property
    def qualifiers(self) -> tuple[str, ...]:
        """What may follow the name: the provider of a city, the larger regions of a region."""
        if self.provider == "BBBike":
            return (self.provider,)
        folders = urlsplit(self.url).path.split("/")[1:-1]
        return tuple(
            part.upper() if len(part) < 3 else part.replace("-", " ").title() for part in folders
        ) or (self.provider,)

    @cached_property
    def area_km2(self) -> float:
        """Size of the extent on the ellipsoid."""
        return abs(float(_ELLIPSOID.geometry_area_perimeter(self.area)[0])) / 1e6


@lru_cache(maxsize=1)
def catalogue() -> tuple[Extract, ...]:
    """All extracts that are known offline: BBBike's cities, then Geofabrik's regions."""
    return (
        *_read_index("bbbike_index.geojson.gz", "BBBike"),
        *_read_index("geofabrik_index.geojson.gz", "Geofabrik"),
    )


def covering_extract(area: Area) -> Extract:
    """The smallest extract of the catalogue that covers an area.

    Smallest by the size of the download; where one of the candidates does not tell its size, by
    the size of the extent.

    Args:
        area: in EPSG:4326.

    Raises:
        UnavailableError: no extract short of a continent covers the area.
    """
    around = shapely.box(*area.bounds)
    found = [
        extract
        for extract in catalogue()
        if (extract.size_bytes or 0) <= _LARGEST_BYTES
        and shapely.box(*extract.area.bounds).covers(around)
        and extract.area.covers(area)
    ]
    if not found:
        lon, lat = area.centroid.x, area.centroid.y
        raise UnavailableError(
            f"no OSM extract of one country or city covers the area around {lat:.3f}, {lon:.3f} "
            "(latitude, longitude); give one with --osm FILE.osm.pbf, or --osm overpass for a "
            "small area"
        )
    if any(extract.size_bytes is None for extract in found):
        return min(found, key=lambda extract: extract.area_km2)
    return min(found, key=lambda extract: extract.size_bytes or 0)


def extract_called(name: str) -> Extract | None:
    """The extract with a name, None where there is none.

    Spelling is taken lightly: case, spaces and accents do not matter, the English names of cities
    listed in another language are known, and the larger region may follow (`Georgia, US`). Of a
    city and the region around it with the same name, it is the city.

    Raises:
        ConfigError: several places that lie apart have this name; they are listed.
    """
    key = name_key(name)
    found = _by_key().get(_ENGLISH.get(key, key), [])
    apart = [extract for extract in found if not extract.area.intersects(found[0].area)]
    if apart:
        titles = [f"{extract.title!r}" for extract in (found[0], *apart)]
        raise ConfigError(
            f"several places of the catalogue are called {name!r}; "
            f"write {', '.join(titles[:-1])} or {titles[-1]}"
        )
    return found[0] if found else None


def near_names(name: str, *others: str) -> list[str]:
    """Up to three names of the catalogue, or of `others`, that are spelled nearly like `name`."""
    spelled = {name_key(other): other for other in others}
    spelled |= {english: english.title() for english in _ENGLISH}
    for extract in catalogue():
        spelled.setdefault(name_key(extract.name), extract.name)
    return [spelled[key] for key in get_close_matches(name_key(name), spelled, n=3)]


def name_key(name: str) -> str:
    """A name without case, accents, and anything but letters and digits."""
    spelled = name.casefold()
    for umlaut, letters in (("ä", "ae"), ("ö", "oe"), ("ü", "ue")):
        spelled = unicodedata.normalize("NFC", spelled).replace(umlaut, letters)
    return re.sub(r"[\W_\u0300-\u036f]+", "", unicodedata.normalize("NFKD", spelled))


def _read_index(file: str, provider: Provider) -> list[Extract]:
    """The extracts of one of the indexes that pyrosm ships."""
    packed = resources.files("pyrosm.data").joinpath(file).read_bytes()
    features = json.loads(gzip.decompress(packed))["features"]
    return [
        Extract(
            name=feature["properties"]["name"],
            provider=provider,
            url=feature["properties"]["pbf"],
            outline=feature["geometry"],
            size_bytes=feature["properties"].get("bytes"),
        )
        for feature in features
    ]


@lru_cache(maxsize=1)
def _by_key() -> dict[str, list[Extract]]:
    """Extracts by their simplified name, alone and with each of its qualifiers; cities first."""
    named: dict[str, list[Extract]] = defaultdict(list)
    for extract in catalogue():
        for name in (extract.name, *(f"{extract.name} {more}" for more in extract.qualifiers)):
            named[name_key(name)].append(extract)
    return dict(named)
