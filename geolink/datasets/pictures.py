"""Pictures as pixels or class numbers, and the OSM objects that a sidecar places in them."""

import copy
from pathlib import Path
from typing import Protocol, Self

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from pyproj import Geod
from torch_geometric.data import HeteroData

from geolink.datasets.base import OsmChange
from geolink.errors import InputError
from geolink.grid import Bounds, utm_crs
from geolink.sources.base import SourceInfo
from geolink.sources.entities import ENTITY_TYPES, OsmEntities
from geolink.sources.picture_pairs import PicturePairs, read_sidecar
from geolink.sources.shard_files import TileObjects
from geolink.tile_graphs import TileGraphs

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})
_EARTH = Geod(ellps="WGS84")
_FORMATS = ("JPEG", "PNG", "TIFF")


class GraphsOfPictures(Protocol):
    """Finds the OSM objects of pictures."""

    def build(self, picture: Path) -> HeteroData | None:
        """The graph of a picture, None where nothing says what OSM knows of it."""
        ...

    def disturbed(self, change: OsmChange) -> Self:
        """The graphs of objects that something has changed."""
        ...


class PictureGraphs:
    """Finds the OSM objects of pictures with a bounding box beside them (see `PicturePairs`).

    Args:
        graphs: builds graphs.
        folder: where the pictures lie; also in folders below.
        osm: an extract or vector file; None takes the files beside each picture.
    """

    _change: OsmChange | None = None

    def __init__(self, graphs: TileGraphs, folder: Path, osm: Path | None = None) -> None:
        names = tuple(path.relative_to(folder).as_posix() for path in picture_paths(folder))
        self._pairs = PicturePairs(folder, names, osm)
        self._graphs = graphs

    def build(self, picture: Path) -> HeteroData | None:
        """The graph of a picture, None where nothing says what OSM knows of it."""
        sidecar = read_sidecar(picture)
        if sidecar is None:
            return None
        objects = self._pairs.objects(picture, sidecar.bounds)
        if objects is not None and self._change is not None:
            # Files beside pictures name their objects each on its own.
            where = "" if self._pairs.osm else picture.stem
            objects = _changed(objects, sidecar.bounds, self._change, where)
        return None if objects is None else self._graphs.build(objects)

    def disturbed(self, change: OsmChange) -> Self:
        """The graphs of objects that something has changed, in metres on the ground."""
        other = copy.copy(self)
        other._change = change
        return other


def _changed(objects: TileObjects, bounds: Bounds, change: OsmChange, where: str) -> TileObjects:
    """The objects of a picture with its bounds in degrees, after a change that is in metres."""
    x, y = (bounds.west + bounds.east) / 2, (bounds.south + bounds.north) / 2
    zone = utm_crs(x, y)
    ends = [bounds.west, x], [y, bounds.south], [bounds.east, x], [y, bounds.north]
    side = _EARTH.inv(*ends)[2]  # width and height in metres
    shapes = shapely.transform(objects.geometry, lambda xy: xy * side)
    columns = {"osm_id": objects.ids, "tags": np.array(objects.tags, object)}
    frame = gpd.GeoDataFrame(columns, geometry=shapes, crs=zone)
    dimensions = shapely.get_dimensions(shapes)
    frames = {
        kind: frame[dimensions == i].reset_index(drop=True) for i, kind in enumerate(ENTITY_TYPES)
    }
    changed = change.entities(OsmEntities(**frames, info=SourceInfo("picture")), where)
    parts = [changed.frame(kind) for kind in ENTITY_TYPES]
    geometry = np.concatenate([part.geometry.to_numpy() for part in parts])
    return TileObjects(
        shapely.transform(geometry, lambda xy: xy / side),
        np.concatenate([part["osm_id"].to_numpy(object) for part in parts]),
        [tags for part in parts for tags in part["tags"]],
    )


def picture_paths(folder: Path) -> list[Path]:
    """The pictures below a folder, by name."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return sorted(path for path in found if not path.name.startswith("."))


def rgb_picture(path: Path, side: int) -> NDArray[np.uint8]:
    """(3, side, side) pixels of a picture, resampled smoothly where its size is another.

    Raises:
        InputError: the file is no picture, damaged, or not of 8 bits.
    """
    picture = _opened(path)
    if picture.mode.startswith(("I", "F")):
        raise InputError(
            f"{path} has more than 8 bits per pixel ({picture.mode}); save it as 8-bit RGB"
        )
    picture = picture.convert("RGB")
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.uint8).transpose(2, 0, 1)


def class_picture(path: Path, side: int) -> NDArray[np.uint8]:
    """(side, side) class numbers of a picture with one band or a palette, by the nearest pixel.

    Raises:
        InputError: the file is no picture, damaged, or has colours instead of numbers.
    """
    picture = _opened(path)
    if picture.mode not in ("1", "L", "P"):
        raise InputError(
            f"{path} has colours ({picture.mode}) where class numbers are expected; save it with "
            "one band of 8 bits"
        )
    if picture.mode == "1":
        picture = picture.convert("L")
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(picture, np.uint8)


def _opened(path: Path) -> Image.Image:
    """A picture with its pixels read."""
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            picture.load()
            return picture.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable picture ({error}); replace it") from error
