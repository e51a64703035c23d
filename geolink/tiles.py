"""Which tiles a scene is cut into: overlapping windows of its grid, numbered row by row."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Geometry

from geolink.errors import ConfigError
from geolink.grid import GridSpec, PixelWindow

# Tiles whose outlines are held at once; a country has hundreds of thousands.
_AT_ONCE = 10_000


@dataclass(frozen=True)
class TilePlan:
    """Square windows that cover a grid.

    Neighbours share `overlap_px` pixels; the last row and column keep their full size and reach
    beyond the grid. Ids count row by row from the upper left.

    Attributes:
        grid: the scene.
        side: tile height and width, pixels.
        overlap_px: pixels shared by neighbours, at most half a side.
    """

    grid: GridSpec
    side: int = 224
    overlap_px: int = 56

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ConfigError(f"a tile needs at least one pixel a side, got {self.side}")
        if not 0 <= self.overlap_px <= self.side // 2:
            raise ConfigError(
                f"tiles of {self.side} px may overlap by 0 to {self.side // 2} px, "
                f"got {self.overlap_px}"
            )

    @property
    def step(self) -> int:
        """Pixels from one tile to the next."""
        return self.side - self.overlap_px

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        return self._count(self.grid.height), self._count(self.grid.width)

    def __len__(self) -> int:
        rows, cols = self.shape
        return rows * cols

    def window(self, tile_id: int) -> PixelWindow:
        """Pixels of one tile.

        Raises:
            IndexError: there is no such tile.
        """
        if not 0 <= tile_id < len(self):
            raise IndexError(f"tile {tile_id} of {len(self)}")
        row, col = divmod(tile_id, self.shape[1])
        return PixelWindow(row * self.step, col * self.step, self.side, self.side)

    @property
    def windows(self) -> Iterator[PixelWindow]:
        """All tiles in the order of their ids."""
        return map(self.window, range(len(self)))

    def tile_grid(self, tile_id: int) -> GridSpec:
        """The metric grid of one tile."""
        return self.grid.subgrid(self.window(tile_id))

    def tiles_meeting(self, window: PixelWindow) -> Iterator[int]:
        """Ids of the tiles that share a pixel with `window`, ascending."""
        rows, cols = self.shape
        for row in self._range(window.row_off, window.height, rows):
            for col in self._range(window.col_off, window.width, cols):
                yield row * cols + col

    def tiles_in(self, area: Geometry) -> NDArray[np.int64]:
        """Ids of the tiles whose interior meets `area` (in the grid's CRS), ascending."""
        shapely.prepare(area)
        found = [np.zeros(0, np.int64)]
        for start in range(0, len(self), _AT_ONCE):
            ids = np.arange(start, min(start + _AT_ONCE, len(self)))
            boxes = self.footprints(ids)
            found.append(ids[shapely.intersects(area, boxes) & ~shapely.touches(area, boxes)])
        return np.concatenate(found)

    def footprints(self, ids: NDArray[np.int64]) -> NDArray[np.object_]:
        """(len(ids),) rectangles of tiles, in the grid's CRS."""
        rows, cols = np.divmod(ids, self.shape[1])
        west = self.grid.west + cols * self.step * self.grid.gsd
        north = self.grid.north - rows * self.step * self.grid.gsd
        side = self.side * self.grid.gsd
        boxes: NDArray[np.object_] = shapely.box(west, north - side, west + side, north)
        return boxes

    def _count(self, pixels: int) -> int:
        """Tiles needed along an axis: the last one must reach the end."""
        return max(1, -(-(pixels - self.overlap_px) // self.step))

    def _range(self, start: int, length: int, count: int) -> range:
        """Tile indices along one axis that meet `length` pixels from `start`."""
        first = (start - self.side) // self.step + 1
        last = (start + length - 1) // self.step
        return range(max(first, 0), min(last + 1, count))
