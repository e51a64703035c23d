"""Imagery from raster files, warped on the fly to a metric grid.

Reading is exact whatever the tile: pixels are warped in fixed blocks of the grid's lattice (the
infinite lattice of pixels that a grid is a window of), and tiles are cut from these blocks. A
pixel therefore has one value, however many tiles share it and in whatever order they are read.
"""

import logging
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.errors
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError as ProjCRSError
from rasterio import DatasetReader
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from shapely.affinity import translate

from geolink.errors import CoverageError, CRSError, InputError
from geolink.grid import WGS84, GridSpec, PixelWindow, utm_crs
from geolink.sources.base import ImageTile, SourceInfo

logger = logging.getLogger(__name__)

# Files of a folder that are read as rasters.
_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"})

_BLOCK_SIDE = 256  # pixels; rows and columns of one warped block
_CACHED_BLOCKS = 128  # 34 MB: two rows of blocks of a scene 16,000 pixels wide
_OPEN_FILES = 32  # per thread
_TOLERANCE_PX = 1e-3  # error of the approximated transformation, source pixels
_MAX_BILINEAR = 2.0  # beyond this reduction, pixels are averaged
_PERCENTILES = (2.0, 98.0)
_SAMPLE_SIDE = 1024  # pixels; side of the decimated read that scaling is taken from
_SAMPLE_GRID = 8  # windows per side where a raster is too large for a decimated read
_WHOLE_READ_PX = 2**22  # a larger raster without overviews is sampled by windows
_EDGE_STEPS = 21  # pieces that an edge is cut into, to follow its curve

Floats = NDArray[np.float64]

_WANTED = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True)
class RasterFile:
    """What must be known of a raster to read it as RGB.

    Attributes:
        path: as GDAL opens it.
        crs: the raster's CRS.
        transform: pixel (column, row) to `crs`.
        height, width: pixels.
        bands: one-based indexes of red, green and blue.
        alpha: one-based index of the alpha band, None where there is none.
        count: number of bands.
        dtype: of the three bands.
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
    bands: tuple[int, int, int]
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
        return Path(self.path).name

    def overview_for(self, gsd: float) -> tuple[int | None, float]:
        """The coarsest overview that is still as fine as `gsd`, and its reduction (1: none)."""
        fitting = [i for i, factor in enumerate(self.overviews) if factor <= gsd / self.gsd]
        return (fitting[-1], float(self.overviews[fitting[-1]])) if fitting else (None, 1.0)

    def meets(self, grid: GridSpec) -> bool:
        """False only where no pixel of `grid` can lie in the raster."""
        x, y = _transformer(grid.crs, self.crs).transform(*_edge(grid))
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return True
        cols, rows = _apply(~self.transform, x, y)
        return bool(
            cols.min() < self.width
            and cols.max() > 0
            and rows.min() < self.height
            and rows.max() > 0
        )


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
        self.footprint = shapely.union_all([_footprint(raster) for raster in self.rasters])
        self._files = _OpenFiles()
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
        for block, window in _lattice_blocks(grid):
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
                values, valid = self._warp(raster, block)
                valid &= ~tile.valid
                tile.rgb[:, valid] = _to_uint8(values[:, valid], self.scale)
                tile.valid[valid] = True
        return tile

    def _warp(
        self, raster: RasterFile, block: GridSpec
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """One raster's values (3, height, width) in a block, and where they are valid."""
        level, reduction = raster.overview_for(block.gsd)
        # Output pixels per source pixel, fixed so that the kernel is the same in every block.
        scale_x, scale_y = (min(step * reduction / block.gsd, 1.0) for step in raster.steps_m)
        averaged = block.gsd / (raster.gsd * reduction) > _MAX_BILINEAR
        with _named(raster.name):
            dataset = self._files.get(raster.path, level)
        pixel = dataset.transform
        with (
            _named(raster.name),
            WarpedVRT(
                dataset,
                src_transform=Affine(
                    pixel.a, pixel.b, raster.transform.c, pixel.d, pixel.e, raster.transform.f
                ),
                crs=rasterio.crs.CRS.from_user_input(block.crs),
                transform=block.transform,
                height=block.height,
                width=block.width,
                resampling=Resampling.average if averaged else Resampling.bilinear,
                tolerance=_TOLERANCE_PX,
                src_nodata=raster.nodata,
                add_alpha=raster.alpha is None,
                XSCALE=scale_x,
                YSCALE=scale_y,
            ) as view,
        ):
            data = view.read([*raster.bands, raster.alpha or raster.count + 1])
        return data[:3], (data[3] > 0) & np.isfinite(data[:3]).all(axis=0)


def open_imagery(
    path: str | Path,
    *,
    bands: tuple[int, int, int] | None = None,
    scale: tuple[float, float] | None = None,
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

    Raises:
        InputError: no such file, not a raster, damaged, or not RGB.
        CRSError: a raster is not georeferenced.
        CoverageError: no pixel is valid.
    """
    if scale is not None and not (np.isfinite(scale).all() and scale[0] < scale[1]):
        raise InputError(f"the scale must be two growing numbers (low, high), got {scale}")
    source = Path(path)
    paths = _folder_rasters(source) if source.is_dir() else [str(path)]
    records, infos = zip(*(_describe(item, bands) for item in paths), strict=True)
    rasters = list(chain.from_iterable(records))
    dtypes = sorted({raster.dtype for raster in rasters})
    if len(dtypes) > 1:
        raise InputError(
            f"the rasters of {source.name} have different data types ({', '.join(dtypes)}); "
            "convert them to one"
        )
    info = infos[0] if len(infos) == 1 else _joint_info(source.name, infos)
    return RasterImagery(info, rasters, _scene_scale(rasters, scale, name=source.name))


class _OpenFiles(threading.local):
    """The open rasters of one thread; a rasterio dataset serves one thread of one process."""

    def __init__(self) -> None:
        self._pid = 0

    def get(self, path: str, overview_level: int | None) -> DatasetReader:
        """The open dataset of a path, at full resolution or as one of its overviews."""
        if self._pid != os.getpid():  # a forked child must not share its parent's files
            self._pid = os.getpid()
            self._open = lru_cache(_OPEN_FILES)(_open)
        return self._open(path, overview_level)


def _open(path: str, overview_level: int | None = None) -> DatasetReader:
    """An open rasterio dataset, shared with nobody."""
    options = {} if overview_level is None else {"overview_level": overview_level}
    return rasterio.open(path, sharing=False, **options)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """GDAL's errors as one sentence that names the file."""
    try:
        yield
    except rasterio.errors.RasterioError as error:
        raise InputError(
            f"{name} cannot be read as a raster; it may be truncated or damaged, "
            f"so copy it again ({error.__cause__ or error})"
        ) from error


def _folder_rasters(folder: Path) -> list[str]:
    """Paths of the rasters in a folder, by name."""
    found = sorted(item for item in folder.iterdir() if item.suffix.lower() in _SUFFIXES)
    if not found:
        raise InputError(
            f"the folder {folder.name} has no raster; these are looked for: "
            f"{', '.join(sorted(_SUFFIXES))}"
        )
    return [str(item) for item in found]


def _describe(path: str, bands: tuple[int, int, int] | None) -> tuple[list[RasterFile], SourceInfo]:
    """A raster's records and provenance, with everything checked that can be wrong with it."""
    name = Path(path).name
    with _opened_for_checks(path) as dataset:
        crs = _checked_crs(dataset, name=name)
        chosen = _checked_bands(dataset, bands, name=name)
        dtype = _checked_dtype(dataset, chosen, name=name)
        steps, gsd = _ground_steps(dataset, crs, name=name)
        alpha = ColorInterp.alpha in dataset.colorinterp
        masked = alpha or dataset.mask_flag_enums[chosen[0] - 1] != [MaskFlags.all_valid]
        raster = RasterFile(
            path=path,
            crs=crs,
            transform=dataset.transform,
            height=dataset.height,
            width=dataset.width,
            bands=chosen,
            alpha=dataset.colorinterp.index(ColorInterp.alpha) + 1 if alpha else None,
            count=dataset.count,
            dtype=dtype,
            nodata=math.nan if dtype.startswith("float") and not masked else dataset.nodata,
            overviews=tuple(dataset.overviews(chosen[0])),
            steps_m=steps,
            gsd=gsd,
        )
        return _worlds(raster), _provenance(dataset, name=name)


def _worlds(raster: RasterFile) -> list[RasterFile]:
    """The raster, once for each range of longitudes -180 to 180 that it reaches into.

    Longitudes beyond 180 degrees name places that warping looks for 360 degrees away.
    """
    if not raster.crs.is_geographic:
        return [raster]
    lon = _edge(raster)[0]
    first = math.floor((lon.min() + 180.0) / 360.0)
    end = math.ceil((lon.max() + 180.0) / 360.0)
    return [_turned(raster, turn) for turn in range(first, end)]


def _turned(raster: RasterFile, turns: int) -> RasterFile:
    """The raster with its longitudes counted from `turns` turns further east."""
    old = raster.transform
    return replace(
        raster, transform=Affine(old.a, old.b, old.c - 360.0 * turns, old.d, old.e, old.f)
    )


@contextmanager
def _opened_for_checks(path: str) -> Iterator[DatasetReader]:
    """The open dataset, with a clear error where it does not open."""
    with warnings.catch_warnings():
        # A missing georeference gets an error of ours.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            dataset = _open(path)
        except rasterio.errors.RasterioIOError as error:
            problem = "is not a raster that GDAL reads, or is damaged"
            if not Path(path).exists():
                problem = "does not exist; check the path"
            raise InputError(f"the image {path} {problem}") from error
        with dataset, _named(Path(path).name):
            yield dataset


def _checked_crs(dataset: DatasetReader, *, name: str) -> CRS:
    """The CRS of a georeferenced dataset."""
    if dataset.crs is None and (dataset.gcps[0] or dataset.rpcs):
        raise CRSError(
            f"{name} is located by control points or RPCs only; rectify it first with gdalwarp"
        )
    if dataset.crs is None:
        raise CRSError(
            f"{name} has no coordinate reference system; assign one with gdal_edit -a_srs"
        )
    if dataset.transform.is_identity:
        raise CRSError(
            f"{name} has no position on the ground; give it one with gdal_edit -a_ullr, "
            "or a world file"
        )
    try:
        crs = CRS.from_wkt(dataset.crs.to_wkt())
    except ProjCRSError as error:
        raise CRSError(
            f"the coordinate reference system of {name} is unknown; assign one with "
            "gdal_edit -a_srs"
        ) from error
    if not (crs.is_geographic or crs.is_projected):
        raise CRSError(
            f"{name} is in the local system {crs.name}, which has no place on earth; "
            "assign another with gdal_edit -a_srs"
        )
    return crs


def _checked_bands(
    dataset: DatasetReader, bands: tuple[int, int, int] | None, *, name: str
) -> tuple[int, int, int]:
    """One-based indexes of red, green and blue: as asked, as named, or the only three."""
    if bands is not None:
        if len(bands) != 3 or not all(1 <= band <= dataset.count for band in bands):
            raise InputError(
                f"bands must be three of 1 to {dataset.count}, the bands of {name}; got {bands}"
            )
        return bands
    meaning = list(dataset.colorinterp)
    if all(colour in meaning for colour in _WANTED):
        red, green, blue = (meaning.index(colour) + 1 for colour in _WANTED)
        return red, green, blue
    if ColorInterp.palette in meaning:
        raise InputError(f"{name} has a colour table; expand it with gdal_translate -expand rgb")
    colours = [i for i, colour in enumerate(meaning, start=1) if colour != ColorInterp.alpha]
    if len(colours) < 3:
        raise InputError(
            f"{name} has {len(colours)} band(s) where RGB needs three; to use grey values, "
            "repeat one with bands 1,1,1"
        )
    if len(colours) > 3:
        raise InputError(
            f"{name} has {len(colours)} bands and does not say which are red, green and blue; "
            "choose three with bands, e.g. 3,2,1"
        )
    return colours[0], colours[1], colours[2]


def _checked_dtype(dataset: DatasetReader, bands: tuple[int, int, int], *, name: str) -> str:
    """The real data type that the three bands share."""
    dtypes = sorted({dataset.dtypes[band - 1] for band in bands})
    if len(dtypes) > 1 or "complex" in dtypes[0]:
        raise InputError(
            f"the bands of {name} hold {', '.join(dtypes)}; convert them to one real type with "
            "gdal_translate -ot"
        )
    return str(dtypes[0])


def _ground_steps(
    dataset: DatasetReader, crs: CRS, *, name: str
) -> tuple[tuple[float, float], float]:
    """Metres of a column step and of a row step at the centre, and the side of its pixel."""
    col, row = dataset.width / 2, dataset.height / 2
    corners = np.array([[col, row], [col + 1, row], [col, row + 1]]).T
    x, y = _apply(dataset.transform, corners[0], corners[1])
    lon, lat = _transformer(crs, WGS84).transform(x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all() and abs(lat).max() <= 90):
        raise CRSError(
            f"the centre of {name} is no place on earth in {crs.name}; its coordinate reference "
            "system or position is wrong, so assign the right one with gdal_edit"
        )
    to_metres = _transformer(WGS84, utm_crs(lon[0], lat[0]))
    points = np.stack(to_metres.transform(lon, lat))
    steps = points[:, 1:] - points[:, :1]
    width, height = np.hypot(*steps)
    side = math.sqrt(abs(np.linalg.det(steps)))
    # Seven digits remove the noise of projecting there and back: 0.5 m stays 0.5 m.
    return (float(width), float(height)), float(f"{side:.7g}")


def _provenance(dataset: DatasetReader, *, name: str) -> SourceInfo:
    """What the file says of itself."""
    tags = dataset.tags()
    date = dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME") or tags.get("TIFFTAG_DATETIME")
    return SourceInfo(
        description=name,
        date=_iso_date(date) if date else None,
        attribution=tags.get("TIFFTAG_COPYRIGHT"),
    )


def _iso_date(text: str) -> str | None:
    """An ISO 8601 date of GDAL's (ISO) or TIFF's (2024:05:31 10:20:30) spelling."""
    day, _, time = text.strip().replace("T", " ").partition(" ")
    try:
        return (
            datetime.fromisoformat(f"{day.replace(':', '-')} {time or '00:00'}").date().isoformat()
        )
    except ValueError:
        logger.info("the image's date %r is not understood and left out", text)
        return None


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
    with _named(raster.name), _open(raster.path) as dataset:
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


def _lattice_blocks(grid: GridSpec) -> Iterator[tuple[GridSpec, PixelWindow]]:
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


@lru_cache(maxsize=256)
def _transformer(source: CRS, target: CRS) -> Transformer:
    """A transformer with x before y on both sides; making one is slow."""
    return Transformer.from_crs(source, target, always_xy=True)


def _apply(transform: Affine, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """An affine transformation of coordinates, element by element."""
    return (
        transform.a * x + transform.b * y + transform.c,
        transform.d * x + transform.e * y + transform.f,
    )


def _edge(area: GridSpec | RasterFile) -> tuple[Floats, Floats]:
    """(x, y) along the closed edge of a grid or raster, in its CRS."""
    outline = shapely.segmentize(shapely.box(0.0, 0.0, 1.0, 1.0), 1.0 / _EDGE_STEPS)
    cols, rows = shapely.get_coordinates(outline).T
    return _apply(area.transform, cols * area.width, rows * area.height)


def _footprint(raster: RasterFile) -> shapely.Geometry:
    """Extent in EPSG:4326, cut in two at the antimeridian where it crosses it."""
    lon, lat = _transformer(raster.crs, WGS84).transform(*_edge(raster))
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
    worlds = [
        translate(outline.intersection(shapely.box(shift - 180, -90, shift + 180, 90)), -shift)
        for shift in (-360, 0, 360)
    ]
    return shapely.union_all(worlds)
