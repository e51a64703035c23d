"""Shapes with a class each, prepared once and drawn as labels on any grid."""

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import rasterize

from geolink.errors import CRSError
from geolink.grid import GridSpec
from geolink.legend import IGNORE


class DrawnShapes:
    """Polygons in drawing order: where they overlap, the later one is seen.

    Args:
        geometry: (n,) polygons, in `crs`.
        classes: (n,) class id of each.
        crs: a metric CRS.
    """

    def __init__(self, geometry: NDArray[np.object_], classes: NDArray[np.uint8], crs: CRS) -> None:
        self._geometry = geometry
        self._classes = classes.tolist()
        self._crs = crs
        self._tree = shapely.STRtree(geometry)
        shapely.prepare(geometry)

    def read(self, grid: GridSpec) -> NDArray[np.uint8]:
        """(height, width) class ids of the pixels whose centres are in a shape, IGNORE elsewhere.

        Raises:
            CRSError: the grid is in another CRS than the shapes.
        """
        if grid.crs != self._crs:
            raise CRSError(f"labels are in {self._crs.name}, the grid is in {grid.crs.name}")
        area = shapely.box(*grid.bounds)
        rows = np.sort(self._tree.query(area, predicate="intersects"))
        if not len(rows):
            return np.full(grid.shape, IGNORE, dtype=np.uint8)
        # A pixel beyond the edge: cutting there changes no pixel inside.
        parts = shapely.clip_by_rect(self._geometry[rows], *grid.bounds.buffered(grid.gsd))
        shapes = [
            (part, self._classes[row])
            for part, row in zip(parts, rows, strict=True)
            if not shapely.is_empty(part)
        ]
        if not shapes:
            return np.full(grid.shape, IGNORE, dtype=np.uint8)
        pixels: NDArray[np.uint8] = rasterize(
            shapes, out_shape=grid.shape, fill=IGNORE, transform=grid.transform, dtype="uint8"
        )
        return pixels
