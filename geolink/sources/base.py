"""What every source hands on: pixels with a validity mask, and where they come from."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon

from geolink.grid import GridSpec

Area = Polygon | MultiPolygon


@dataclass(frozen=True)
class SourceInfo:
    """Provenance of a source, carried into every output made from it.

    Attributes:
        description: what it is, e.g. the file name.
        date: acquisition or extract date (ISO 8601), None where unknown.
        licence: SPDX id or short name, None where unknown.
        attribution: the credit line that the licence asks for.
        simulated: True where pixels are rendered, not observed.
    """

    description: str
    date: str | None = None
    licence: str | None = None
    attribution: str | None = None
    simulated: bool = False


@dataclass(frozen=True)
class ImageTile:
    """RGB pixels of one grid.

    Attributes:
        rgb: (3, height, width) uint8; 0 where there is no image.
        valid: (height, width) bool, True where there is an image.
    """

    rgb: NDArray[np.uint8]
    valid: NDArray[np.bool_]


class ImageSource(Protocol):
    """Anything that can be read on a metric grid.

    Reading is a pure function of the grid: two overlapping grids get the same values in the
    pixels that they share, whatever was read before.
    """

    @property
    def info(self) -> SourceInfo:
        """Where the pixels come from."""
        ...

    def read(self, grid: GridSpec) -> ImageTile:
        """Pixels of `grid`; parts outside the source are invalid."""
        ...
