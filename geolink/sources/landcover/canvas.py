"""The fine world-aligned pixels on which one tile is drawn, and what is measured on them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from geolink.grid import Bounds, GridSpec
from geolink.sources.landcover.noise import Doubles, Floats, Integers, Knots, lattice_hash, unit
from geolink.sources.landcover.shapes import DENSITY_CELL, MAX_CROWN, Density

_SUBPIXELS = 256  # to which a tile's corner is rounded, per fine pixel
_SHADOW_REACH = 40.0  # metres, about the longest shadow
_MANY_VERTICES = 100  # above which clipping a polygon pays


@dataclass(frozen=True)
class Canvas:
    """The pixels of a tile, each split in `split` x `split`, with a margin around.

    The margin holds whatever can reach into the tile: shadows, crowns, the blur of the camera.

    Attributes:
        px: side of a fine pixel, metres.
        split: fine pixels per side of a pixel.
        margin: fine pixels around the tile.
        x, y: centres of columns and rows, metres.
        cols, rows: their numbers on the world lattice; rows count downwards.
    """

    px: float
    split: int
    margin: int
    x: Doubles
    y: Doubles
    cols: Integers
    rows: Integers

    @classmethod
    def of(cls, grid: GridSpec) -> Self:
        """The canvas of `grid`."""
        split = min(max(math.ceil(grid.gsd / 1.5), 2), 4)
        px = grid.gsd / split
        margin = math.ceil(MAX_CROWN / px) + (1 << shadow_doublings(px)) + 2 * split
        margin += -margin % split
        # All follows from the corner in whole subpixels, so that overlapping tiles agree exactly.
        west = round(grid.west / px * _SUBPIXELS)
        north = round(grid.north / px * _SUBPIXELS)
        col = np.arange(-margin, grid.width * split + margin)
        row = np.arange(-margin, grid.height * split + margin)
        return cls(
            px,
            split,
            margin,
            (west + _SUBPIXELS * col + _SUBPIXELS // 2) * np.float64(px / _SUBPIXELS),
            (north - _SUBPIXELS * row - _SUBPIXELS // 2) * np.float64(px / _SUBPIXELS),
            col + west // _SUBPIXELS,
            row - north // _SUBPIXELS,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return len(self.y), len(self.x)

    @property
    def bounds(self) -> Bounds:
        """Outer edges, metres."""
        half = self.px / 2
        x, y = self.x[[0, -1]].tolist(), self.y[[0, -1]].tolist()
        return Bounds(x[0] - half, y[1] - half, x[1] + half, y[0] + half)

    def noise(self, spacing: float, key: int) -> Floats:
        """(rows, cols) smooth noise in -1..1 with features of about `spacing` metres.

        What is finer than the pixels averages out.
        """
        gain = min(spacing / (1.5 * self.px), 1.0)
        across = Knots.between(self.x, spacing / gain)
        down = Knots.between(self.y, spacing / gain)
        values = unit(lattice_hash(down.knot, across.knot, key))
        values = (2 * values - 1) * np.float32(gain)
        return down.interpolate(across.interpolate(values, 1), 0)

    def density(self, density: Density) -> Floats:
        """(rows, cols) share of the ground nearby that is built over."""
        across = Knots.between(self.x, DENSITY_CELL)
        down = Knots.between(self.y, DENSITY_CELL)
        # A knot is the corner of four cells; its value is the mean of the 4 x 4 cells around it.
        rows = np.arange(down.knot[0] - 2, down.knot[-1] + 2)
        cols = np.arange(across.knot[0] - 2, across.knot[-1] + 2)
        values = _mean_of_four(_mean_of_four(density.at(rows, cols)).T).T
        return down.interpolate(across.interpolate(values, 1), 0)

    def burn(self, geometry: NDArray[np.object_]) -> NDArray[np.int32]:
        """(rows, cols) 1 + index of the last polygon that holds the pixel's centre; 0 for none."""
        frame = self.bounds
        geometry = geometry.copy()
        long = shapely.get_num_coordinates(geometry) > _MANY_VERTICES
        geometry[long] = shapely.clip_by_rect(geometry[long], *frame.buffered(1.0))
        parts, row = shapely.get_parts(geometry, return_index=True)
        polygonal = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
        polygonal &= ~shapely.is_empty(parts)
        if not polygonal.any():
            return np.zeros(self.shape, dtype=np.int32)
        burned: NDArray[np.int32] = rasterize(
            zip(_as_geojson(parts[polygonal]), (row[polygonal] + 1).tolist(), strict=True),
            out_shape=self.shape,
            transform=Affine(self.px, 0, frame.west, 0, -self.px, frame.north),
            dtype="int32",
        )
        return burned


def shadow_doublings(px: float) -> int:
    """How often one pixel is doubled to reach about as far as the longest shadow."""
    return max(round(math.log2(_SHADOW_REACH / px)), 1)


def _as_geojson(polygons: NDArray[np.object_]) -> Iterator[dict[str, Any]]:
    """The polygons as rasterio reads them, several times faster than one by one."""
    _, xy, (ring_start, polygon_start) = shapely.to_ragged_array(polygons, include_z=False)
    points = xy.tolist()
    rings = [points[first:last] for first, last in pairwise(ring_start.tolist())]
    for first, last in pairwise(polygon_start.tolist()):
        yield {"type": "Polygon", "coordinates": rings[first:last]}


def _mean_of_four(values: Floats) -> Floats:
    """(n - 3, m) means of each four neighbouring rows."""
    return (values[:-3] + values[1:-2] + values[2:-1] + values[3:]) * np.float32(0.25)
