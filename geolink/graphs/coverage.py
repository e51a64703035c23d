"""Which patches of a tile a line or polygon covers, and how much of them.

The mean of a few key-points blurs where a long or winding object is. Its coverage lets the model
take the mean over all patches that the object really crosses or fills, which the paper names as a
wish (Bai et al. 2025, section 6).
"""

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from geolink.errors import GraphError
from geolink.graphs.schema import NodeType
from geolink.grid import Bounds

CELLS = 14  # patches of 16 pixels per side of a 224 pixel tile


def add_coverage(
    graph: HeteroData, geometries: Mapping[NodeType, NDArray[np.object_]], *, cells: int = CELLS
) -> HeteroData:
    """The graph with `coverage` of its lines and polygons.

    Args:
        graph: the graph of a tile; it is not changed.
        geometries: per type, the clipped geometry of each node, in the order of the nodes and in
            the CRS of `graph.bounds`.
        cells: cells per side of the tile, as many as the model has patches.

    Returns:
        The graph with `graph[type].coverage`, (N, cells * cells) float32 as `cell_shares` gives it.

    Raises:
        GraphError: there are not as many geometries as nodes.
    """
    covered = copy(graph)
    bounds = Bounds(*graph.bounds.tolist())
    kinds: Sequence[NodeType] = ("line", "polygon")
    for kind in kinds:
        if len(geometries[kind]) != len(graph[kind].x):
            raise GraphError(
                f"{len(geometries[kind])} {kind} geometries do not belong to "
                f"{len(graph[kind].x)} nodes; give the clipped geometry of each node"
            )
        shares = cell_shares(geometries[kind], bounds, cells=cells)
        covered[kind].coverage = torch.from_numpy(shares)
    return covered


def cell_shares(
    geometries: NDArray[np.object_], bounds: Bounds, *, cells: int = CELLS
) -> NDArray[np.float32]:
    """How much of each cell of a tile each geometry covers.

    Args:
        geometries: (N,) lines or polygons within `bounds`.
        bounds: the tile.
        cells: cells per side.

    Returns:
        (N, cells * cells) in row order from the north-west: area in units of a cell's area for
        polygons, length in units of a cell's side for lines.
    """
    boxes = _cell_boxes(bounds, cells)
    area = bounds.width * bounds.height / cells**2
    shares = np.zeros((len(geometries), cells * cells), dtype=np.float32)
    node, cell = shapely.STRtree(boxes).query(geometries)
    # A geometry that meets one cell lies in it as a whole.
    alone = np.bincount(node, minlength=len(geometries))[node] == 1
    parts = geometries[node]
    parts[~alone] = shapely.intersection(parts[~alone], boxes[cell[~alone]])
    flat = shapely.get_dimensions(geometries[node]) == 2
    shares[node, cell] = np.where(
        flat, shapely.area(parts) / area, shapely.length(parts) / np.sqrt(area)
    )
    return shares


def _cell_boxes(bounds: Bounds, cells: int) -> NDArray[np.object_]:
    """(cells * cells,) boxes, row by row from the north-west."""
    x = np.linspace(bounds.west, bounds.east, cells + 1)
    y = np.linspace(bounds.north, bounds.south, cells + 1)
    west, north = np.meshgrid(x[:-1], y[:-1])
    east, south = np.meshgrid(x[1:], y[1:])
    boxes: NDArray[np.object_] = shapely.box(west, south, east, north).ravel()
    return boxes
