"""Objects laid onto the patches that they cover."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from geolink.graphs.schema import NODE_TYPES
from geolink.models.graph_batch import GraphBatch


class Painting(nn.Module):
    """Gives each patch the encodings of the objects that lie in it.

    Attention has to learn from sums of sines which object is in which patch. Geometry knows it, so
    here it says it: an answer to the wish for positions of complex geometries (Bai et al. 2025,
    section 6). The weights start at zero, so that they change nothing before they are trained.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, nodes: Tensor, shares: Tensor, grid: tuple[int, int]) -> Tensor:
        """What patches take from the objects in them.

        Args:
            nodes: (B, N, D) encodings of the nodes of B tiles.
            shares: (B, N, side * side) share of a cell that each of them has, 0 for padding.
            grid: patches per column and per row (h, w); cells are averaged to them.

        Returns:
            (B, h * w, D).
        """
        side = math.isqrt(shares.shape[2])
        cells = nodes.transpose(1, 2) @ shares.to(nodes.dtype)  # (B, D, side * side)
        patches = functional.adaptive_avg_pool2d(cells.unflatten(2, (side, side)), grid)
        painted: Tensor = self.mix(patches.flatten(2).transpose(1, 2))
        return painted


def cell_shares(graphs: GraphBatch, side: int) -> Tensor:
    """How much each node has of each cell of its tile.

    A polygon has the share that it covers, a line its length in units of the cell's side, a point
    its cell. Where the nodes of one type have more than the whole cell together, they share it.

    Args:
        graphs: the batch, with the coverage of lines and polygons.
        side: cells per side of a tile.

    Returns:
        (N, side * side) float32 of the nodes of all types, joined in the schema's order.
    """
    shares = []
    for kind in NODE_TYPES:
        covered = graphs.coverage.get(kind)
        if covered is None:
            covered = _cells_of_points(graphs.keypoints[kind], side)
        tile = graphs.tile[kind]
        total = covered.new_zeros(graphs.size, side**2).index_add(0, tile, covered)
        shares.append(covered / total[tile].clamp_min(1))
    return torch.cat(shares)


def _cells_of_points(xy: Tensor, side: int) -> Tensor:
    """(N, side * side) one-hot cells of (N, 2) points in tile units."""
    col, row = (xy * side).long().clamp(0, side - 1).unbind(1)
    return functional.one_hot(row * side + col, side**2).to(xy.dtype)
