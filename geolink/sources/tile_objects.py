"""The OSM objects of a scene, found by tile, cut to it, and put into tile units."""

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from geolink.grid import Bounds
from geolink.sources.entities import ENTITY_TYPES, OsmEntities
from geolink.sources.shard_files import TileObjects

Geometries = NDArray[np.object_]


class ObjectIndex:
    """The OSM objects of a scene, found and cut by tile.

    Args:
        entities: in any CRS.
        crs: system of the tiles.
    """

    def __init__(self, entities: OsmEntities, crs: CRS) -> None:
        frames = [entities.frame(kind).to_crs(crs) for kind in ENTITY_TYPES]
        self._geometry = np.concatenate([frame.geometry.to_numpy() for frame in frames])
        self._ids = np.concatenate([frame["osm_id"].to_numpy(dtype=object) for frame in frames])
        self._tags: list[dict[str, str]] = [tags for frame in frames for tags in frame["tags"]]
        self._tree = shapely.STRtree(self._geometry)

    def within(self, bounds: Bounds) -> TileObjects:
        """The parts of objects inside a tile, in tile units; points first, polygons last."""
        rows = np.sort(self._tree.query(shapely.box(*bounds), predicate="intersects"))
        parts, part_of = clipped(self._geometry[rows], bounds)
        origin, size = np.array([bounds.west, bounds.north]), (bounds.width, -bounds.height)
        parts = shapely.transform(parts, lambda xy: (xy - origin) / size)
        valid = shapely.is_valid(parts)  # a sliver may collapse under rounding
        rows = rows[part_of[valid]]
        return TileObjects(parts[valid], self._ids[rows], [self._tags[row] for row in rows])


def clipped(shapes: Geometries, bounds: Bounds) -> tuple[Geometries, NDArray[np.int64]]:
    """Single parts inside `bounds`, of their object's dimension, and the row each comes from.

    Objects that lie within pass unchanged, as in a graph.
    """
    west, south, east, north = shapely.bounds(shapes).T if len(shapes) else np.empty((4, 0))
    inside = (bounds.west <= west) & (bounds.south <= south)
    inside &= (east <= bounds.east) & (north <= bounds.north)
    cut = shapes.copy()
    cut[~inside] = shapely.intersection(shapes[~inside], shapely.box(*bounds))
    parts, part_of = shapely.get_parts(cut, return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)  # a collection may hold multi-parts
    part_of = part_of[inner].astype(np.int64)
    same = shapely.get_dimensions(parts) == shapely.get_dimensions(shapes)[part_of]
    keep = same & ~shapely.is_empty(parts)
    return parts[keep], part_of[keep]
