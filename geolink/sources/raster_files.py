"""Raster files as they are opened and laid on the ground, before any pixel is read."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio import DatasetReader
from shapely.affinity import translate

from geolink.errors import CoverageError, CRSError, InputError
from geolink.grid import WGS84, GridSpec

REMOTE = "/vsicurl/"  # before the address of a file that GDAL reads over HTTP
_SAME_GSD = 1.002  # ground distances differ by this much between neighbouring UTM zones
_EDGE_STEPS = 21  # pieces that an edge is cut into, to follow its curve

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RasterFile:
    """What must be known of a raster to read it.

    Attributes:
        path: as GDAL opens it.
        crs: the raster's CRS.
        transform: pixel (column, row) to `crs`.
        height, width: pixels.
        bands: one-based indexes of those to read: red, green and blue for imagery.
        alpha: one-based index of the alpha band, None where there is none.
        count: number of bands.
        dtype: of these bands.
        nodata: value of missing pixels; NaN where floats have neither it nor a mask.
        overviews: reduction of each overview, growing.
        steps_m: ground length of one column step and one row step at the centre, metres.
        gsd: side of the square with the area of the centre pixel, metres.
    """

    path: str
    crs: CRS
    transform: Affine
    height: int
    width: int
    bands: tuple[int, ...]
    alpha: int | None
    count: int
    dtype: str
    nodata: float | None
    overviews: tuple[int, ...]
    steps_m: tuple[float, float]
    gsd: float

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return raster_name(self.path)

    def overview_for(self, gsd: float) -> tuple[int | None, float]:
        """The coarsest overview that is still as fine as `gsd`, and its reduction (1: none)."""
        finest = gsd / self.gsd * _SAME_GSD
        fitting = [i for i, factor in enumerate(self.overviews) if factor <= finest]
        return (fitting[-1], float(self.overviews[fitting[-1]])) if fitting else (None, 1.0)

    def meets(self, grid: GridSpec) -> bool:
        """False only where no pixel of `grid` can lie in the raster."""
        x, y = transformer(grid.crs, self.crs).transform(*edge_of(grid))
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return True
        cols, rows = apply_affine(~self.transform, x, y)
        return bool(
            cols.min() < self.width
            and cols.max() > 0
            and rows.min() < self.height
            and rows.max() > 0
        )


def raster_name(path: str) -> str:
    """The file's name of a path or address, without the signature that an address may end in."""
    return Path(path.partition("?")[0]).name


def open_raster(path: str, overview_level: int | None = None) -> DatasetReader:
    """An open rasterio dataset, shared with nobody.

    What a server sends is opened as GeoTIFF and as nothing else: a VRT from outside could name
    files on this machine.
    """
    options = {} if overview_level is None else {"overview_level": overview_level}
    driver = "GTiff" if path.startswith(REMOTE) else None
    return rasterio.open(path, sharing=False, driver=driver, **options)


@contextmanager
def read_errors_named(name: str) -> Iterator[None]:
    """GDAL's errors as one sentence that names the file."""
    try:
        yield
    except (rasterio.errors.RasterioError, UnicodeDecodeError) as error:
        raise InputError(
            f"{name} cannot be read as a raster; it may be truncated or damaged, "
            f"so copy it again ({error.__cause__ or error})"
        ) from error


@lru_cache(maxsize=256)
def transformer(source: CRS, target: CRS) -> Transformer:
    """A transformer with x before y on both sides; making one is slow."""
    return Transformer.from_crs(source, target, always_xy=True)


def apply_affine(transform: Affine, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """An affine transformation of coordinates, element by element."""
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )


def edge_of(area: GridSpec | RasterFile) -> tuple[Floats, Floats]:
    """(x, y) along the closed edge of a grid or raster, in its CRS."""
    outline = shapely.segmentize(shapely.box(0.0, 0.0, 1.0, 1.0), 1.0 / _EDGE_STEPS)
    cols, rows = shapely.get_coordinates(outline).T
    return apply_affine(area.transform, cols * area.width, rows * area.height)


def footprint_of(raster: RasterFile) -> shapely.Geometry:
    """Extent in EPSG:4326, cut in two at the antimeridian where it crosses it."""
    lon, lat = transformer(raster.crs, WGS84).transform(*edge_of(raster))
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        raise CRSError(
            f"the edges of {raster.name} leave the area of {raster.crs.name}; cut the raster "
            "with gdalwarp -te"
        )
    lon = np.unwrap(lon, period=360.0)
    if abs(lon[-1] - lon[0]) > 1.0:
        raise CoverageError(f"{raster.name} goes around a pole; cut it with gdalwarp -te")
    lon -= 360.0 * math.floor((lon.mean() + 180.0) / 360.0)
    outline = shapely.Polygon(np.column_stack([lon, lat]))
    if not outline.is_valid:
        raise CRSError(
            f"the edges of {raster.name} fold over one another on the ground, so its position is "
            "wrong; give it another with gdal_edit -a_ullr"
        )
    worlds = [
        translate(outline.intersection(shapely.box(shift - 180, -90, shift + 180, 90)), -shift)
        for shift in (-360, 0, 360)
    ]
    return shapely.union_all(worlds)
