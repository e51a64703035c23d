"""The sea, which OSM maps by its edge only: `natural=coastline` ways with water on their right."""

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.grid import Bounds
from geolink.sources.entities import OsmEntities

# An area may reach a little beyond its extract; a coastline that ends this close to the area's edge
# (metres) is led straight to it.
EDGE_GAP = 500.0

# The coastline is asked on both sides, this far from it, once every so many metres.
SIDE_OFFSET = 0.1
SIDE_STEP = 20.0

# Length of coastline that must agree on a face being sea; less means the coastline is incomplete.
MIN_AGREEMENT = 0.9


def sea_polygons(entities: OsmEntities, bounds: Bounds) -> shapely.MultiPolygon:
    """The sea inside `bounds`, in the entities' CRS.

    The coastline and the edge of `bounds` cut the area into faces; a face is sea where the
    coastline along it has it on the right. Where the coastline is incomplete, the two sides meet in
    one face, and that face is not called sea.

    Returns:
        The sea, possibly empty. Without any coastline nothing is said to be sea, as the open sea
        and the inland look the same then.
    """
    coast = _coastline(entities)
    area = shapely.box(*bounds)
    coast = coast[shapely.intersects(coast, area)]
    if not len(coast):
        return shapely.MultiPolygon()
    faces = _faces(coast, area)
    sea = shapely.union_all(faces[_is_sea(faces, coast)])
    return shapely.MultiPolygon(list(shapely.get_parts(sea)))


def _coastline(entities: OsmEntities) -> NDArray[np.object_]:
    """Coastline ways in their direction; an island that is also an area has its land inside."""
    lines = _tagged_coastline(entities.line)
    islands = shapely.orient_polygons(_tagged_coastline(entities.polygon))  # land on the left
    return np.concatenate([lines, shapely.get_exterior_ring(islands)])


def _tagged_coastline(frame: gpd.GeoDataFrame) -> NDArray[np.object_]:
    mask = [
        tags.get("natural") == "coastline" and osm_id.startswith("way/")
        for tags, osm_id in zip(frame["tags"], frame["osm_id"], strict=True)
    ]
    return np.asarray(frame.geometry.to_numpy()[np.array(mask, dtype=bool)])


def _faces(coast: NDArray[np.object_], area: shapely.Polygon) -> NDArray[np.object_]:
    """The pieces into which the coastline cuts `area`."""
    inside = shapely.get_parts(shapely.intersection(coast, area))
    edge = shapely.get_exterior_ring(area)
    noded = shapely.union_all([*inside, *_bridges(inside, edge), edge])
    return np.asarray(shapely.get_parts(shapely.polygonize(shapely.get_parts(noded))))


def _bridges(lines: NDArray[np.object_], edge: shapely.LinearRing) -> NDArray[np.object_]:
    """Straight connections from loose ends near the edge to the edge."""
    ends = np.concatenate([shapely.get_point(lines, 0), shapely.get_point(lines, -1)])
    coordinates, count = np.unique(shapely.get_coordinates(ends), axis=0, return_counts=True)
    loose = shapely.points(coordinates[count == 1])
    gap = shapely.distance(loose, edge)
    return np.asarray(shapely.shortest_line(loose[(gap > 0) & (gap <= EDGE_GAP)], edge))


def _is_sea(faces: NDArray[np.object_], coast: NDArray[np.object_]) -> NDArray[np.bool_]:
    """True for faces that lie on the right of the coastline along them."""
    coordinates, line = shapely.get_coordinates(
        shapely.segmentize(coast, SIDE_STEP), return_index=True
    )
    same_line = line[1:] == line[:-1]
    step = np.diff(coordinates, axis=0)[same_line]
    middle = coordinates[:-1][same_line] + step / 2
    length = np.hypot(*step.T)
    left = np.column_stack([-step[:, 1], step[:, 0]]) / np.maximum(length, 1e-12)[:, None]
    tree = shapely.STRtree(faces)
    water = _weight_inside(tree, middle - SIDE_OFFSET * left, length)
    land = _weight_inside(tree, middle + SIDE_OFFSET * left, length)
    return (water > 0) & (water >= MIN_AGREEMENT * (water + land))


def _weight_inside(
    tree: shapely.STRtree, points: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of the weights of the points inside each of the tree's polygons."""
    point, face = tree.query(shapely.points(points), predicate="within")
    total = np.zeros(len(tree.geometries))
    np.add.at(total, face, weight[point])
    return total
