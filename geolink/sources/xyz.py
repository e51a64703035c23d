"""Tiles of a web map server, fetched once each and warped to a metric grid.

Tile servers are shared by many: two requests run at once, tiles are kept until the image is whole,
and an area that needs very many is refused.
"""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from geolink.errors import InputError, UnavailableError
from geolink.files import replace_bytes
from geolink.grid import GridSpec
from geolink.sources.base import Area, SourceInfo
from geolink.sources.chunks import (
    ImageryPlan,
    Pixels,
    fetched_gsd,
    in_threads,
    lay_chunks,
    plan_key,
)
from geolink.sources.network import Network, NotFoundError, without_secrets
from geolink.sources.raster_files import transformer
from geolink.sources.specs import XyzImagery
from geolink.sources.warping import TOLERANCE_PX

logger = logging.getLogger(__name__)

_MERCATOR = CRS.from_epsg(3857)
_HALF_WORLD = 20_037_508.342789244  # metres from the origin to each edge of web mercator
_TILE_SIDE = 256  # pixels that zoom levels are counted in
_LARGEST_TILE = 1024  # pixels a side; more is no map tile
_MAX_TILES = 20_000
_TYPICAL_BYTES = 20_000  # of a JPEG of a city
_CONNECTIONS = 2
_FORMATS = ("PNG", "JPEG", "WEBP")
_FOLDER = ".tiles"  # hidden: dropped by the cache when the image is whole


@dataclass(frozen=True, order=True)
class Tile:
    """One tile of a zoom level: columns count eastwards, rows southwards."""

    zoom: int
    row: int
    col: int

    def address(self, template: str) -> str:
        """Where the tile is."""
        fields = {"z": self.zoom, "x": self.col, "y": self.row}
        southwest = {"-y": 2**self.zoom - 1 - self.row}
        return template.format(**fields, **southwest, s="abc"[(self.col + self.row) % 3])

    def transform(self, side: int) -> Affine:
        """Pixel (column, row) to web mercator, for tiles of `side` pixels."""
        span = 2 * _HALF_WORLD / 2**self.zoom
        west, north = self.col * span - _HALF_WORLD, _HALF_WORLD - self.row * span
        return Affine(span / side, 0.0, west, 0.0, -span / side, north)


def plan_xyz(
    spec: XyzImagery, area: Area, *, gsd: float | None, network: Network, terms: str | None
) -> ImageryPlan:
    """What is to be read for an area; the server is not asked yet.

    Args:
        spec: template and zoom.
        area: in EPSG:4326.
        gsd: metres per pixel; None for that of the tiles, which it is never finer than. Where it
            is coarser, tiles of the lowest zoom that is still as fine are read.
        network: to fetch with.
        terms: the user's note of the licence, which is also the credit; None while only planning.

    Raises:
        InputError: the area cannot be mapped, or needs too many tiles or pixels.
    """
    native = _pixel_m(spec.zoom, area)
    gsd = fetched_gsd(gsd, native)
    zoom = max(spec.zoom - max(math.floor(math.log2(gsd / native)), 0), 0)
    grid, windows = lay_chunks(area, gsd)
    host = urlsplit(spec.template).netloc.rpartition("@")[2]
    tiles: set[Tile] = set()
    for window in windows:
        tiles.update(_tiles_of(grid.subgrid(window), zoom))
        if len(tiles) > _MAX_TILES:
            raise InputError(
                f"the area needs more than {_MAX_TILES} tiles of {host}, the most that are asked "
                "of a tile server; take a lower zoom, coarser pixels with --gsd, or a smaller area"
            )
    info = SourceInfo(f"zoom {zoom} of {host}", licence=terms, attribution=terms)
    return ImageryPlan(
        what=info.description,
        items=len(tiles),
        bytes_estimate=len(tiles) * _TYPICAL_BYTES,
        info=info,
        url=spec.template,
        grid=grid,
        windows=windows,
        key=plan_key(without_secrets(spec.template), zoom, grid.transform, grid.shape),
        pixels=TileMosaic(
            spec.template, sorted(tiles), info, network, pixel_m=_pixel_m(zoom, area)
        ),
    )


class TileMosaic:
    """Pixels of the tiles of one zoom level; empty where the server has no tile.

    Args:
        template: address of a tile.
        tiles: all that are needed.
        info: provenance.
        network: to fetch with; its `progress` is told of the tiles.
        pixel_m: ground size of a pixel of a tile with 256 pixels a side.
    """

    workers = 2

    def __init__(
        self,
        template: str,
        tiles: Sequence[Tile],
        info: SourceInfo,
        network: Network,
        *,
        pixel_m: float,
    ) -> None:
        self._template, self._tiles = template, tuple(tiles)
        self._info, self._network, self._pixel_m = info, network, pixel_m
        self._folder = Path()

    def info(self, scenes: Sequence[str]) -> SourceInfo:
        """Provenance; tiles know no scenes."""
        return self._info

    def prepare(self, folder: Path) -> None:
        """Fetch the tiles that are not in `folder` yet.

        Raises:
            UnavailableError: the server does not answer, or not with images, or has no tile here.
            OutputError: the disk is full.
        """
        self._folder = folder / _FOLDER
        self._folder.mkdir(exist_ok=True)
        missing = [tile for tile in self._tiles if not self._path(tile).exists()]
        done, total = len(self._tiles) - len(missing), len(self._tiles)
        for _ in in_threads(self._fetch, missing, _CONNECTIONS):
            done += 1
            if self._network.progress is not None:
                self._network.progress("fetching tiles", done, total)
        empty = [path for path in map(self._path, self._tiles) if path.stat().st_size == 0]
        absent = len(empty)
        if absent == total:
            for path in empty:  # the server may be wrong today
                path.unlink()
            raise UnavailableError(
                f"{self._info.description} has no tile of this area; take a lower zoom, or check "
                "the address"
            )
        if absent:
            logger.warning(
                "%s has no tile at %d of %d places", self._info.description, absent, total
            )

    def read(self, grid: GridSpec) -> Pixels:
        """8-bit RGB of `grid`.

        Raises:
            UnavailableError: the tiles differ in size.
        """
        tiles = list(_tiles_of(grid, self._tiles[0].zoom))
        mosaic = self._joined(tiles)
        height, width = mosaic.shape[1:]
        side = height // (tiles[-1].row - tiles[0].row + 1)
        # Fixed for all chunks, so that the kernel is the same on both sides of their edges.
        scale = min(self._pixel_m * _TILE_SIDE / side / grid.gsd, 1.0)
        with MemoryFile() as memory:
            with memory.open(
                driver="GTiff",
                count=4,
                height=height,
                width=width,
                dtype="uint8",
                crs=_MERCATOR.to_wkt(),
                transform=tiles[0].transform(side),
                photometric="RGB",
                alpha="yes",
            ) as raster:
                raster.write(mosaic)
            with (
                memory.open() as raster,
                WarpedVRT(
                    raster,
                    crs=grid.crs.to_wkt(),
                    transform=grid.transform,
                    height=grid.height,
                    width=grid.width,
                    resampling=Resampling.average if scale < 0.5 else Resampling.bilinear,
                    tolerance=TOLERANCE_PX,
                    XSCALE=scale,
                    YSCALE=scale,
                ) as view,
            ):
                warped = view.read()
        valid = warped[3] > 0
        return Pixels(np.where(valid, warped[:3], np.uint8(0)), valid)

    def _fetch(self, tile: Tile) -> None:
        """One tile into the folder, checked to be an image; an empty file where there is none."""
        what = f"tile {tile.zoom}/{tile.col}/{tile.row}"
        try:
            content = self._network.get_bytes(tile.address(self._template), what=what)
        except NotFoundError:
            content = b""
        if content and _decoded(content) is None:
            raise UnavailableError(
                f"{what} of {self._info.description} is no sound PNG, JPEG or WebP image of a map "
                "tile's size; check the address, and whether it wants a key"
            )
        replace_bytes(self._path(tile), content)

    def _path(self, tile: Tile) -> Path:
        return self._folder / f"{tile.zoom}-{tile.col}-{tile.row}"

    def _joined(self, tiles: Sequence[Tile]) -> NDArray[np.uint8]:
        """(4, height, width) RGBA of a rectangle of tiles, in the order of their rows."""
        images = {tile: _decoded(self._path(tile).read_bytes()) for tile in tiles}
        shapes = {image.shape for image in images.values() if image is not None}
        if len(shapes) > 1:
            raise UnavailableError(
                f"the tiles of {self._info.description} differ in size; choose another server"
            )
        empty = np.zeros(shapes.pop() if shapes else (_TILE_SIDE, _TILE_SIDE, 4), dtype=np.uint8)
        rows: dict[int, list[NDArray[np.uint8]]] = {}
        for tile, image in images.items():
            rows.setdefault(tile.row, []).append(empty if image is None else image)
        joined = np.concatenate([np.concatenate(row, axis=1) for row in rows.values()])
        return np.ascontiguousarray(joined.transpose(2, 0, 1))


def _decoded(content: bytes) -> NDArray[np.uint8] | None:
    """(side, side, 4) RGBA of a tile's file; None where it is no whole image of a map tile."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            # The header is read so far: nothing large has been unpacked yet.
            if image.width != image.height or image.width > _LARGEST_TILE:
                return None
            return np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _pixel_m(zoom: int, area: Area) -> float:
    """Ground size of a pixel of a zoom level, for tiles of 256 pixels a side."""
    equator: float = 2 * _HALF_WORLD / _TILE_SIDE / 2**zoom
    return equator * math.cos(math.radians(area.centroid.y))


def _tiles_of(grid: GridSpec, zoom: int) -> Iterator[Tile]:
    """The tiles that a grid is interpolated from, row by row."""
    to_mercator = transformer(grid.crs, _MERCATOR)
    west, south, east, north = to_mercator.transform_bounds(*grid.bounds.buffered(2 * grid.gsd))
    count = 2**zoom
    span = 2 * _HALF_WORLD / count
    first_col, last_col, first_row, last_row = (
        min(max(math.floor(metres / span), 0), count - 1)
        for metres in (
            west + _HALF_WORLD,
            east + _HALF_WORLD,
            _HALF_WORLD - north,
            _HALF_WORLD - south,
        )
    )
    rows, cols = range(first_row, last_row + 1), range(first_col, last_col + 1)
    return (Tile(zoom, row, col) for row, col in product(rows, cols))
