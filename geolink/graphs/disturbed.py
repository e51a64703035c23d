"""Disturbances of graphs whose objects are not known, such as the published ones.

Where the objects are at hand, they are disturbed themselves (`geolink.sources.disturbances`) and
the graph is built of what is left, which is exact. A published graph has neither geometry nor tags:
objects can be missing from it, take the semantic features of others, or have their key-points
moved, but relations that depend on the geometry stay as they are.
"""

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import HeteroData

from geolink.graphs.relations import point_relations
from geolink.graphs.schema import NODE_TYPES, NodeType
from geolink.sources.disturbances import directions, draws, mistaken_rows, require_share


def drop_nodes(
    graph: HeteroData, share: float, *, seed: int | str, kinds: Collection[NodeType] = NODE_TYPES
) -> HeteroData:
    """The graph without a share of its objects; points that stay get new neighbours.

    Args:
        graph: of one tile; it is not changed.
        share: probability of each object to be missing, 0-1.
        seed: of the draw; it names the tile too.
        kinds: the types that objects are taken from.
    """
    require_share(share)
    keep = {
        kind: torch.from_numpy(draws(_names(graph, kind), seed, "drop") >= share) for kind in kinds
    }
    kept = graph.subgraph(keep)
    kept.bounds = graph.bounds
    if "point" in keep and not keep["point"].all():
        index, attributes = point_relations(kept["point"].keypoints.double().numpy())
        edges = kept["point", "to", "point"]
        edges.edge_index, edges.edge_attr = torch.from_numpy(index), torch.from_numpy(attributes)
    return kept


def shift_nodes(graph: HeteroData, distance: float, *, seed: int | str) -> HeteroData:
    """The graph with the key-points of every object moved, each in a direction of its own.

    Args:
        graph: of one tile; it is not changed.
        distance: how far, in sides of the tile.
        seed: of the directions; it names the tile too.
    """
    moved = graph.clone()
    for kind in NODE_TYPES:
        offset = torch.from_numpy(distance * directions(_names(graph, kind), seed)).float()
        points: Tensor = graph[kind].keypoints.unflatten(1, (-1, 2))  # (N, K, 2)
        moved[kind].keypoints = (points + offset[:, None]).flatten(1)
    return moved


def retag_nodes(graph: HeteroData, share: float, *, seed: int | str) -> HeteroData:
    """The graph with the semantic features of another object of its type for a share of them.

    Args:
        graph: of one tile; it is not changed.
        share: probability of each object to be mistaken for another, 0-1.
        seed: of the draw; it names the tile too.
    """
    mistaken = graph.clone()
    for kind in NODE_TYPES:
        rows = mistaken_rows(_names(graph, kind), share, seed)
        mistaken[kind].x = graph[kind].x[torch.from_numpy(rows)]
    return mistaken


def _names(graph: HeteroData, kind: NodeType) -> NDArray[np.int64]:
    """(N,) numbers of the objects that the nodes of a type are parts of."""
    numbers: NDArray[np.int64] = graph[kind].object.numpy()
    return numbers
