"""Imagery from raster files, warped on the fly to a metric grid.

Reading is exact whatever the tile: pixels are warped in fixed blocks of the grid's lattice (the
infinite lattice of pixels that a grid is a window of), and tiles are cut from these blocks. A
pixel therefore has one value, however many tiles share it and in whatever order they are read.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.windows import Window

from geolink.errors import CoverageError, InputError
from geolink.grid import GridSpec, PixelWindow
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.raster_checks import describe
from geolink.sources.raster_files import RasterFile, footprint_of, open_raster, read_errors_named
from geolink.sources.warping import OpenFiles, lattice_blocks, warp

# Files of a folder that are read as rasters.
_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"})

_CACHED_BLOCKS = 128  # 34 MB: two rows of blocks of a scene 16,000 pixels wide
_PERCENTILES = (2.0, 98.0)
_SAMPLE_SIDE = 1024  # pixels; side of the decimated read that scaling is taken from
_SAMPLE_GRID = 8  # windows per side where a raster is too large for a decimated read
_WHOLE_READ_PX = 2**22  # a larger raster without overviews is sampled by windows


class RasterImagery:
    """RGB imagery of one raster, or of several where the first with a valid pixel wins.

    Instances can be shared between threads and sent to other processes.

    Attributes:
        info: where the pixels come from.
        rasters: the files, in order of precedence.
        scale: values that become 0 and 255; None where 8-bit pixels are taken as they are.
        footprint: extent of the rasters in EPSG:4326, in two parts where it crosses the
            antimeridian.
    """

    def __init__(
        self,
        info: SourceInfo,
        rasters: Sequence[RasterFile],
        scale: tuple[float, float] | None = None,
    ) -> None:
        self.info = info
        self.rasters = tuple(rasters)
        self.scale = scale
        self.footprint = shapely.union_all([footprint_of(raster) for raster in self.rasters])
        self._files = OpenFiles()
        self._block: Callable[[GridSpec], ImageTile] = lru_cache(_CACHED_BLOCKS)(self._warp_block)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.info, self.rasters, self.scale)

    @property
    def crs(self) -> CRS:
        """CRS of the first raster."""
        return self.rasters[0].crs

    @property
    def native_gsd(self) -> float:
        """Ground sampling distance of the finest raster at its centre, metres."""
        return min(raster.gsd for raster in self.rasters)

    def read(self, grid: GridSpec) -> ImageTile:
        """Pixels of `grid`; parts without an image are invalid, and 0.

        Finer grids are interpolated bilinearly, coarser ones averaged, from the overview next
        finer than the grid where the file has overviews.

        Raises:
            InputError: a file cannot be read, e.g. because it is truncated.
        """
        tile = _empty_tile(grid)
        for block, window in lattice_blocks(grid):
            shared = window.intersection(grid.window)
            assert shared is not None  # blocks are those that meet the grid
            inner = PixelWindow(
                shared.row_off - window.row_off,
                shared.col_off - window.col_off,
                shared.height,
                shared.width,
            )
            pixels = self._block(block)
            tile.rgb[:, *shared.slices] = pixels.rgb[:, *inner.slices]
            tile.valid[shared.slices] = pixels.valid[inner.slices]
        return tile

    def _warp_block(self, block: GridSpec) -> ImageTile:
        """One block of the lattice, from all rasters."""
        tile = _empty_tile(block)
        for raster in self.rasters:
            if tile.valid.all():
                break
            if raster.meets(block):
                values, valid = warp(raster, block, self._files)
                valid &= ~tile.valid
                tile.rgb[:, valid] = _to_uint8(values[:, valid], self.scale)
                tile.valid[valid] = True
        return tile


def open_imagery(
    path: str | Path,
    *,
    bands: tuple[int, int, int] | None = None,
    scale: tuple[float, float] | None = None,
    info: SourceInfo | None = None,
) -> RasterImagery:
    """Imagery of a raster that GDAL reads, or of a folder of rasters.

    8-bit pixels are taken as they are. Others are scaled to 8 bits, the same way everywhere in
    the scene: the 2nd and 98th percentile of the valid pixels of all three bands together, taken
    from a decimated read, become 0 and 255, so that colours keep their balance.

    Args:
        path: raster, VRT, or folder, whose rasters are laid over one another by name, the
            first on top.
        bands: one-based indexes of red, green and blue; by default the bands that say so.
        scale: values that become 0 and 255, instead of the percentiles.
        info: provenance, instead of what the files say of themselves.

    Raises:
        InputError: no such file, not a raster, damaged, or not RGB.
        CRSError: a raster is not georeferenced.
        CoverageError: no pixel is valid.
    """
    if scale is not None and not (np.isfinite(scale).all() and scale[0] < scale[1]):
        raise InputError(f"the scale must be two growing numbers (low, high), got {scale}")
    if bands is not None and len(bands) != 3:
        raise InputError(f"red, green and blue need three bands, got {bands}")
    source = Path(path)
    paths = _folder_rasters(source) if source.is_dir() else [str(path)]
    records, infos = zip(*(describe(item, bands) for item in paths), strict=True)
    rasters = list(chain.from_iterable(records))
    dtypes = sorted({raster.dtype for raster in rasters})
    if len(dtypes) > 1:
        raise InputError(
            f"the rasters of {source.name} have different data types ({', '.join(dtypes)}); "
            "convert them to one"
        )
    if info is None:
        info = infos[0] if len(infos) == 1 else _joint_info(source.name, infos)
    return RasterImagery(info, rasters, _scene_scale(rasters, scale, name=source.name))


def _folder_rasters(folder: Path) -> list[str]:
    """Paths of the rasters in a folder, by name."""
    found = sorted(item for item in folder.iterdir() if item.suffix.lower() in _SUFFIXES)
    if not found:
        raise InputError(
            f"the folder {folder.name} has no raster; these are looked for: "
            f"{', '.join(sorted(_SUFFIXES))}"
        )
    return [str(item) for item in found]


def _joint_info(name: str, infos: Sequence[SourceInfo]) -> SourceInfo:
    """Provenance of a folder: its name, the latest date, and all credits."""
    dates = [info.date for info in infos if info.date]
    credits = dict.fromkeys(info.attribution for info in infos if info.attribution)
    return SourceInfo(
        description=name, date=max(dates, default=None), attribution="; ".join(credits) or None
    )


def _scene_scale(
    rasters: Sequence[RasterFile], scale: tuple[float, float] | None, *, name: str
) -> tuple[float, float] | None:
    """Values that become 0 and 255; None where 8-bit pixels stay as they are."""
    side = max(_SAMPLE_SIDE // math.isqrt(len(rasters)), _SAMPLE_GRID)
    samples = (values for raster in rasters for values in _sample(raster, side) if values.size)
    first = next(samples, None)
    if first is None:
        raise CoverageError(
            f"no valid pixel was found in {name}: those looked at are nodata, NaN or transparent; "
            "check the file, or build overviews with gdaladdo if little of it holds data"
        )
    if scale is not None or rasters[0].dtype == "uint8":
        return scale
    low, high = np.percentile(np.concatenate([first, *samples]), _PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1.0


def _sample(raster: RasterFile, side: int) -> Iterator[NDArray[np.float64]]:
    """Valid values of all three bands, from at most about `side` by `side` pixels."""
    with read_errors_named(raster.name), open_raster(raster.path) as dataset:
        for window, shape in _sample_windows(raster, side):
            values = dataset.read(list(raster.bands), window=window, out_shape=(3, *shape))
            valid = dataset.dataset_mask(window=window, out_shape=shape) > 0
            valid &= np.isfinite(values).all(axis=0)
            yield values[:, valid].astype(np.float64).ravel()


def _sample_windows(raster: RasterFile, side: int) -> Iterator[tuple[Window, tuple[int, int]]]:
    """Windows to look at, with the (height, width) to read them at.

    The whole raster, decimated, where that is cheap; else small windows spread evenly.
    """
    height, width = raster.height, raster.width
    if raster.overviews or height * width <= _WHOLE_READ_PX:
        yield Window(0, 0, width, height), (min(height, side), min(width, side))
        return
    rows, cols = min(side // _SAMPLE_GRID, height), min(side // _SAMPLE_GRID, width)
    for row in np.linspace(0, height - rows, _SAMPLE_GRID).astype(int):
        for col in np.linspace(0, width - cols, _SAMPLE_GRID).astype(int):
            yield Window(col, row, cols, rows), (rows, cols)


def _to_uint8(values: NDArray[np.generic], scale: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Values as 8 bits: as they are, or stretched linearly and clipped."""
    if scale is None:
        return values.astype(np.uint8)
    low, high = scale
    stretched = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.clip(stretched, 0.0, 255.0)).astype(np.uint8)


def _empty_tile(grid: GridSpec) -> ImageTile:
    """A tile without a valid pixel."""
    return ImageTile(np.zeros((3, *grid.shape), dtype=np.uint8), np.zeros(grid.shape, dtype=bool))
