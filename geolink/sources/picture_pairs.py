"""Pretraining pairs of published pictures, each with a bounding box and its OSM beside it."""

import io
import json
import math
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS, Geod

from geolink.errors import InputError
from geolink.grid import WGS84, Bounds, reproject_bounds, utm_crs
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.candidates import Filters, Provenance, Rejection, sample_key
from geolink.sources.osm import ATTRIBUTION, LICENCE, read_osm
from geolink.sources.osm_extents import rectangle_around
from geolink.sources.shard_files import TileObjects, TileSample
from geolink.sources.tile_objects import ObjectIndex

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_VECTOR_ENDINGS = (".geojson", "_point.geojson", "_line.geojson", "_polygon.geojson")
_EARTH = Geod(ellps="WGS84")
_LAYOUTS = {"PNG": "png", "JPEG": "jpg"}


@dataclass(frozen=True)
class Sidecar:
    """What lies beside a picture: its extent in degrees, and its date where it is known."""

    bounds: Bounds
    date: str | None


@dataclass(frozen=True)
class PicturePairs:
    """Pictures with a bounding box beside them, as SkyScript publishes them.

    Beside `NAME.jpg` (or `.png`) lies `NAME.json` with `bbox`: west, south, east, north in degrees.
    OSM comes from an extract, or from the files beside it: `NAME.geojson`, or `NAME_point.geojson`,
    `NAME_line.geojson` and `NAME_polygon.geojson`. Pictures are kept whole, in their size.

    Attributes:
        folder: where they lie; also in folders below.
        names: paths of the pictures in it.
        osm: an extract or vector file; None takes the files beside each picture.
    """

    folder: Path
    names: tuple[str, ...]
    osm: Path | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def files(self) -> list[Path]:
        """The pictures, their bounding boxes, and the extract."""
        pictures = [self.folder / name for name in self.names]
        beside = [picture.with_suffix(".json") for picture in pictures]
        return pictures + beside + ([] if self.osm is None else [self.osm])

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int, filters: Filters) -> TileSample | Rejection:
        """One picture."""
        path = self.folder / self.names[number]
        sidecar = read_sidecar(path)
        if sidecar is None:
            return Rejection("no usable bounding box")
        bounds = sidecar.bounds
        objects = self.objects(path, bounds)
        if objects is None:
            return Rejection("no OSM file beside the picture")
        if (problem := filters.refuse_objects(objects)) is not None:
            return problem
        image = path.read_bytes()
        rgb, suffix = _decoded(image, path)
        valid = np.ones(rgb.shape[1:], dtype=bool)
        if (problem := filters.refuse_pixels(ImageTile(rgb, valid))) is not None:
            return problem
        meta = {
            "source": self.names[number],
            "date": sidecar.date,
            "simulated": False,
            "gsd": _gsd(bounds, valid.size),
            "crs": WGS84.to_string(),
            "bounds": list(bounds),
        }
        key = sample_key(path.stem, f"{self.name}/{self.names[number]}")
        return TileSample(key, image, suffix, objects, meta)

    def provenance(self) -> Provenance:
        """The names of folder and extract; OSM files beside pictures are taken to be OSM's."""
        osm = f"GeoJSON beside the pictures of {self.name}" if self.osm is None else self.osm.name
        credited = SourceInfo(osm, licence=LICENCE, attribution=ATTRIBUTION)
        return Provenance(SourceInfo(self.name), credited)

    def objects(self, path: Path, bounds: Bounds) -> TileObjects | None:
        """OSM objects in the extent of one picture, None where there is no OSM file for it."""
        zone = _zone(bounds)
        if self.osm is not None:
            return _zone_objects(self, zone).within(bounds)
        files = _vector_files(path)
        if not files:
            return None
        around = reproject_bounds(bounds, WGS84, zone)
        found = [ObjectIndex(read_osm(file, around, crs=zone), WGS84) for file in files]
        return _joined([index.within(bounds) for index in found])


def read_sidecar(picture: Path) -> Sidecar | None:
    """The record beside a picture, None where there is none that can be used."""
    try:
        record = json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))
        bounds = Bounds(*(float(edge) for edge in record["bbox"]))
        west, south, east, north = bounds
        in_range = -180 <= west < east <= 180 and -90 < south < north < 90
        return Sidecar(bounds, _date(record.get("time"))) if in_range else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _date(time: object) -> str | None:
    """An ISO date from [year, month, day, ...]."""
    if not isinstance(time, list):
        return None
    try:
        return date(*time[:3]).isoformat()
    except (TypeError, ValueError):
        return None


def _zone(bounds: Bounds) -> CRS:
    return utm_crs((bounds.west + bounds.east) / 2, (bounds.south + bounds.north) / 2)


@lru_cache(maxsize=2)
def _zone_objects(source: PicturePairs, zone: CRS) -> ObjectIndex:
    """The objects of an extract around all pictures of a source that lie in one UTM zone."""
    assert source.osm is not None
    sidecars = (read_sidecar(source.folder / name) for name in source.names)
    boxes = [side.bounds for side in sidecars if side and _zone(side.bounds) == zone]
    area = reproject_bounds(rectangle_around(boxes), WGS84, zone)
    entities = read_osm(source.osm, area, crs=zone)
    return ObjectIndex(entities, WGS84)


def _vector_files(picture: Path) -> list[Path]:
    named = (picture.with_name(picture.stem + ending) for ending in _VECTOR_ENDINGS)
    return [path for path in named if path.exists()]


def _joined(parts: list[TileObjects]) -> TileObjects:
    return TileObjects(
        np.concatenate([part.geometry for part in parts]),
        np.concatenate([part.ids for part in parts]),
        [tags for part in parts for tags in part.tags],
    )


def _decoded(image: bytes, path: Path) -> tuple[NDArray[np.uint8], str]:
    """(3, H, W) pixels of a picture, and the suffix that its contents ask for."""
    try:
        with Image.open(io.BytesIO(image), formats=tuple(_LAYOUTS)) as picture:
            rgb = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
            return rgb, _LAYOUTS[str(picture.format)]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path.name} is not a readable PNG or JPEG ({error})") from error


def _gsd(bounds: Bounds, pixels: int) -> float:
    """Side of the square with the mean area of a pixel, metres."""
    area, _ = _EARTH.geometry_area_perimeter(shapely.segmentize(shapely.box(*bounds), 0.01))
    return float(f"{math.sqrt(abs(area) / pixels):.3g}")
