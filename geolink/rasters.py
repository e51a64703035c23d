"""Class and probability rasters as cloud-optimised GeoTIFFs, written block by block."""

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.features import rasterize
from rasterio.io import DatasetWriter
from shapely import Geometry

from geolink.files import atomic_path, write_errors_named
from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE, Legend
from geolink.mosaic import Blend

# Pixels a side of the blocks in which rasters are made and of the tiles that they are stored in.
BLOCK_SIDE = 1024
_STORED_SIDE = 512
_COG_OPTIONS = {
    "compress": "deflate",
    "blocksize": str(_STORED_SIDE),
    "bigtiff": "if_safer",
    "sparse_ok": "true",
}

# Probabilities are stored as bytes, 250 for certainty, which leaves 255 for "no data".
PROBABILITY_SCALE = 0.004


def write_class_map(
    target: Path,
    grid: GridSpec,
    read: Callable[[PixelWindow], NDArray[np.uint8]],
    *,
    legend: Legend,
    metadata: Mapping[str, str],
    overwrite: bool,
    area: Geometry | None = None,
) -> None:
    """Write one band of class ids with the legend's colours; 255 is "no data".

    Args:
        target: the GeoTIFF to make.
        grid: its pixels.
        read: gives the (height, width) class ids of a window of `grid`.
        legend: classes and colours; also kept as JSON in the tag `LEGEND`.
        metadata: further tags of the file.
        overwrite: replace an existing file.
        area: pixels whose centre lies outside become "no data"; in the grid's CRS.

    Raises:
        OutputError: the target cannot be written, or the disk is full.
    """

    def bands(window: PixelWindow) -> NDArray[np.uint8]:
        classes = read(window)[None]
        return classes if area is None else _masked(classes, area, grid.subgrid(window))

    def describe(raster: DatasetWriter) -> None:
        raster.set_band_description(1, "class")
        raster.write_colormap(1, {c.id: (*c.rgb, 255) for c in legend.classes})
        raster.update_tags(**_tags(metadata, legend))

    options = {"overview_resampling": "mode"}
    _write_cog(target, grid, 1, bands, describe, options=options, overwrite=overwrite)


def keep_classes(
    path: Path, grid: GridSpec, read: Callable[[PixelWindow], NDArray[np.uint8]]
) -> None:
    """Write one band of class ids for further work on them: without colours and overviews.

    Raises:
        OutputError: the file cannot be written, or the disk is full.
    """
    digests: list[int] = []

    def bands(window: PixelWindow) -> NDArray[np.uint8]:
        classes = read(window)[None]
        digests.append(zlib.crc32(classes.tobytes()))
        return classes

    _write_blocks(path, path, grid, 1, bands, lambda raster: None)
    with write_errors_named(path), rasterio.open(path) as raster:
        for window, digest in zip(grid.blocks(BLOCK_SIDE), digests, strict=True):
            rows, cols = ((part.start, part.stop) for part in window.slices)
            if zlib.crc32(raster.read(window=(rows, cols)).tobytes()) != digest:
                raise RasterioIOError("a block differs from what was written")


def write_probabilities(
    target: Path,
    grid: GridSpec,
    read: Callable[[PixelWindow], Blend],
    *,
    legend: Legend,
    metadata: Mapping[str, str],
    overwrite: bool,
    area: Geometry | None = None,
) -> None:
    """Write one band per class: its probability with OSM, in steps of 0.004; 255 is "no data".

    The bands carry their class as name and 0.004 as scale, so that GDAL and QGIS show
    probabilities between 0 and 1. Arguments and errors as in `write_class_map`, but `read` gives
    the blended scores of a window.
    """

    def bands(window: PixelWindow) -> NDArray[np.uint8]:
        block = read(window)
        steps = np.rint(block.scores[0] / PROBABILITY_SCALE).astype(np.uint8)
        steps[:, ~block.valid] = IGNORE
        return steps if area is None else _masked(steps, area, grid.subgrid(window))

    def describe(raster: DatasetWriter) -> None:
        raster.descriptions = legend.names
        raster.scales = (PROBABILITY_SCALE,) * len(legend)
        raster.update_tags(**_tags(metadata, legend))

    options = {"overview_resampling": "average", "predictor": "yes"}
    _write_cog(target, grid, len(legend), bands, describe, options=options, overwrite=overwrite)


def burn(
    geometries: Iterable[Geometry], values: Iterable[int], grid: GridSpec, *, fill: int
) -> NDArray[np.int32]:
    """(height, width) value of the geometry that contains each pixel's centre, else `fill`.

    Later geometries win. Each is cut to the grid first, so that the work follows the part of it
    that is there.
    """
    margin = grid.bounds.buffered(grid.gsd)
    parts = shapely.clip_by_rect(np.asarray(list(geometries), dtype=object), *margin)
    shapes = [(p, v) for p, v in zip(parts, values, strict=True) if not p.is_empty]
    if not shapes:
        return np.full(grid.shape, fill, np.int32)
    burnt: NDArray[np.int32] = rasterize(
        shapes, out_shape=grid.shape, transform=grid.transform, fill=fill, dtype="int32"
    )
    return burnt


def _masked(bands: NDArray[np.uint8], area: Geometry, grid: GridSpec) -> NDArray[np.uint8]:
    """(bands, height, width) with the pixels outside `area` set to "no data"."""
    if (bands == IGNORE).all():
        return bands
    inside = burn([area], [1], grid, fill=0) == 1
    return np.where(inside, bands, np.uint8(IGNORE))


def _tags(metadata: Mapping[str, str], legend: Legend) -> dict[str, str]:
    return {**metadata, "LEGEND": json.dumps(legend.to_dict())}


def _write_cog(
    target: Path,
    grid: GridSpec,
    count: int,
    bands: Callable[[PixelWindow], NDArray[np.uint8]],
    describe: Callable[[DatasetWriter], None],
    *,
    options: Mapping[str, str],
    overwrite: bool,
) -> None:
    """Fill a tiled GeoTIFF block by block, then copy it into the layout of a COG.

    `describe` sets names, colours and tags on the open raster. No array of the whole grid is made.
    """
    with atomic_path(target, overwrite=overwrite) as part:
        spool = part.with_name("blocks.tif")
        filled = _write_blocks(spool, target, grid, count, bands, describe)
        with write_errors_named(target):
            rasterio.shutil.copy(spool, part, driver="COG", **_COG_OPTIONS, **options)
            _compare(spool, part, filled)


def _write_blocks(
    path: Path,
    target: Path,
    grid: GridSpec,
    count: int,
    bands: Callable[[PixelWindow], NDArray[np.uint8]],
    describe: Callable[[DatasetWriter], None],
) -> list[PixelWindow]:
    """Fill a tiled GeoTIFF; blocks without data take no room. Errors name `target`.

    Returns:
        The blocks with data.
    """
    filled: list[PixelWindow] = []
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": count,
        "height": grid.height,
        "width": grid.width,
        "crs": grid.crs.to_wkt(),
        "transform": grid.transform,
        "nodata": IGNORE,
        "tiled": True,
        "blockxsize": _STORED_SIDE,
        "blockysize": _STORED_SIDE,
        "compress": "deflate",
        "bigtiff": "if_safer",
        "sparse_ok": True,
    }
    with rasterio.open(path, "w", **profile) as raster:
        describe(raster)
        for window in grid.blocks(BLOCK_SIDE):
            block = bands(window)  # errors of reading are not ours to name
            rows, cols = ((part.start, part.stop) for part in window.slices)
            if (block != IGNORE).any():
                filled.append(window)
                with write_errors_named(target):
                    raster.write(block, window=(rows, cols))
    return filled


def _compare(written: Path, copy: Path, filled: Iterable[PixelWindow]) -> None:
    """Read these blocks of the copy back: a full disk can cut its end off without an error of GDAL.

    A COG keeps the full resolution last, so that the first level to suffer is the one compared.
    """
    with rasterio.open(written) as expected, rasterio.open(copy) as found:
        for window in filled:
            rows, cols = ((part.start, part.stop) for part in window.slices)
            one, two = (raster.read(window=(rows, cols)) for raster in (expected, found))
            if not np.array_equal(one, two):
                raise RasterioIOError("a block differs from what was written")
