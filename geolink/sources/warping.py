"""Rasters warped to metric grids, in fixed blocks of the lattice that a grid is a window of."""

import math
import os
import threading
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio import DatasetReader
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from geolink.grid import GridSpec, PixelWindow
from geolink.sources.raster_files import RasterFile, open_raster, read_errors_named

_BLOCK_SIDE = 256  # pixels; rows and columns of one warped block
_OPEN_FILES = 32  # per thread
TOLERANCE_PX = 1e-3  # error of the approximated transformation, source pixels
_MAX_BILINEAR = 2.0  # beyond this reduction, pixels are averaged


class OpenFiles(threading.local):
    """The open rasters of one thread; a rasterio dataset serves one thread of one process."""

    def __init__(self) -> None:
        self._pid = 0

    def get(self, path: str, overview_level: int | None) -> DatasetReader:
        """The open dataset of a path, at full resolution or as one of its overviews."""
        if self._pid != os.getpid():  # a forked child must not share its parent's files
            self._pid = os.getpid()
            self._open = lru_cache(_OPEN_FILES)(open_raster)
        return self._open(path, overview_level)

    def forget(self) -> None:
        """Closes all: a dataset that failed to read a block answers rubbish for it ever after."""
        self._pid = 0


def lattice_blocks(grid: GridSpec) -> Iterator[tuple[GridSpec, PixelWindow]]:
    """The fixed blocks that meet `grid`, each with its window in the pixels of `grid`.

    Blocks depend only on the lattice: CRS, pixel size, and where between two multiples of the
    pixel size its pixels begin.
    """
    col_off, phase_x = _split(grid.west / grid.gsd)
    row_off, phase_y = _split(-grid.north / grid.gsd)  # rows count southwards
    side = _BLOCK_SIDE
    for row in range(row_off // side * side, row_off + grid.height, side):
        for col in range(col_off // side * side, col_off + grid.width, side):
            west, north = (col + phase_x) * grid.gsd, -(row + phase_y) * grid.gsd
            yield (
                GridSpec(grid.crs, west, north, grid.gsd, side, side),
                PixelWindow(row - row_off, col - col_off, side, side),
            )


def _split(position: float) -> tuple[int, float]:
    """Whole pixels and the rest; float noise is rounded off, so that it cannot matter."""
    position = round(position, 6)
    whole = math.floor(position)
    return whole, round(position - whole, 6)


def warp(
    raster: RasterFile,
    block: GridSpec,
    files: OpenFiles,
    *,
    resampling: Resampling | None = None,
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """One raster's values (bands, height, width) in a block, and where they are valid.

    Args:
        raster: the file.
        block: the pixels wanted.
        files: the open files of the caller.
        resampling: in place of bilinear interpolation or, where pixels shrink, averaging.

    Raises:
        InputError: the file cannot be read, e.g. because it is truncated.
    """
    level, reduction = raster.overview_for(block.gsd)
    # Output pixels per source pixel, fixed so that the kernel is the same in every block.
    scale_x, scale_y = (min(step * reduction / block.gsd, 1.0) for step in raster.steps_m)
    if resampling is None:
        averaged = block.gsd / (raster.gsd * reduction) > _MAX_BILINEAR
        resampling = Resampling.average if averaged else Resampling.bilinear
    with read_errors_named(raster.name):
        dataset = files.get(raster.path, level)
    pixel = dataset.transform
    with (
        read_errors_named(raster.name),
        WarpedVRT(
            dataset,
            src_transform=Affine(
                pixel.a, pixel.b, raster.transform.c, pixel.d, pixel.e, raster.transform.f
            ),
            crs=rasterio.crs.CRS.from_user_input(block.crs),
            transform=block.transform,
            height=block.height,
            width=block.width,
            resampling=resampling,
            tolerance=TOLERANCE_PX,
            src_nodata=raster.nodata,
            add_alpha=raster.alpha is None,
            XSCALE=scale_x,
            YSCALE=scale_y,
        ) as view,
    ):
        data = view.read([*raster.bands, raster.alpha or raster.count + 1])
    return data[:-1], (data[-1] > 0) & np.isfinite(data[:-1]).all(axis=0)
