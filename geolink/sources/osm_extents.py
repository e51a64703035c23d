"""Where OSM files lie, and which of several covers an image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from pyproj.exceptions import CRSError as ProjCRSError

from geolink.errors import InputError
from geolink.grid import WGS84, Bounds, reproject_bounds
from geolink.sources.pbf import extract_bounds


def osm_extent(path: Path) -> Bounds:
    """The area of an extract or a vector file, in degrees.

    Raises:
        InputError: the file is missing, is none of both, or has no objects.
    """
    if path.name.endswith(".pbf"):
        return extract_bounds(path)
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        found = [pyogrio.read_info(path, layer=name, force_total_bounds=True) for name in layers]
        extents = [
            reproject_bounds(Bounds(*info["total_bounds"]), CRS.from_user_input(info["crs"]), WGS84)
            for info in found
            if info["features"] and info["crs"] is not None
        ]
    except (DataSourceError, DataLayerError, ProjCRSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not a vector file that GDAL can read, or is damaged; give an .osm.pbf, "
            "GeoPackage, GeoJSON, FlatGeobuf or shapefile"
        ) from error
    if not extents:
        raise InputError(f"{path} has no objects with a place on earth; export it again")
    return rectangle_around(extents)


def rectangle_around(parts: Sequence[Bounds]) -> Bounds:
    """The smallest rectangle around several."""
    edges = np.array(parts)
    return Bounds(*edges[:, :2].min(axis=0).tolist(), *edges[:, 2:].max(axis=0).tolist())


def best_covering(area: Bounds, extents: Sequence[Bounds]) -> int | None:
    """Which of several extents has most of an area in it; None where none has any of it."""
    shares = [_common(area, extent) for extent in extents]
    best = int(np.argmax(shares))
    return best if shares[best] > 0 else None


def _common(one: Bounds, other: Bounds) -> float:
    """The area of what two rectangles have in common."""
    width = min(one.east, other.east) - max(one.west, other.west)
    height = min(one.north, other.north) - max(one.south, other.south)
    return max(width, 0.0) * max(height, 0.0)
