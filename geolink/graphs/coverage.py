"""Which patches of a tile a line or polygon covers, and how much of them.

The mean of a few key-points blurs where a long or winding object is. Its coverage lets the model
take the mean over all patches that the object really crosses or fills, which the paper names as a
wish (Bai et al. 2025, section 6).
"""

import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.graphs.relations import Floats, Geometries, Indices
from geolink.grid import Bounds

_NUDGE = 1e-9  # cells; a line along the border of two cells lies half in each


def polygon_shares(polygons: Geometries, bounds: Bounds, *, side: int) -> NDArray[np.float32]:
    """How much of each cell of a tile each polygon covers.

    Args:
        polygons: (N,) polygons within `bounds`.
        bounds: the tile.
        side: cells per side of the tile.

    Returns:
        (N, side * side) areas in units of a cell's area, cells row by row from the north-west.
    """
    cells = _cells(bounds, side)
    tree = shapely.STRtree(cells)
    shares = np.zeros((len(polygons), len(cells)), dtype=np.float32)
    shares[*tree.query(polygons, predicate="contains")] = 1
    node, cell = tree.query(polygons, predicate="intersects")
    cut = shares[node, cell] == 0
    node, cell = node[cut], cell[cut]
    parts = shapely.intersection(polygons[node], cells[cell])
    shares[node, cell] = shapely.area(parts) * (side**2 / (bounds.width * bounds.height))
    return shares


def line_shares(lines: Geometries, bounds: Bounds, *, side: int) -> NDArray[np.float32]:
    """How long each line runs through each cell of a tile.

    Args:
        lines: (N,) lines within `bounds`.
        bounds: the tile.
        side: cells per side of the tile.

    Returns:
        (N, side * side) lengths in units of a cell's side (the geometric mean of both, where they
        differ), cells row by row from the north-west.
    """
    cell = np.array([bounds.width, bounds.height]) / side
    xy, owner = shapely.get_coordinates(lines, return_index=True)
    xy = (xy - [bounds.west, bounds.north]) / [cell[0], -cell[1]]
    inner = owner[:-1] == owner[1:]
    start, way, node = xy[:-1][inner], np.diff(xy, axis=0)[inner], owner[:-1][inner]
    segment, begin, end = _pieces(start, way)
    middle = start[segment] + ((begin + end) / 2)[:, None] * way[segment]
    length = np.hypot(*(way * cell).T)[segment] * (end - begin) / np.sqrt(cell.prod())
    shares = np.zeros((len(lines), side, side))
    for nudge in (-_NUDGE, _NUDGE):
        col, row = np.floor(middle + nudge).astype(np.int64).clip(0, side - 1).T
        np.add.at(shares, (node[segment], row, col), length / 2)
    return shares.reshape(-1, side * side).astype(np.float32)


def _cells(bounds: Bounds, side: int) -> Geometries:
    """(side * side,) boxes, row by row from the north-west."""
    x = np.linspace(bounds.west, bounds.east, side + 1)
    y = np.linspace(bounds.north, bounds.south, side + 1)
    west, north = np.meshgrid(x[:-1], y[:-1])
    east, south = np.meshgrid(x[1:], y[1:])
    cells: Geometries = shapely.box(west, south, east, north).ravel()
    return cells


def _pieces(start: Floats, way: Floats) -> tuple[Indices, Floats, Floats]:
    """Segments cut where they cross from cell to cell.

    Args:
        start: (S, 2) first points, in cells.
        way: (S, 2) from the first point to the last.

    Returns:
        Per piece its segment, and where on the way (0-1) it begins and ends.
    """
    whole = np.arange(len(start))
    segments, places = [whole, whole], [np.zeros(len(start)), np.ones(len(start))]
    for axis in range(2):
        ends = np.sort([start[:, axis], start[:, axis] + way[:, axis]], axis=0)
        first = np.floor(ends[0]) + 1
        counts = np.maximum(np.ceil(ends[1]) - first, 0).astype(np.int64)
        segment = np.repeat(whole, counts)
        step = np.arange(len(segment)) - np.repeat(counts.cumsum() - counts, counts)
        segments.append(segment)
        places.append((first[segment] + step - start[segment, axis]) / way[segment, axis])
    segment, place = np.concatenate(segments), np.concatenate(places)
    order = np.lexsort((place, segment))
    segment, place = segment[order], place[order]
    inner = segment[:-1] == segment[1:]
    return segment[:-1][inner], place[:-1][inner], place[1:][inner]
