"""Where each node of a batch sits in the padded sequences that attention works on."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from geolink.graphs.schema import NODE_TYPES
from geolink.models.graph_batch import GraphBatch
from geolink.models.positions import as_points


@dataclass(frozen=True)
class Slots:
    """Places of the fused nodes of B tiles in sequences of N slots.

    Attributes:
        node: (K,) row of each fused node among all nodes, types joined in the schema's order.
        tile: (K,) its tile.
        slot: (K,) its place in the tile's sequence.
        shape: (B, N); N is at least 1.
    """

    node: Tensor
    tile: Tensor
    slot: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, graphs: GraphBatch, max_nodes: int | None) -> Self:
        """Slots of all nodes, or of the `max_nodes` largest of each tile."""
        tile = torch.cat([graphs.tile[kind] for kind in NODE_TYPES])
        node = torch.arange(len(tile), device=tile.device)
        if max_nodes is not None:
            node = node[_by_size(graphs)]
        node = node[tile[node].argsort(stable=True)]
        tile = tile[node]
        counts = torch.bincount(tile, minlength=graphs.size)
        starts = counts.cumsum(0) - counts
        slot = torch.arange(len(tile), device=tile.device) - starts[tile]
        length = max(int(counts.max()), 1)
        if max_nodes is not None and length > max_nodes:
            kept = slot < max_nodes
            node, tile, slot, length = node[kept], tile[kept], slot[kept], max_nodes
        return cls(node, tile, slot, (graphs.size, length))

    def pad(self, values: Tensor) -> Tensor:
        """(nodes, D) to (B, N, D), 0 where there is no node."""
        padded = values.new_zeros(*self.shape, values.shape[1])
        padded[self.tile, self.slot] = values[self.node]
        return padded

    def unpad(self, padded: Tensor) -> Tensor:
        """(B, N, D) to (nodes, D), the inverse of `pad` where every node has a slot."""
        values = padded.new_empty(len(self.node), padded.shape[2])
        values[self.node] = padded[self.tile, self.slot]
        return values

    def padding(self) -> Tensor:
        """(B, N) True where there is no node."""
        padding = torch.ones(self.shape, dtype=torch.bool, device=self.tile.device)
        padding[self.tile, self.slot] = False
        return padding


def _by_size(graphs: GraphBatch) -> Tensor:
    """Order of all nodes, largest first, that does not depend on the order of the input.

    Size is a node's area or length in patches where its coverage is known, else the diagonal of the
    rectangle around its key-points; points have none. Equal sizes are ordered by place.
    """
    sizes, places = [], []
    for kind in NODE_TYPES:
        xy = as_points(graphs.keypoints[kind])  # (N, K, 2)
        covered = graphs.coverage.get(kind)
        span = (xy.amax(1) - xy.amin(1)).norm(dim=1)
        sizes.append(span if covered is None else covered.sum(1))
        places.append(xy.mean(1))
    place = torch.cat(places)
    order = place[:, 0].argsort(stable=True)
    for key in (place[:, 1], -torch.cat(sizes)):
        order = order[key[order].argsort(stable=True)]
    return order
