"""A simulated orthophoto: the land cover of OpenStreetMap rendered as RGB pixels.

Only what a camera would see is drawn: roofs, roads, rails, trees, lawns, fields, bare ground,
water, pitches. The legal use of a zone (`landuse=residential`, `amenity=school`, ...) and the use
of a building (`building=office`) never reach a pixel, so that labels made from them do not leak
through the picture.
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.errors import CRSError
from geolink.grid import GridSpec, require_metric
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.entities import OsmEntities
from geolink.sources.landcover.camera import cast_shadows, expose
from geolink.sources.landcover.canvas import Canvas
from geolink.sources.landcover.cover import Cover
from geolink.sources.landcover.noise import Floats
from geolink.sources.landcover.shapes import Density, mapped_trees, prepare_shapes, road_cars
from geolink.sources.landcover.style import SceneStyle, shape_colours
from geolink.sources.landcover.surfaces import (
    fill_ground,
    greenness,
    paint_patterns,
    paint_road_cars,
    texture,
)
from geolink.sources.landcover.trees import crown_heights, paint_crowns


class SimulatedImagery:
    """An `ImageSource` that renders the land cover of OSM entities.

    Pixels are a pure function of entities, seed and grid: noise follows world coordinates, so that
    overlapping tiles of one lattice agree exactly. Instances can be pickled.

    Args:
        entities: in a metric CRS.
        seed: decides light, season, camera and the colours of objects; not negative.
        sea: the open sea in the same CRS, which OSM maps by its coastline only.

    Raises:
        CRSError: the entities are not in a metric CRS.
    """

    def __init__(
        self, entities: OsmEntities, *, seed: int = 0, sea: shapely.Geometry | None = None
    ) -> None:
        self._crs = require_metric(entities.crs)
        self._source = entities.info
        self._shapes = prepare_shapes(entities, sea=sea)
        self._index = shapely.STRtree(self._shapes.geometry)
        self._trees = mapped_trees(entities)
        self._cars = road_cars(entities)
        self._density = Density.of(self._shapes, entities)
        self._set_seed(seed)

    def _set_seed(self, seed: int) -> None:
        self._seed = seed
        self._style = SceneStyle.from_seed(seed)
        self._colours = shape_colours(self._shapes, self._style, seed)

    def with_seed(self, seed: int) -> "SimulatedImagery":
        """The same place seen by another flight; shares the prepared geometry."""
        other = copy.copy(self)
        other._set_seed(seed)
        return other

    @property
    def info(self) -> SourceInfo:
        """The OSM data that is drawn, marked as simulated."""
        description = f"simulated orthophoto of {self._source.description} (seed {self._seed})"
        return replace(self._source, description=description, simulated=True)

    def read(self, grid: GridSpec) -> ImageTile:
        """Pixels of `grid`, valid everywhere.

        Raises:
            CRSError: `grid` is in another CRS than the entities.
        """
        if grid.crs != self._crs:
            raise CRSError(
                f"the grid is in {grid.crs.name} but the entities are in {self._crs.name}; "
                "reproject the entities first"
            )
        canvas = Canvas.of(grid)
        rgb = expose(self._draw(canvas), canvas, self._style, seed=self._seed)
        return ImageTile(rgb, np.ones(grid.shape, dtype=bool))

    def _draw(self, canvas: Canvas) -> Floats:
        """(3, rows, cols) colours of the canvas in grey levels, before air and camera."""
        style = self._style
        drawn = np.sort(self._index.query(shapely.box(*canvas.bounds)))
        shapes = self._shapes.take(drawn)
        top = canvas.burn(shapes.geometry)
        cover = _by_number(shapes.cover, ground=Cover.GROUND).take(top)
        colours = _by_number(self._colours[drawn])
        rgb = np.ascontiguousarray(colours.T).take(top, axis=1)
        green = greenness(canvas, self._density)
        fill_ground(rgb, cover, green, canvas, style)
        paint_patterns(rgb, top, cover, shapes=shapes, canvas=canvas, style=style)
        height = _by_number(shapes.height).take(top)
        paint_road_cars(rgb, height, self._cars, cover=cover, canvas=canvas)
        rgb *= texture(cover, canvas)
        crowns = crown_heights(cover, green, canvas, self._trees)
        paint_crowns(rgb, crowns, canvas, style)
        cast_shadows(rgb, np.maximum(height, crowns), canvas, style)
        return rgb


def _by_number(values: NDArray[Any], *, ground: int = 0) -> NDArray[Any]:
    """`values` of shapes as a table for the numbers of `Canvas.burn`, where 0 is ground."""
    first = np.full((1, *values.shape[1:]), ground, dtype=values.dtype)
    return np.concatenate([first, values])
