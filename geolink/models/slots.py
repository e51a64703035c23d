"""Where each node of a batch sits in the padded sequences that attention works on."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from geolink.graphs.schema import NODE_TYPES
from geolink.models.graph_batch import GraphBatch
from geolink.models.positions import as_points

_SHORT = 32  # sequences up to this length are padded to one another without loss


@dataclass(frozen=True)
class Slots:
    """Places of the fused nodes of T tiles in sequences of N slots.

    Attributes:
        tiles: (T,) the tiles, ascending.
        node: (K,) row of each fused node among all nodes, types joined in the schema's order.
        row: (K,) row of its tile in `tiles`.
        slot: (K,) its place in the tile's sequence.
        length: N, at least 1.
    """

    tiles: Tensor
    node: Tensor
    row: Tensor
    slot: Tensor
    length: int

    @classmethod
    def groups(cls, graphs: GraphBatch, max_nodes: int | None) -> list[Self]:
        """Slots of all nodes, or of the `max_nodes` largest of each tile.

        Tiles share a group where their numbers of nodes lie between the same powers of two, so that
        one dense tile does not make the others pay for its length.
        """
        node, tile, slot = _ranked(graphs, max_nodes)
        counts = torch.bincount(tile, minlength=graphs.size)
        level = counts.clamp_min(_SHORT).log2().ceil()
        groups = []
        for value in torch.unique(level):
            tiles = (level == value).nonzero()[:, 0]
            mine = level[tile] == value
            row = torch.searchsorted(tiles, tile[mine])
            length = max(int(counts[tiles].max()), 1)
            groups.append(cls(tiles, node[mine], row, slot[mine], length))
        return groups

    def pad(self, values: Tensor) -> Tensor:
        """(nodes, D) of all tiles to (T, N, D), 0 where there is no node."""
        padded = values.new_zeros(len(self.tiles), self.length, values.shape[1])
        padded[self.row, self.slot] = values[self.node]
        return padded

    def unpad(self, padded: Tensor) -> Tensor:
        """(T, N, D) to (K, D), the fused nodes in the order of `node`."""
        return padded[self.row, self.slot]

    def padding(self) -> Tensor:
        """(T, N) True where there is no node."""
        shape = (len(self.tiles), self.length)
        padding = torch.ones(shape, dtype=torch.bool, device=self.tiles.device)
        padding[self.row, self.slot] = False
        return padding


def _ranked(graphs: GraphBatch, max_nodes: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Fused nodes tile by tile: row among all nodes, tile, and rank within the tile."""
    tile = torch.cat([graphs.tile[kind] for kind in NODE_TYPES])
    node = torch.arange(len(tile), device=tile.device)
    if max_nodes is not None:
        node = _by_size(graphs)
    node = node[tile[node].argsort(stable=True)]
    tile = tile[node]
    counts = torch.bincount(tile, minlength=graphs.size)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(tile), device=tile.device) - starts[tile]
    if max_nodes is None:
        return node, tile, rank
    kept = rank < max_nodes
    return node[kept], tile[kept], rank[kept]


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
