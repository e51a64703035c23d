"""Spatial relations among the objects of a tile: the edges of its graph.

After GeoLink (Bai et al. 2025, arXiv 2509.26016, section 3.1). Candidate pairs come from a spatial
index, and their DE-9IM matrices are matched as arrays, so the cost grows with the number of pairs
that meet, not with the number of pairs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError
from shapely import STRtree

from geolink.graphs.schema import RELATIONS, EdgeType
from geolink.sources.entities import EntityType

Geometries = NDArray[np.object_]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
# Edges of one type and what relates them, as a graph holds them.
Related = tuple[Indices, NDArray[np.float32]]
# The same by number: source nodes, target nodes, columns in the schema's relations.
Edges = tuple[Indices, Indices, Indices]

# DE-9IM patterns per relation; the first relation that matches is the pair's.
Rules = Mapping[str, tuple[str, ...]]
_TOUCHES = ("F**T*****", "FT*******", "F***T****")
_COVERS = ("T*****FF*", "*T****FF*", "***T**FF*", "****T*FF*")
_COVERED_BY = ("T*F**F***", "*TF**F***", "**FT*F***", "**F*TF***")
_SAME_TYPE: Rules = {
    "touches": _TOUCHES,
    "covers": _COVERS,
    "covered-by": _COVERED_BY,
    "overlaps": ("T*T***T**",),
}
_LINE_TO_POLYGON: Rules = {
    "touches": _TOUCHES,
    "covered-by": _COVERED_BY,
    "crosses": ("T*T******", "T*****T**"),
}
_POINT_TO_OTHER: Rules = {"touches": _TOUCHES, "within": ("T*F**F***",)}
_MIXED_PAIRS: tuple[tuple[EntityType, EntityType, Rules], ...] = (
    ("point", "line", _POINT_TO_OTHER),
    ("point", "polygon", _POINT_TO_OTHER),
    ("line", "polygon", _LINE_TO_POLYGON),
)
_NONE = -1  # the code of a pair without relation

_MOST_DEGREES = 360.0  # larger coordinates are no degrees


def relations(nodes: Mapping[EntityType, Geometries]) -> dict[EdgeType, Related]:
    """The edges of all nine types, in row-major order (self edges of points come last).

    Args:
        nodes: per type (N,) geometries, points, lines and polygons, in one CRS.

    Returns:
        Per type (2, E) edges, source and target, and (E, relations) attributes, one-hot over the
        schema's relations of that type.
    """
    trees: dict[EntityType, STRtree] = {
        "line": STRtree(nodes["line"]),
        "polygon": STRtree(nodes["polygon"]),
    }
    edges: dict[EdgeType, Edges] = {
        ("point", "to", "point"): _point_edges(shapely.get_coordinates(nodes["point"]))
    }
    for a, b, rules in _MIXED_PAIRS:
        i, j = trees[b].query(nodes[a], predicate="intersects")
        code = _codes(nodes[a][i], nodes[b][j], rules, RELATIONS[a, "to", b])
        edges[a, "to", b] = _row_major(i, j, code)
        edges[b, "to", a] = _row_major(j, i, code)  # the columns of both directions correspond
    for kind, tree in trees.items():
        edges[kind, "to", kind] = _same_type_edges(kind, nodes[kind], tree)
    return {edge_type: _one_hot(edge_type, *found) for edge_type, found in edges.items()}


def _same_type_edges(kind: EntityType, nodes: Geometries, tree: STRtree) -> Edges:
    """Each node to itself, and both directions of every pair that meets."""
    columns = RELATIONS[kind, "to", kind]
    i, j = tree.query(nodes, predicate="intersects")
    i, j = i[i < j], j[i < j]
    code = _codes(nodes[j], nodes[i], _SAME_TYPE, columns)
    mirror = np.arange(len(columns))
    covers, covered_by = columns.index("covers"), columns.index("covered-by")
    mirror[[covers, covered_by]] = covered_by, covers
    itself = np.arange(len(nodes))
    return _row_major(
        np.concatenate((itself, j, i)),
        np.concatenate((itself, i, j)),
        np.concatenate(
            (
                np.full(len(nodes), columns.index("self")),
                code,
                np.where(code == _NONE, _NONE, mirror[code]),
            )
        ),
    )


def point_relations(xy: Floats) -> Related:
    """The relations of (N, 2) points among themselves: (2, E) edges and (E, relations) attributes.

    They alone are not of two objects each: without a point its neighbours become neighbours.
    """
    return _one_hot(("point", "to", "point"), *_point_edges(xy))


def _point_edges(xy: Floats) -> Edges:
    """Delaunay neighbours in row-major order, then each point to itself."""
    columns = RELATIONS["point", "to", "point"]
    i, j = _delaunay_pairs(xy)
    order = np.lexsort((j, i))
    itself = np.arange(len(xy))
    code = np.repeat([columns.index("neighbour"), columns.index("self")], [len(i), len(xy)])
    return np.concatenate((i[order], itself)), np.concatenate((j[order], itself)), code


def _delaunay_pairs(xy: Floats) -> tuple[Indices, Indices]:
    """Both directions of every Delaunay edge; none where the points span no triangle.

    Where several triangulations are possible, the result depends on the order of the points, so
    they are sorted first. Points that coincide within rounding have one representative; the others
    stay without neighbours, as in the released graphs.
    """
    none = np.empty(0, dtype=np.int64)
    if len(xy) <= 3:
        return none, none
    order = np.lexsort((xy[:, 1], xy[:, 0]))
    placed = xy[order]
    # Far from the origin, as in a UTM zone, Qhull loses the digits that points differ in. Degrees
    # are small enough, and stay as they are: so the released graphs were made.
    if np.abs(placed).max() > _MOST_DEGREES:
        placed = placed - placed[0]
    try:
        starts, neighbours = Delaunay(placed).vertex_neighbor_vertices
    except QhullError:
        return none, none
    return order[np.repeat(np.arange(len(xy)), np.diff(starts))], order[neighbours]


def _codes(a: Geometries, b: Geometries, rules: Rules, columns: Sequence[str]) -> Indices:
    """(E,) column of the first rule that relate(a, b) matches, or `_NONE`."""
    # DE-9IM rows of nine characters: (E, 9), True where the two parts meet.
    meets = shapely.relate(a, b).astype("S9").view("S1").reshape(-1, 9) != b"F"
    return np.select(
        [_matches(meets, patterns) for patterns in rules.values()],
        [columns.index(name) for name in rules],
        default=_NONE,
    )


def _matches(meets: NDArray[np.bool_], patterns: Sequence[str]) -> NDArray[np.bool_]:
    """(E,) True where any pattern of T, F and * fits."""
    fits = np.zeros(len(meets), dtype=bool)
    for pattern in patterns:
        fixed = [k for k, want in enumerate(pattern) if want != "*"]
        fits |= (meets[:, fixed] == [pattern[k] == "T" for k in fixed]).all(axis=1)
    return fits


def _row_major(i: Indices, j: Indices, code: Indices) -> Edges:
    """Edges by source, then target, without those that carry no relation."""
    order = np.lexsort((j, i))
    order = order[code[order] != _NONE]
    return i[order], j[order], code[order]


def _one_hot(edge_type: EdgeType, i: Indices, j: Indices, code: Indices) -> Related:
    """(2, E) edge index and (E, relations) attributes."""
    attributes = np.zeros((len(code), len(RELATIONS[edge_type])), dtype=np.float32)
    attributes[np.arange(len(code)), code] = 1
    return np.stack((i, j)).astype(np.int64, copy=False), attributes
