"""Outlines of the regions of a class map, traced block by block, with shared borders.

Arcs (see `geolink.arcs`) are found per block and joined where they cross into the next one, and a
region's rings are put together as soon as its last row has passed, so that memory follows the width
of the map and the regions that are open. Nothing depends on the blocks.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.arcs import MAX_TOLERANCE_PX, Arc, Corner, Piece, nodes_of, pieces_of, simplified
from geolink.grid import PixelWindow
from geolink.legend import IGNORE
from geolink.sieve import components, holds_data, label

Polygons = NDArray[np.object_]


def region_outlines(
    blocks: Iterable[tuple[PixelWindow, NDArray[np.uint8]]],
    shape: tuple[int, int],
    *,
    tolerance_px: float,
) -> Iterator[tuple[Polygons, NDArray[np.uint8]]]:
    """Polygons of the 4-connected regions of a class map, which share their borders exactly.

    Args:
        blocks: windows that tile the map, row by row, and their (height, width) class ids; 255 is
            "no data", which gets no polygon.
        shape: (height, width) of the map.
        tolerance_px: how far outlines may leave the pixel edges; counts as 0.99 where it is more.

    Yields:
        After every row of blocks, the valid polygons, in columns and rows, of the regions that end
        there, and the class of each.
    """
    tracer = _Tracer(shape)
    tolerance = min(tolerance_px, MAX_TOLERANCE_PX)
    for window, classes in blocks:
        tracer.add(window, classes)
        if window.col_off + window.width == shape[1]:
            yield tracer.complete(tolerance)


class _Tracer:
    """What is open of a map that is read row of blocks by row of blocks.

    Within a row of blocks, the regions that go on from above and then the labels of the blocks are
    numbered from 0. Beyond the map there is "no data".
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        # Class and label of the last row of pixels above; column 0 and the last are beyond.
        self._above = np.full(shape[1] + 2, IGNORE, np.uint8), np.full(shape[1] + 2, -1, np.int64)
        self._below = self._above[0].copy(), self._above[1].copy()
        self._left = np.zeros(0, np.uint8), np.zeros(0, np.int64)
        self._arcs: list[list[Arc]] = []  # of each region that goes on from above
        self._classes: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
        self._count = 0
        self._contacts = [np.zeros((0, 2), np.int64)]
        self._loose: dict[Corner, list[Piece]] = {}
        self._whole: list[Piece] = []

    def add(self, window: PixelWindow, classes: NDArray[np.uint8]) -> None:
        """Trace the next block."""
        if self._is_blank(window, classes):
            return
        labels, count = label(classes, self._count)
        own = np.zeros(count, np.uint8)
        own[labels[labels >= 0] - self._count] = classes[labels >= 0]
        self._classes.append(own)
        self._count += count
        # Corners belong to the pixel at their lower right; the last ones to a pixel beyond.
        height, width = self._shape
        beyond = (
            (0, int(window.row_off + window.height == height)),
            (0, int(window.col_off + window.width == width)),
        )
        block = np.pad(classes, beyond, constant_values=IGNORE)
        numbers = np.pad(labels, beyond, constant_values=-1)
        cols = slice(window.col_off, window.col_off + block.shape[1] + 1)
        around = _framed(block, self._above[0][cols], self._left[0])
        beside = _framed(numbers, self._above[1][cols], self._left[1])
        self._contacts += [
            _same(around[:2, 1:], beside[:2, 1:]),
            _same(around[1:, :2].T, beside[1:, :2].T),
        ]
        nodes = nodes_of(around)
        for row in {0, height} & {window.row_off, window.row_off + len(block) - 1}:
            for col in {0, width} & {window.col_off, window.col_off + block.shape[1] - 1}:
                nodes[row - window.row_off, col - window.col_off] = True
        self._join(pieces_of(around, beside, nodes), window, nodes)
        self._left = block[:, -1], numbers[:, -1]
        self._below[0][cols][1:], self._below[1][cols][1:] = block[-1], numbers[-1]

    def _is_blank(self, window: PixelWindow, classes: NDArray[np.uint8]) -> bool:
        """Whether nothing is to be traced in a block, nor at its upper and left side."""
        if window.col_off == 0:
            rows = window.height + int(window.row_off + window.height == self._shape[0])
            self._left = np.full(rows, IGNORE, np.uint8), np.full(rows, -1, np.int64)
        # One column more at either side: corners are shared with the blocks there.
        above = self._above[0][window.col_off : window.col_off + window.width + 2]
        return not any(map(holds_data, (classes, above, self._left[0])))

    def complete(self, tolerance_px: float) -> tuple[Polygons, NDArray[np.uint8]]:
        """End a row of blocks; the polygons and classes of the regions that ended in it."""
        carried = len(self._arcs)
        count, region = components(self._count, np.concatenate(self._contacts))
        classes = np.zeros(count, np.uint8)
        classes[region] = np.concatenate(self._classes)
        arcs: list[list[Arc]] = [[] for _ in range(count)]
        for old, new in enumerate(region[:carried].tolist()):
            arcs[new] += self._arcs[old]
        for piece, arc in zip(self._whole, simplified(self._whole, tolerance_px), strict=True):
            if piece.right >= 0:
                arcs[region[piece.right]].append(arc)
            if piece.left >= 0:
                arcs[region[piece.left]].append(arc.turned)
        region = np.append(region, -1)
        goes_on = np.zeros(count + 1, bool)
        goes_on[region[self._below[1]]] = True
        goes_on = goes_on[:-1]
        index = np.append(np.cumsum(goes_on) - 1, -1)
        for piece in {id(p): p for pieces in self._loose.values() for p in pieces}.values():
            piece.left, piece.right = (int(index[region[s]]) for s in (piece.left, piece.right))
        self._above = self._below[0], index[region[self._below[1]]]
        self._below = self._above[0].copy(), self._above[1].copy()
        self._arcs = [arcs[i] for i in np.flatnonzero(goes_on)]
        self._classes = [classes[goes_on]]
        self._count = len(self._arcs)
        self._contacts, self._whole = [np.zeros((0, 2), np.int64)], []
        ended = np.flatnonzero(~goes_on)
        return np.array([_polygon(arcs[i]) for i in ended], dtype=object), classes[ended]

    def _join(self, pieces: list[Piece], window: PixelWindow, nodes: NDArray[np.bool_]) -> None:
        """Take the pieces of a block, and tie what meets at its upper and left corners."""
        origin = np.array([window.row_off, window.col_off])
        for piece in pieces:
            piece.points = piece.points + origin
            for end in piece.loose:
                self._loose.setdefault(piece.corner(end), []).append(piece)
            if not piece.loose:
                self._whole.append(piece)
        height, width = nodes.shape
        for row, col in [(r, 0) for r in range(height)] + [(0, c) for c in range(1, width)]:
            corner = (row + window.row_off, col + window.col_off)
            met = self._loose.pop(corner, [])
            if nodes[row, col]:
                for piece in met:
                    self._fasten(piece, corner)
            elif met:
                self._tie(*met, corner=corner)

    def _fasten(self, piece: Piece, corner: Corner) -> None:
        """An end is a node."""
        end = next(end for end in piece.loose if piece.corner(end) == corner)
        piece.loose.remove(end)
        if not piece.loose:
            self._whole.append(piece)

    def _tie(self, one: Piece, two: Piece, *, corner: Corner) -> None:
        """Make one piece of two that meet at a corner, or a loop of one that meets itself."""
        if one is two:
            one.loose, one.loop = set(), True
            self._whole.append(one)
            return
        if 1 not in one.loose or one.corner(1) != corner:
            one.turn()
        if 0 not in two.loose or two.corner(0) != corner:
            two.turn()
        one.points = np.concatenate([one.points, two.points[1:]])
        one.loose = (one.loose - {1}) | (two.loose - {0})
        if not one.loose:
            self._whole.append(one)
        elif 1 in one.loose:
            met = self._loose[one.corner(1)]
            met[next(i for i, piece in enumerate(met) if piece is two)] = one


def _framed(block: NDArray, above: NDArray, left: NDArray) -> NDArray:  # type: ignore[type-arg]
    """A block with the row above it and the column before it."""
    framed = np.empty((block.shape[0] + 1, block.shape[1] + 1), block.dtype)
    framed[0], framed[1:, 0], framed[1:, 1:] = above, left, block
    return framed


def _same(classes: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(k, 2) labels of one class that face each other in two rows."""
    facing = (classes[0] == classes[1]) & (classes[0] != IGNORE)
    return np.unique(labels[:, facing].T, axis=0)


def _polygon(arcs: list[Arc]) -> shapely.Polygon:
    """The region that has all its arcs at their right hand.

    Where a region meets itself at a corner, its ring turns left: the hole or the outside that it
    runs around there is then rounded at once, and no ring touches itself.
    """
    leaving: dict[tuple[float, ...], list[Arc]] = {}
    for arc in arcs:
        leaving.setdefault(arc.ends[0], []).append(arc)
    rings = []
    while leaving:
        arc = next(iter(leaving.values()))[0]
        start, step = arc.ends[0], arc.first
        path = []
        while True:
            begin, end = arc.ends
            leaving[begin].remove(arc)
            if not leaving[begin]:
                del leaving[begin]
            path.append(arc.points[:-1])
            row, col = arc.last
            left = (-col, row)
            if end == start and (step == left or end not in leaving):
                break
            options = leaving[end]
            arc = next((option for option in options if option.first == left), options[0])
        rings.append(np.concatenate([*path, path[0][:1]]))
    turns = [float(r[:-1, 0] @ r[1:, 1] - r[1:, 0] @ r[:-1, 1]) for r in rings]
    shell = int(np.argmax(turns))  # runs clockwise, as the rows count down; holes do not
    return shapely.Polygon(rings[shell], rings[:shell] + rings[shell + 1 :])
