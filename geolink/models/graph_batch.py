"""Graphs of a batch of tiles as plain tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Batch, HeteroData
from torch_geometric.data.storage import NodeStorage

from geolink.errors import GraphError
from geolink.graphs.schema import (
    EDGE_TYPES,
    KEYPOINT_WIDTHS,
    NODE_TYPES,
    RELATIONS,
    EdgeType,
    NodeType,
)

_NO_ROWS = torch.zeros(0, dtype=torch.long)
COVERED_TYPES: tuple[NodeType, ...] = ("line", "polygon")
Graphs: TypeAlias = "Sequence[HeteroData | None] | Batch | HeteroData | GraphBatch | None"


@dataclass(frozen=True)
class GraphBatch:
    """Nodes and edges of all tiles of a batch, joined per type.

    Attributes:
        size: tiles B.
        x: per node type, (N, D) semantic vectors.
        keypoints: per node type, (N, 2 | 6 | 8) tile coordinates, x right and y down, 0-1.
        tile: per node type, (N,) tile that a node belongs to.
        edge_index: per edge type, (2, E) rows of source and target nodes in the joined tables.
        edge_attr: per edge type, (E, K) one-hot relation.
        coverage: for lines and polygons, (N, cells) share of each patch that a node covers; empty
            where the model does not use it.
    """

    size: int
    x: dict[NodeType, Tensor]
    keypoints: dict[NodeType, Tensor]
    tile: dict[NodeType, Tensor]
    edge_index: dict[EdgeType, Tensor]
    edge_attr: dict[EdgeType, Tensor]
    coverage: dict[NodeType, Tensor]

    @cached_property
    def has_nodes(self) -> Tensor:
        """(B,) True for tiles with at least one node."""
        tiles = torch.cat([self.tile[kind] for kind in NODE_TYPES])
        return torch.bincount(tiles, minlength=self.size) > 0

    def to(self, device: torch.device) -> "GraphBatch":
        """The same batch on another device."""
        tables = {
            table.name: {
                key: tensor.to(device, non_blocking=True)
                for key, tensor in getattr(self, table.name).items()
            }
            for table in fields(self)
            if table.name != "size"
        }
        return GraphBatch(self.size, **tables)


def collate(graphs: Graphs, size: int, *, semantic_dim: int, coverage_cells: int = 0) -> GraphBatch:
    """Joins the graphs of a batch.

    This does for a fixed schema what `Batch.from_data_list` does for any, in one concatenation per
    type; a ready `Batch` is taken as it is.

    Args:
        graphs: one graph or None per tile, a `Batch` of them, one graph for a batch of one tile,
            or None for no OSM at all.
        size: tiles in the batch.
        semantic_dim: width of the semantic vectors that the model expects.
        coverage_cells: patches of a tile that the nodes' coverage must speak of; 0 leaves it out.

    Raises:
        GraphError: there are not as many graphs as tiles, or one does not follow the schema.
    """
    parts = _as_list(graphs, size)
    count = graphs.num_graphs if isinstance(graphs, Batch) else len(parts)
    if count != size:
        raise GraphError(f"got {count} graphs for {size} images; give one graph (or None) each")
    present = [(tile, part) for tile, part in enumerate(parts) if part is not None]
    for _, part in present:
        _check_nodes(part, semantic_dim)
        _check_edges(part)
        if coverage_cells:
            _check_coverage(part, coverage_cells)
    return _join(present, size, semantic_dim, coverage_cells)


def _as_list(
    graphs: Sequence[HeteroData | None] | HeteroData | None, size: int
) -> list[HeteroData | None]:
    if graphs is None:
        return [None] * size
    return [graphs] if isinstance(graphs, HeteroData) else list(graphs)


def _join(
    present: list[tuple[int, HeteroData]], size: int, semantic_dim: int, coverage_cells: int
) -> GraphBatch:
    x, keypoints, tile, offsets = {}, {}, {}, {}
    for kind in NODE_TYPES:
        stores = [graph[kind] for _, graph in present]
        counts = [len(store.x) for store in stores]
        offsets[kind] = [0, *accumulate(counts)]
        x[kind] = _cat([store.x for store in stores], torch.zeros(0, semantic_dim))
        width = KEYPOINT_WIDTHS[kind]
        keypoints[kind] = _cat([store.keypoints for store in stores], torch.zeros(0, width))
        tile[kind] = _cat([_tiles(t, graph[kind]) for t, graph in present], _NO_ROWS)
    index, attr = {}, {}
    for edge in EDGE_TYPES:
        stores = [graph[edge] for _, graph in present]
        shifts = zip(offsets[edge[0]], offsets[edge[2]], strict=True)
        pairs = [
            store.edge_index + torch.tensor([[i], [j]], device=store.edge_index.device)
            for store, (i, j) in zip(stores, shifts, strict=False)
        ]
        index[edge] = _cat(pairs, _NO_ROWS.expand(2, 0), dim=1)
        attr[edge] = _cat(
            [store.edge_attr for store in stores], torch.zeros(0, len(RELATIONS[edge]))
        )
    coverage = {}
    for kind in COVERED_TYPES if coverage_cells else ():
        shares = [graph[kind].coverage for _, graph in present]
        coverage[kind] = _cat(shares, torch.zeros(0, coverage_cells))
    return GraphBatch(size, x, keypoints, tile, index, attr, coverage)


def _cat(tensors: list[Tensor], empty: Tensor, dim: int = 0) -> Tensor:
    """Joins tensors; `empty` stands for none and gives the type of number."""
    return torch.cat(tensors, dim).to(empty.dtype) if tensors else empty


def _tiles(tile: int, store: NodeStorage) -> Tensor:
    """(N,) tile of each node: the joined graphs of a `Batch` know it, any other graph is one."""
    if "batch" in store:
        batch: Tensor = store.batch
        return batch
    return torch.full((len(store.x),), tile, device=store.x.device)


def _check_nodes(graph: HeteroData, semantic_dim: int) -> None:
    """Refuse node types or tensors that are missing or of another width."""
    for kind in NODE_TYPES:
        if kind not in graph.node_types or not {"x", "keypoints"}.issubset(graph[kind].keys()):
            raise GraphError(f"the graph has no {kind} nodes with x and keypoints; build it again")
        if graph[kind].x.shape[1:] != (semantic_dim,):
            raise GraphError(
                f"{kind} nodes have semantic vectors of shape {tuple(graph[kind].x.shape[1:])}, "
                f"the model expects ({semantic_dim},); use the tag encoder that its card names"
            )
        if graph[kind].keypoints.shape != (len(graph[kind].x), KEYPOINT_WIDTHS[kind]):
            raise GraphError(f"{kind} nodes need {KEYPOINT_WIDTHS[kind]} key-point numbers each")


def _check_edges(graph: HeteroData) -> None:
    """Refuse edge types or tensors that are missing or of another width."""
    for edge in EDGE_TYPES:
        if edge not in graph.edge_types or not {"edge_index", "edge_attr"}.issubset(
            graph[edge].keys()
        ):
            raise GraphError(f"the graph has no {edge[0]}-{edge[2]} edges; build it again")
        if graph[edge].edge_attr.shape[1:] != (len(RELATIONS[edge]),):
            raise GraphError(
                f"{edge[0]}-{edge[2]} edges need {len(RELATIONS[edge])} relation columns"
            )


def _check_coverage(graph: HeteroData, cells: int) -> None:
    """Refuse a graph without the coverage that the model's positions need."""
    for kind in COVERED_TYPES:
        shape = (len(graph[kind].x), cells)
        if "coverage" not in graph[kind] or graph[kind].coverage.shape != shape:
            raise GraphError(
                f"{kind} nodes need the coverage of {cells} patches; "
                f"build the graph with coverage_side={math.isqrt(cells)}"
            )
