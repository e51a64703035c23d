"""GeoTIFFs made in code, with everything that a raster can say of itself."""

from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.enums import ColorInterp, Resampling

from geolink.grid import GridSpec

UTM35 = CRS.from_epsg(32635)
WEST, NORTH = 385_000.0, 6_672_000.0
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
RGBA = (*RGB, ColorInterp.alpha)


def north_up(west: float, north: float, width: float, height: float) -> Affine:
    return Affine(width, 0, west, 0, -height, north)


def write_raster(
    path: Path,
    data: NDArray[np.generic],
    *,
    crs: str | None = "EPSG:32635",
    transform: Affine | None = None,
    colours: tuple[ColorInterp, ...] | None = None,
    tags: dict[str, str] | None = None,
    overviews: tuple[int, ...] = (),
    mask: NDArray[np.bool_] | None = None,
    **profile: object,
) -> Path:
    count, height, width = data.shape
    if transform is None:
        transform = north_up(WEST, NORTH, 1.0, 1.0)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            crs=crs,
            transform=transform,
            count=count,
            height=height,
            width=width,
            dtype=data.dtype,
            **profile,
        ) as dataset,
    ):
        dataset.write(data)
        if colours:
            dataset.colorinterp = colours
        if tags:
            dataset.update_tags(**tags)
        if mask is not None:
            dataset.write_mask(mask)
        if overviews:
            dataset.build_overviews(overviews, Resampling.average)
    return path


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 255, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    row, col = np.mgrid[:height, :width]
    return np.stack([row % 200 + 20, col % 200 + 20, (row + col) % 200 + 20]).astype(np.uint8)


def grid_at(
    *, row: float = 0, col: float = 0, height: int, width: int, gsd: float = 1.0
) -> GridSpec:
    return GridSpec(UTM35, WEST + col, NORTH - row, gsd, height, width)
