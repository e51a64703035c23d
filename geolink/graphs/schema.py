"""What a graph of OSM entities holds: node types, relations, key-points. Names, no geometry."""

from typing import Literal, TypeAlias

NodeType: TypeAlias = Literal["point", "line", "polygon"]
EdgeType: TypeAlias = tuple[NodeType, Literal["to"], NodeType]

NODE_TYPES: tuple[NodeType, ...] = ("point", "line", "polygon")

_SAME = ("self", "touches", "overlaps", "covers", "covered-by", "equals")

# Columns of the one-hot edge attributes; an edge's name reads source, relation, target.
RELATIONS: dict[EdgeType, tuple[str, ...]] = {
    ("polygon", "to", "polygon"): _SAME,
    ("line", "to", "line"): _SAME,
    ("line", "to", "polygon"): ("touches", "crosses", "covered-by"),
    ("polygon", "to", "line"): ("touches", "crosses", "covers"),
    ("point", "to", "point"): ("self", "neighbour"),
    ("point", "to", "line"): ("touches", "within"),
    ("line", "to", "point"): ("touches", "contains"),
    ("point", "to", "polygon"): ("touches", "within"),
    ("polygon", "to", "point"): ("touches", "contains"),
}
EDGE_TYPES: tuple[EdgeType, ...] = tuple(RELATIONS)

# Key-points are x, y pairs in tile units: x right, y down, both 0..1.
KEYPOINT_WIDTHS: dict[NodeType, int] = {"point": 2, "line": 6, "polygon": 8}
POINT_ITSELF = slice(0, 2)
LINE_CENTROID = slice(0, 2)
LINE_FIRST = slice(2, 4)
LINE_LAST = slice(4, 6)
POLYGON_INNER = slice(0, 6)  # three points inside, around the centroid
POLYGON_CENTROID = slice(6, 8)
