"""Which patches of a tile a line or polygon covers, and how much of them.

The mean of a few key-points blurs where a long or winding object is. Its coverage lets the model
take the mean over all patches that the object really crosses or fills, which the paper names as a
wish (Bai et al. 2025, section 6).
"""

from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.graphs.relations import Floats, Geometries, Indices
from geolink.grid import Bounds

_NUDGE = 1e-9  # cells; a line along the border of two cells lies half in each
_ROUNDING = 1e-9  # of a cell; less is what sums of float64 leave of nothing


def polygon_shares(polygons: Geometries, bounds: Bounds, *, side: int) -> NDArray[np.float32]:
    """How much of each cell of a tile each polygon covers.

    Args:
        polygons: (N,) polygons within `bounds`.
        bounds: the tile.
        side: cells per side of the tile.

    Returns:
        (N, side * side) areas in units of a cell's area, cells row by row from the north-west.
    """
    rings, node = shapely.get_rings(shapely.orient_polygons(polygons), return_index=True)
    pieces = _pieces(rings, bounds, side)
    # An edge bounds what lies east of it. So it gives its height to all cells east of its own, and
    # of its own the part that is east of its middle; edges down and up leave what is between them.
    height = pieces.way[:, 1]
    col, row = np.floor(pieces.middle).astype(np.int64).clip(0, side - 1).T
    beyond = pieces.middle[:, 0] - col
    first = (node[pieces.owner] * side + row) * (side + 1) + col
    size = len(polygons) * side * (side + 1)
    steps = np.bincount(first, height * (1 - beyond), size)
    steps += np.bincount(first + 1, height * beyond, size)
    shares = steps.reshape(len(polygons), side, side + 1)[..., :-1].cumsum(axis=2)
    shares[np.abs(shares) < _ROUNDING] = 0
    return shares.reshape(-1, side * side).astype(np.float32)


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
    pieces = _pieces(lines, bounds, side)
    length = np.hypot(*(pieces.way * cell).T) / np.sqrt(cell.prod())
    shares = np.zeros((len(lines), side, side))
    for nudge in (-_NUDGE, _NUDGE):
        col, row = np.floor(pieces.middle + nudge).astype(np.int64).clip(0, side - 1).T
        np.add.at(shares, (pieces.owner, row, col), length / 2)
    return shares.reshape(-1, side * side).astype(np.float32)


class _Pieces(NamedTuple):
    """Segments of P pieces that each lie in one cell.

    Attributes:
        owner: (P,) the line that each is of.
        middle: (P, 2) x right and y down, in cells from the north-west.
        way: (P, 2) from the first point to the last, in cells.
    """

    owner: Indices
    middle: Floats
    way: Floats


def _pieces(lines: Geometries, bounds: Bounds, side: int) -> _Pieces:
    """The segments of (N,) lines, cut where they cross from cell to cell."""
    xy, line = shapely.get_coordinates(lines, return_index=True)
    xy = (xy - [bounds.west, bounds.north]) * [side / bounds.width, -side / bounds.height]
    inner = line[:-1] == line[1:]
    start, way, owner = xy[:-1][inner], np.diff(xy, axis=0)[inner], line[:-1][inner]
    segment, begin, end = _cuts(start, way)
    middle = start[segment] + ((begin + end) / 2)[:, None] * way[segment]
    return _Pieces(owner[segment], middle, (end - begin)[:, None] * way[segment])


def _cuts(start: Floats, way: Floats) -> tuple[Indices, Floats, Floats]:
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
