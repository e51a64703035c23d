"""Imagery cut into chunks of one metric grid, each fetched once and kept as a file.

A chunk is a cloud-optimised GeoTIFF with a mask, written whole or not at all, so that an
interrupted fetch goes on with those that are missing. One VRT beside them makes them a single
raster: reading across their edges leaves no seam.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Protocol, TypeVar
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
import shapely
from numpy.typing import NDArray
from rasterio.dtypes import dtype_rev, typename_fwd
from rasterio.io import MemoryFile

from geolink.errors import CoverageError, InputError
from geolink.files import replace_bytes
from geolink.grid import GridSpec, PixelWindow
from geolink.sources.base import Area, SourceInfo
from geolink.sources.network import Progress
from geolink.sources.places import Place

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK_SIDE = 1024  # pixels; a multiple of two, so that overviews of neighbours fit together
MOSAIC = "imagery.vrt"
_FOLDER = "chunks"
_STORED_SIDE = 512
_MAX_CHUNKS = 100_000
_MARGIN_PX = 128  # around the area, since the model's tiles reach beyond it
_SCENES = "SCENES"  # tag of a chunk that is not empty: the scenes of its pixels, as JSON


@dataclass(frozen=True)
class Pixels:
    """What a source holds of one chunk.

    Attributes:
        values: (3, height, width), of the source's own data type; 0 where not valid.
        valid: (height, width) bool, True where there is an image.
        scenes: ids of the scenes that the pixels are from.
    """

    values: NDArray[np.generic]
    valid: NDArray[np.bool_]
    scenes: tuple[str, ...] = ()


class PixelSource(Protocol):
    """Where the pixels of chunks come from; chunks may be read in several threads."""

    @property
    def workers(self) -> int:
        """Threads that may read at once."""
        ...

    def prepare(self, folder: Path) -> None:
        """Fetch what several chunks share; files in `folder` outlive an interruption."""
        ...

    def read(self, grid: GridSpec) -> Pixels:
        """Pixels of a chunk, the same whatever was read before."""
        ...

    def info(self, scenes: Sequence[str]) -> SourceInfo:
        """Provenance of an image made of these scenes."""
        ...


@dataclass(frozen=True)
class ImageryPlan:
    """What a fetch of imagery will do.

    Attributes:
        what: the source in words.
        items: number of scenes or tiles to choose from.
        bytes_estimate: about how much is transferred.
        info: provenance, as far as it is known beforehand.
        url: address of the service.
        grid: all pixels.
        windows: the chunks to fetch, those of `grid` that meet the area.
        key: changes when the same request would give other pixels.
        pixels: where they come from.
    """

    what: str
    items: int
    bytes_estimate: int
    info: SourceInfo
    url: str
    grid: GridSpec
    windows: tuple[PixelWindow, ...]
    key: str
    pixels: PixelSource = field(repr=False, compare=False)

    @property
    def licence(self) -> str | None:
        """Licence of the pixels."""
        return self.info.licence

    @property
    def attribution(self) -> str | None:
        """Credit line that the licence asks for."""
        return self.info.attribution

    @property
    def date(self) -> str | None:
        """The day, or the first and the last day, of the scenes to choose from."""
        return self.info.date


def lay_chunks(area: Area, gsd: float) -> tuple[GridSpec, tuple[PixelWindow, ...]]:
    """The grid around an area in its UTM zone, and the windows of it that meet the area.

    Args:
        area: in EPSG:4326.
        gsd: metres per pixel.

    Raises:
        InputError: the area cannot be mapped, or is too large for pixels of this size.
    """
    place = Place("the area", area)
    margin = _MARGIN_PX * gsd
    grid = GridSpec.from_bounds(place.crs, place.bounds_metric.buffered(margin), gsd)
    if math.ceil(grid.height / CHUNK_SIDE) * math.ceil(grid.width / CHUNK_SIDE) > _MAX_CHUNKS:
        raise InputError(
            f"the area has {grid.width} x {grid.height} pixels of {gsd:g} m, too many to fetch "
            "at once; take coarser pixels with --gsd, or a smaller area"
        )
    windows = list(grid.blocks(CHUNK_SIDE))
    boxes = shapely.box(*np.array([grid.subgrid(window).bounds for window in windows]).T)
    near = shapely.dwithin(boxes, place.aoi_metric, margin)
    return grid, tuple(window for window, met in zip(windows, near, strict=True) if met)


def fetched_gsd(asked: float | None, native: float) -> float:
    """Metres per pixel to fetch: as asked, but no finer than the source, whose own is the default.

    Two digits of the source's own: the noise of projecting there and back must not shape grids.

    Raises:
        InputError: what is asked is no size.
    """
    if asked is not None and not (math.isfinite(asked) and asked > 0):
        raise InputError(f"the ground sampling distance must be positive, got {asked}")
    native = float(f"{native:.2g}")
    return native if asked is None else max(asked, native)


def plan_key(*parts: object) -> str:
    """A hash of what decides the pixels of a plan."""
    return sha256(json.dumps(parts, default=str).encode()).hexdigest()


def fetch_chunks(plan: ImageryPlan, folder: Path, *, progress: Progress | None) -> SourceInfo:
    """Make `folder` the image that `plan` describes; chunks that are there already are kept.

    Returns:
        Provenance of what was fetched.

    Raises:
        UnavailableError: the source does not answer, or not as it should.
        CoverageError: it has no pixel of the area.
        OutputError: the folder cannot be written, or the disk is full.
    """
    (folder / _FOLDER).mkdir(exist_ok=True)
    missing = [w for w in plan.windows if not _chunk_path(folder, w).exists()]
    done, total = len(plan.windows) - len(missing), len(plan.windows)
    if missing:
        plan.pixels.prepare(folder)
    # GDAL's own threads print their errors, which reach us as failed reads anyway.
    with rasterio.Env(CPL_LOG=os.devnull):
        for _ in in_threads(partial(_fetch_chunk, plan, folder), missing, plan.pixels.workers):
            done += 1
            if progress is not None:
                progress("fetching imagery", done, total)
    return _join(plan, folder)


def in_threads(work: Callable[[T], None], items: Iterable[T], workers: int) -> Iterator[None]:
    """Does `work` for every item; yields after each. The first failure ends it all."""
    with ThreadPoolExecutor(workers, thread_name_prefix="imagery") as pool:
        try:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch_chunk(plan: ImageryPlan, folder: Path, window: PixelWindow) -> None:
    grid = plan.grid.subgrid(window)
    replace_bytes(_chunk_path(folder, window), _encoded(plan.pixels.read(grid), grid))


def _chunk_path(folder: Path, window: PixelWindow) -> Path:
    row, col = window.row_off // CHUNK_SIDE, window.col_off // CHUNK_SIDE
    return folder / _FOLDER / f"r{row:04}-c{col:04}.tif"


def _encoded(pixels: Pixels, grid: GridSpec) -> bytes:
    """A chunk as the bytes of a cloud-optimised GeoTIFF."""
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        MemoryFile() as plain,
        MemoryFile(ext=".tif") as optimised,
    ):
        with plain.open(
            driver="GTiff",
            count=3,
            height=grid.height,
            width=grid.width,
            dtype=pixels.values.dtype,
            crs=grid.crs.to_wkt(),
            transform=grid.transform,
            photometric="RGB",
        ) as raster:
            raster.write(pixels.values)
            raster.write_mask(pixels.valid)
            if pixels.valid.any():
                raster.update_tags(**{_SCENES: json.dumps(pixels.scenes)})
        with plain.open() as raster:
            rasterio.shutil.copy(
                raster,
                optimised.name,
                driver="COG",
                compress="deflate",
                predictor="yes",
                blocksize=str(_STORED_SIDE),
                overview_resampling="average",
            )
        return bytes(optimised.read())


def _join(plan: ImageryPlan, folder: Path) -> SourceInfo:
    """Write the VRT over all chunks that are not empty; returns their provenance."""
    filled: list[PixelWindow] = []
    scenes: set[str] = set()
    dtypes: set[str] = set()
    for window in plan.windows:
        with rasterio.open(_chunk_path(folder, window)) as chunk:
            if (used := chunk.tags().get(_SCENES)) is not None:
                filled.append(window)
                scenes.update(json.loads(used))
                dtypes.add(chunk.dtypes[0])
    if not filled:
        raise CoverageError(
            f"{plan.what} has no pixel of this area; try other dates or another source"
        )
    if len(dtypes) > 1:
        raise InputError(
            f"the scenes of {plan.what} hold different data types ({', '.join(sorted(dtypes))}); "
            "choose another asset"
        )
    info = plan.pixels.info(sorted(scenes))
    replace_bytes(folder / MOSAIC, _vrt(plan.grid, filled, info, dtype=dtypes.pop()))
    return info


def _vrt(grid: GridSpec, windows: Sequence[PixelWindow], info: SourceInfo, *, dtype: str) -> bytes:
    """XML of the raster over these chunks, as GDAL's VRT driver reads it."""
    size = {"rasterXSize": str(grid.width), "rasterYSize": str(grid.height)}
    root = ElementTree.Element("VRTDataset", size)
    ElementTree.SubElement(root, "SRS").text = grid.crs.to_wkt()
    position = ", ".join(map(repr, grid.transform.to_gdal()))
    ElementTree.SubElement(root, "GeoTransform").text = position
    metadata = ElementTree.SubElement(root, "Metadata")
    for key, value in _tags(info).items():
        ElementTree.SubElement(metadata, "MDI", key=key).text = value
    if max(grid.shape) > _STORED_SIDE:
        ElementTree.SubElement(root, "OverviewList", resampling="average").text = "2"
    kind = typename_fwd[dtype_rev[dtype]]
    for number, colour in enumerate(("Red", "Green", "Blue"), start=1):
        band = ElementTree.SubElement(root, "VRTRasterBand", dataType=kind, band=str(number))
        ElementTree.SubElement(band, "ColorInterp").text = colour
        _add_chunks(band, windows, str(number), kind=kind)
    mask = ElementTree.SubElement(root, "MaskBand")
    band = ElementTree.SubElement(mask, "VRTRasterBand", dataType="Byte")
    _add_chunks(band, windows, "mask,1", kind="Byte")
    ElementTree.indent(root)
    return ElementTree.tostring(root)


def _add_chunks(
    band: ElementTree.Element, windows: Sequence[PixelWindow], number: str, *, kind: str
) -> None:
    """The chunks' band of this number, each in its place."""
    side = str(_STORED_SIDE)
    for window in windows:
        source = ElementTree.SubElement(band, "SimpleSource")
        # Not shared: threads must not meet in one open file.
        file = ElementTree.SubElement(source, "SourceFilename", relativeToVRT="1", shared="0")
        file.text = _chunk_path(Path(), window).as_posix()
        ElementTree.SubElement(source, "SourceBand").text = number
        stored = {"RasterXSize": str(window.width), "RasterYSize": str(window.height)}
        stored |= {"DataType": kind, "BlockXSize": side, "BlockYSize": side}
        ElementTree.SubElement(source, "SourceProperties", stored)
        size = {"xSize": str(window.width), "ySize": str(window.height)}
        place = {"xOff": str(window.col_off), "yOff": str(window.row_off)}
        ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
        ElementTree.SubElement(source, "DstRect", {**place, **size})


def _tags(info: SourceInfo) -> dict[str, str]:
    """Provenance as tags that GDAL and `open_imagery` know."""
    tags = {"TIFFTAG_IMAGEDESCRIPTION": info.description}
    if info.attribution:
        tags["TIFFTAG_COPYRIGHT"] = info.attribution
    if info.date:
        tags["TIFFTAG_DATETIME"] = info.date.rpartition("/")[2]
    return tags
