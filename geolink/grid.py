"""Where pixels are: bounds, pixel windows, and north-up metric grids.

A scene has one grid (a UTM zone, square pixels of `gsd` metres, north up). Tiles are windows of
that grid, so that every stage speaks about the same pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from affine import Affine
from pyproj import CRS, Transformer
from shapely import Geometry, transform

from geolink.errors import CRSError, InputError

WGS84 = CRS.from_epsg(4326)

# UTM is defined between these latitudes; outside, the polar stereographic systems (UPS) apply.
UTM_SOUTH, UTM_NORTH = -80.0, 84.0


class Bounds(NamedTuple):
    """Edges of a rectangle in the units of some CRS."""

    west: float
    south: float
    east: float
    north: float

    @property
    def width(self) -> float:
        """East minus west."""
        return self.east - self.west

    @property
    def height(self) -> float:
        """North minus south."""
        return self.north - self.south

    def intersects(self, other: "Bounds") -> bool:
        """True where the interiors of both rectangles meet."""
        return (
            self.west < other.east
            and other.west < self.east
            and self.south < other.north
            and other.south < self.north
        )

    def buffered(self, distance: float) -> "Bounds":
        """This rectangle grown by `distance` on every side."""
        return Bounds(
            self.west - distance, self.south - distance, self.east + distance, self.north + distance
        )


@dataclass(frozen=True, order=True)
class PixelWindow:
    """A rectangle of pixels: offsets of its upper left pixel, and its size."""

    row_off: int
    col_off: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """(rows, columns) slices of an array that covers the whole grid."""
        return (
            slice(self.row_off, self.row_off + self.height),
            slice(self.col_off, self.col_off + self.width),
        )

    def intersection(self, other: "PixelWindow") -> "PixelWindow | None":
        """The shared pixels, or None where there are none."""
        row = max(self.row_off, other.row_off)
        col = max(self.col_off, other.col_off)
        height = min(self.row_off + self.height, other.row_off + other.height) - row
        width = min(self.col_off + self.width, other.col_off + other.width) - col
        return PixelWindow(row, col, height, width) if height > 0 and width > 0 else None


@dataclass(frozen=True)
class GridSpec:
    """A north-up grid of square pixels in a metric CRS.

    Attributes:
        crs: projected CRS with metres as unit.
        west, north: upper left corner, metres.
        gsd: ground sampling distance, metres per pixel.
        height, width: size in pixels.
    """

    crs: CRS
    west: float
    north: float
    gsd: float
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"a grid needs at least one pixel, got {self.height} x {self.width}")
        if not (math.isfinite(self.gsd) and self.gsd > 0):
            raise InputError(f"the ground sampling distance must be positive, got {self.gsd}")

    @classmethod
    def from_bounds(cls, crs: CRS, bounds: Bounds, gsd: float) -> "GridSpec":
        """The smallest grid that covers `bounds`, with edges on whole multiples of `gsd`.

        Edges on multiples make the pixels of one place the same whatever the area asked for.
        """
        require_metric(crs)
        # The tolerance keeps float noise on an exact edge from adding a row of pixels.
        west = math.floor(bounds.west / gsd + 1e-6)
        east = math.ceil(bounds.east / gsd - 1e-6)
        south = math.floor(bounds.south / gsd + 1e-6)
        north = math.ceil(bounds.north / gsd - 1e-6)
        return cls(crs, west * gsd, north * gsd, gsd, max(north - south, 1), max(east - west, 1))

    @property
    def transform(self) -> Affine:
        """Pixel (column, row) to metres (x, y)."""
        return Affine(self.gsd, 0.0, self.west, 0.0, -self.gsd, self.north)

    @property
    def bounds(self) -> Bounds:
        """Outer edges in metres."""
        return Bounds(
            self.west,
            self.north - self.height * self.gsd,
            self.west + self.width * self.gsd,
            self.north,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def window(self) -> PixelWindow:
        """All pixels of the grid as a window."""
        return PixelWindow(0, 0, self.height, self.width)

    def subgrid(self, window: PixelWindow) -> "GridSpec":
        """The grid of one window; it may reach beyond this grid's edges."""
        return GridSpec(
            self.crs,
            self.west + window.col_off * self.gsd,
            self.north - window.row_off * self.gsd,
            self.gsd,
            window.height,
            window.width,
        )

    def blocks(self, side: int) -> Iterator[PixelWindow]:
        """Windows of at most `side` pixels that tile the grid, row by row."""
        for row in range(0, self.height, side):
            for col in range(0, self.width, side):
                yield PixelWindow(
                    row, col, min(side, self.height - row), min(side, self.width - col)
                )


def require_metric(crs: CRS | None) -> CRS:
    """The one gate before anything is measured: `crs` must be projected, with metres as unit.

    Raises:
        CRSError: `crs` is missing, geographic, or in other units.
    """
    if crs is None:
        raise CRSError("the data has no coordinate reference system; assign one (gdal_edit, QGIS)")
    if not crs.is_projected or any(axis.unit_conversion_factor != 1.0 for axis in crs.axis_info):
        raise CRSError(f"{crs.name} does not measure in metres; reproject to a UTM zone first")
    return crs


def utm_crs(lon: float, lat: float) -> CRS:
    """The UTM zone of a point in degrees; the polar stereographic system beyond 84 N and 80 S."""
    if lat >= UTM_NORTH:
        return CRS.from_epsg(32661)
    if lat < UTM_SOUTH:
        return CRS.from_epsg(32761)
    zone = int((lon + 180) // 6) % 60 + 1  # a zone is 6 degrees wide
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def reproject(geometry: Geometry, source: CRS, target: CRS) -> Geometry:
    """`geometry` in another CRS, x before y on both sides."""
    if source == target:
        return geometry
    to_target = Transformer.from_crs(source, target, always_xy=True)
    return transform(geometry, lambda xy: np.column_stack(to_target.transform(*xy.T)))


def reproject_bounds(bounds: Bounds, source: CRS, target: CRS) -> Bounds:
    """The rectangle in `target` that contains `bounds`, with its curved edges followed."""
    if source == target:
        return bounds
    to_target = Transformer.from_crs(source, target, always_xy=True)
    return Bounds(*to_target.transform_bounds(*bounds, densify_pts=21))
