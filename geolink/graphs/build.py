"""The OSM graph of one tile: nodes with key-points, edges with spatial relations.

Implements the graph of GeoLink (Bai et al. 2025, arXiv 2509.26016, section 3.1).
"""

import hashlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import geopandas as gpd
import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from geolink.errors import CRSError, DroppedEntitiesWarning, GraphError
from geolink.graphs.coverage import line_shares, polygon_shares
from geolink.graphs.relations import Floats, Geometries, Indices, relations
from geolink.graphs.schema import KEYPOINT_WIDTHS, NODE_TYPES
from geolink.graphs.tags import TagEncoder, encode_tags
from geolink.grid import Bounds
from geolink.sources.entities import EntityType
from geolink.sources.tags import frame_tags

_DIMENSIONS: dict[EntityType, int] = {"point": 0, "line": 1, "polygon": 2}
_ID_COLUMNS = ("osm_id", "id")

_INNER_ANGLES = np.radians([0.0, 120.0, 240.0])
_PULL = 0.7  # a point outside its polygon keeps this share of its distance to the centroid
_PULLS = 16  # after as many steps less than 1 % of the distance is left


def build_graph(
    polygons: gpd.GeoDataFrame,
    lines: gpd.GeoDataFrame,
    points: gpd.GeoDataFrame,
    bounds: Bounds | Sequence[float],
    *,
    tags: TagEncoder,
    key_counts: Mapping[str, int],
    coverage_side: int | None = 14,
) -> HeteroData:
    """Turns the OSM entities of one tile into a heterogeneous graph.

    Geometries are clipped to `bounds`, and their parts become nodes of their own; a polygon keeps
    its rings. All three node types and all nine edge types are present, empty where there is
    nothing. Nodes keep the order of the frames' rows.

    Args:
        polygons: entities in one CRS, with a column `tags` (dicts), or `label`
            (`key:value;key:value`), or one column per tag. A column `osm_id` or `id` seeds the
            inner points; without it, the geometry does.
        lines: likewise.
        points: likewise.
        bounds: west, south, east, north of the tile, in the frames' CRS.
        tags: turns tag strings into vectors of length D.
        key_counts: corpus count per key; a tag weighs log(count) in its node's feature.
        coverage_side: cells per side of the tile in which lines and polygons are measured: the
            patches of a model's tile (`ModelConfig.coverage_side`), by default those of 224 px;
            None leaves that out.

    Returns:
        Per node type `x` (N, D) float32 semantics, `keypoints` (N, 2 | 6 | 8) float32 in tile
        units, and `source` (N,) int64 row in the input frame; of lines and polygons `coverage`
        (N, coverage_side^2) float32 (see `geolink.graphs.coverage`); per edge type `edge_index`
        (2, E) int64 and `edge_attr` (E, relations) float32 one-hot; and `bounds` (4,) float64.

    Raises:
        GraphError: the bounds are empty or not finite.
        CRSError: the frames are in different systems.
    """
    frames: dict[EntityType, gpd.GeoDataFrame] = {
        "point": points,
        "line": lines,
        "polygon": polygons,
    }
    _require_one_crs(frames)
    return graph_from_arrays(
        {kind: frame.geometry.to_numpy() for kind, frame in frames.items()},
        {kind: encode_tags(frame_tags(frame), tags, key_counts) for kind, frame in frames.items()},
        bounds,
        identifiers={
            kind: ids for kind, frame in frames.items() if (ids := _ids(frame)) is not None
        },
        coverage_side=coverage_side,
    )


def graph_from_arrays(
    geometries: Mapping[EntityType, Geometries],
    semantics: Mapping[EntityType, NDArray[np.float32]],
    bounds: Bounds | Sequence[float],
    *,
    identifiers: Mapping[EntityType, NDArray[np.object_]] | None = None,
    coverage_side: int | None = None,
) -> HeteroData:
    """`build_graph` for geometries whose tags are already encoded.

    Args:
        geometries: per type (N,) geometries in one CRS.
        semantics: per type (N, D) features of the same rows.
        bounds: west, south, east, north of the tile, in the same CRS.
        identifiers: per type (N,) names of the objects, the seeds of polygons' inner points; a
            type that is not in it uses its geometries.
        coverage_side: as for `build_graph`; None by default.

    Returns:
        A graph as `build_graph` describes it.

    Raises:
        GraphError: the bounds are empty or not finite, or rows do not correspond.
    """
    tile = _checked_bounds(bounds)
    graph = HeteroData()
    graph.bounds = torch.tensor(tile, dtype=torch.float64)
    nodes: dict[EntityType, Geometries] = {}
    for kind in NODE_TYPES:
        _require_rows(kind, geometries[kind], semantics[kind])
        nodes[kind], rows = _clip(kind, geometries[kind], tile)
        keys = None if identifiers is None else identifiers.get(kind)
        seeds = geometries[kind] if keys is None else keys
        graph[kind].x = torch.from_numpy(semantics[kind][rows].astype(np.float32, copy=False))
        graph[kind].keypoints = torch.from_numpy(_keypoints(kind, nodes[kind], seeds[rows], tile))
        graph[kind].source = torch.from_numpy(rows)
    if coverage_side is not None:
        for measure, kind in ((line_shares, "line"), (polygon_shares, "polygon")):
            shares = measure(nodes[kind], tile, side=coverage_side)
            graph[kind].coverage = torch.from_numpy(shares)
    for edge_type, (index, attributes) in relations(nodes).items():
        graph[edge_type].edge_index = torch.from_numpy(index)
        graph[edge_type].edge_attr = torch.from_numpy(attributes)
    return graph


def _checked_bounds(bounds: Bounds | Sequence[float]) -> Bounds:
    tile = Bounds(*(float(edge) for edge in bounds))
    if not all(map(math.isfinite, tile)) or tile.width <= 0 or tile.height <= 0:
        raise GraphError(f"a tile needs west < east and south < north, got bounds {tuple(tile)}")
    return tile


def _require_one_crs(frames: Mapping[EntityType, gpd.GeoDataFrame]) -> None:
    systems = {kind: frame.crs for kind, frame in frames.items() if frame.crs is not None}
    if any(crs != next(iter(systems.values())) for crs in systems.values()):
        names = ", ".join(f"{kind} in {crs.name}" for kind, crs in systems.items())
        raise CRSError(f"the frames of a graph need one CRS, got {names}; reproject them first")


def _require_rows(kind: EntityType, geometries: Geometries, semantics: NDArray[np.float32]) -> None:
    if semantics.ndim != 2 or len(semantics) != len(geometries):
        raise GraphError(
            f"{len(geometries)} {kind} geometries need as many rows of features, got an array of"
            f" shape {semantics.shape}"
        )


def _ids(frame: gpd.GeoDataFrame) -> NDArray[np.object_] | None:
    column = next((name for name in _ID_COLUMNS if name in frame), None)
    return None if column is None else frame[column].to_numpy(dtype=object)


# Nodes


def _clip(kind: EntityType, geometries: Geometries, tile: Bounds) -> tuple[Geometries, Indices]:
    """Single-part geometries inside `tile`, and the row that each comes from.

    Geometries that lie within the tile pass unchanged: an intersection would keep their shape, yet
    may rotate their rings.
    """
    rows = np.flatnonzero(_usable(kind, geometries))
    shapes = shapely.force_2d(geometries[rows])
    west, south, east, north = shapely.bounds(shapes).T if len(shapes) else np.empty((4, 0))
    inside = (tile.west <= west) & (tile.south <= south)
    inside &= (east <= tile.east) & (north <= tile.north)
    shapes[~inside] = shapely.intersection(shapes[~inside], shapely.box(*tile))
    parts, part_of = _explode(shapes)
    keep = (shapely.get_dimensions(parts) == _DIMENSIONS[kind]) & ~shapely.is_empty(parts)
    return parts[keep], rows[part_of[keep]].astype(np.int64)


def _usable(kind: EntityType, geometries: Geometries) -> NDArray[np.bool_]:
    """True for valid geometries of the right dimension; warns about the others."""
    usable = shapely.is_valid(geometries) & ~shapely.is_empty(geometries)
    usable &= shapely.get_dimensions(geometries) == _DIMENSIONS[kind]
    if not usable.all():
        warnings.warn(
            f"{np.count_nonzero(~usable)} of {len(usable)} {kind} geometries are missing, empty,"
            f" invalid or not of type {kind}, and are left out of the graph",
            DroppedEntitiesWarning,
            stacklevel=4,
        )
    return usable


def _explode(shapes: Geometries) -> tuple[Geometries, Indices]:
    """Single-part geometries, and the position that each comes from; collections may nest."""
    parts, part_of = shapely.get_parts(shapes, return_index=True)
    while (shapely.get_type_id(parts) >= shapely.GeometryType.MULTIPOINT).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        part_of = part_of[inner]
    return parts, part_of


def _keypoints(
    kind: EntityType, nodes: Geometries, seeds: NDArray[np.object_], tile: Bounds
) -> NDArray[np.float32]:
    """(N, 2 | 6 | 8) key-points in tile units: x right, y down."""
    if kind == "point":
        xy = [_xy(nodes)]
    elif kind == "line":
        xy = [_xy(shapely.centroid(nodes)), _xy(nodes, at=0), _xy(nodes, at=-1)]
    else:
        centroids = _xy(shapely.centroid(nodes))
        xy = [*_inner_points(nodes, centroids, _shares(seeds)), centroids]
    scaled = (np.hstack(xy).reshape(-1, 2) - [tile.west, tile.north]) / [tile.width, -tile.height]
    return scaled.reshape(len(nodes), KEYPOINT_WIDTHS[kind]).astype(np.float32)


def _xy(shapes: Geometries, at: int | None = None) -> Floats:
    """(N, 2) coordinates of points, or of the vertices `at` a position of lines."""
    points = shapes if at is None else shapely.get_point(shapes, at)
    return np.column_stack((shapely.get_x(points), shapely.get_y(points)))


def _inner_points(polygons: Geometries, centroids: Floats, shares: Floats) -> list[Floats]:
    """Three (N, 2) points inside each polygon, around its centroid.

    A point starts between half the nearest and half the farthest vertex distance, at its share of
    the way, and is pulled towards the centroid until it is inside. Where the centroid itself lies
    outside that may fail; a point on the surface takes its place.
    """
    near, far = _vertex_distances(polygons, centroids)
    points = []
    for angle, share in zip(_INNER_ANGLES, shares.T, strict=True):
        radius = (near + share * (far - near)) / 2
        offset = radius[:, None] * [np.cos(angle), np.sin(angle)]
        points.append(_pulled_inside(polygons, centroids, offset))
    return points


def _pulled_inside(polygons: Geometries, centroids: Floats, offset: Floats) -> Floats:
    """(N, 2) `centroids + offset`, the offset shortened until the point is inside."""
    points = centroids + offset
    outside = np.flatnonzero(~shapely.contains_xy(polygons, points))
    for pull in range(1, _PULLS + 1):
        points[outside] = centroids[outside] + _PULL**pull * offset[outside]
        outside = outside[~shapely.contains_xy(polygons[outside], points[outside])]
    points[outside] = _xy(shapely.point_on_surface(polygons[outside]))
    return points


def _vertex_distances(polygons: Geometries, centroids: Floats) -> tuple[Floats, Floats]:
    """Distance from each centroid to the nearest and to the farthest vertex, (N,) each."""
    vertices, owner = shapely.get_coordinates(polygons, return_index=True)
    distance = np.hypot(*(vertices - centroids[owner]).T)
    first = np.searchsorted(owner, np.arange(len(polygons)))
    return np.minimum.reduceat(distance, first), np.maximum.reduceat(distance, first)


def _shares(seeds: NDArray[np.object_]) -> Floats:
    """(N, 3) numbers in [0, 1) that follow from each object's name or geometry alone."""
    digests = (hashlib.blake2b(seed, digest_size=12).digest() for seed in _seed_bytes(seeds))
    return np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, 3) / 2.0**32


def _seed_bytes(seeds: NDArray[np.object_]) -> Iterable[bytes]:
    if all(isinstance(seed, shapely.Geometry) for seed in seeds):
        wkb: Iterable[bytes] = shapely.to_wkb(shapely.normalize(seeds), byte_order=1)
        return wkb
    return (str(seed).encode() for seed in seeds)
