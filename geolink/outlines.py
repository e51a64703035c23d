"""Outlines of the regions of a class map, traced block by block and simplified with shared borders.

Where two regions meet runs an arc: a path along pixel edges from node to node, a node being a
corner where more than two edges meet. Arcs are found per block and joined where they cross into the
next one, and a region's rings are put together as soon as its last row has passed, so that memory
follows the width of the map and the regions that are open. Nothing depends on the blocks.

Every arc is simplified by itself, and both sides share the result. No vertex goes that is a whole
pixel or more off the new line. That keeps borders from meeting: between an arc and a line that
stays less than a pixel off there is no corner of another arc, and two lines could only cross where
one of them had cut off such a corner.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.grid import PixelWindow
from geolink.legend import IGNORE
from geolink.sieve import components, holds_data, label

Polygons = NDArray[np.object_]

# Pixels that an outline may leave the pixel edges by: less than one, see above.
MAX_TOLERANCE_PX = 0.99

Corner = tuple[int, int]  # (row, column)


@dataclass(eq=False)
class _Piece:
    """An arc, or as much of it as is known.

    Attributes:
        points: (n, 2) rows and columns of its corners, first to last.
        left, right: labels of the regions beside it, -1 for "no data".
        loose: the ends, 0 or 1 or both, that go on in a block to come.
        loop: whether it runs back into itself, through no node.
    """

    points: NDArray[np.int64]
    left: int
    right: int
    loose: set[int] = field(default_factory=set)
    loop: bool = False

    def turn(self) -> None:
        """Let it run the other way."""
        self.points = self.points[::-1]
        self.left, self.right = self.right, self.left
        self.loose = {1 - end for end in self.loose}

    def corner(self, end: int) -> Corner:
        """The corner at one end."""
        row, col = self.points[-end]
        return int(row), int(col)


@dataclass(frozen=True, eq=False)
class _Arc:
    """A simplified arc as one of its sides walks it, that side at the right hand.

    Attributes:
        points: (n, 2) columns and rows.
        first, last: (row, column) steps of the unsimplified path where it begins and ends.
    """

    points: NDArray[np.float64]
    first: Corner
    last: Corner

    @property
    def turned(self) -> "_Arc":
        """The same for the other side."""
        (r0, c0), (r1, c1) = self.first, self.last
        return _Arc(self.points[::-1], (-r1, -c1), (-r0, -c0))

    @property
    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Where it begins and where it ends."""
        return tuple(self.points[0].tolist()), tuple(self.points[-1].tolist())


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
        self._arcs: list[list[_Arc]] = []  # of each region that goes on from above
        self._classes: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
        self._count = 0
        self._contacts = [np.zeros((0, 2), np.int64)]
        self._loose: dict[Corner, list[_Piece]] = {}
        self._whole: list[_Piece] = []

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
        nodes = _nodes(around)
        for row in {0, height} & {window.row_off, window.row_off + len(block) - 1}:
            for col in {0, width} & {window.col_off, window.col_off + block.shape[1] - 1}:
                nodes[row - window.row_off, col - window.col_off] = True
        self._join(_pieces(around, beside, nodes), window, nodes)
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
        arcs: list[list[_Arc]] = [[] for _ in range(count)]
        for old, new in enumerate(region[:carried].tolist()):
            arcs[new] += self._arcs[old]
        for piece, arc in zip(self._whole, _simplified(self._whole, tolerance_px), strict=True):
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

    def _join(self, pieces: list[_Piece], window: PixelWindow, nodes: NDArray[np.bool_]) -> None:
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

    def _fasten(self, piece: _Piece, corner: Corner) -> None:
        """An end is a node."""
        end = next(end for end in piece.loose if piece.corner(end) == corner)
        piece.loose.remove(end)
        if not piece.loose:
            self._whole.append(piece)

    def _tie(self, one: _Piece, two: _Piece, *, corner: Corner) -> None:
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


def _edges(around: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], ...]:
    """Whether a border runs from each corner up, down, left and right; each (height, width)."""
    across, along = around[:, :-1] != around[:, 1:], around[:-1] != around[1:]
    return across[:-1], across[1:], along[:, :-1], along[:, 1:]


def _nodes(around: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(height, width) corners where more than two edges meet."""
    nodes: NDArray[np.bool_] = np.sum(_edges(around), axis=0) > 2
    return nodes


def _pieces(
    around: NDArray[np.uint8], beside: NDArray[np.int64], nodes: NDArray[np.bool_]
) -> list[_Piece]:
    """The borders in a block: those right and down from its corners.

    Args:
        around: (height + 1, width + 1) classes of a block, of the row above and the column before.
        beside: labels of the same pixels.
        nodes: (height, width) whether arcs end at a corner.
    """
    up, down, before, after = _edges(around)
    degree = np.sum([up, down, before, after], axis=0)
    turns = (degree > 0) & ((degree > 2) | (up != down))
    row, start, end = _runs(after, turns)
    col, top, bottom = _runs(down.T, turns.T)
    stride = around.shape[1]
    starts = np.append(row * stride + start, top * stride + col)
    ends = np.append(row * stride + end, bottom * stride + col)
    left = np.append(beside[row, start + 1], beside[top + 1, col + 1])
    right = np.append(beside[row + 1, start + 1], beside[top + 1, col])
    nodes = np.pad(nodes, (0, 1))  # of corners below and to the right it is not known
    corners = np.column_stack([starts, ends]).ravel()
    chains, open_chains = _chains(corners, nodes.ravel())
    pieces = []
    for number, chain in enumerate(chains):
        points = np.append(corners[chain], corners[chain[-1] ^ 1])
        sides = int(left[chain[0] >> 1]), int(right[chain[0] >> 1])
        one, other = sides[::-1] if chain[0] & 1 else sides
        piece = _Piece(np.column_stack(np.divmod(points, stride)), one, other)
        if number < open_chains:
            piece.loose = {end for end in (0, 1) if not nodes[piece.corner(end)]}
        else:
            piece.loop = True
        pieces.append(piece)
    return pieces


def _runs(
    edges: NDArray[np.bool_], turns: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, first and last corner of the straight borders along rows, cut where borders turn."""
    first, last = edges & turns, edges.copy()
    first[:, 0] = edges[:, 0]
    last[:, :-1] &= turns[:, 1:]
    row, start = np.nonzero(first)
    return row, start, np.nonzero(last)[1] + 1


def _chains(
    corners: NDArray[np.int64], nodes: NDArray[np.bool_]
) -> tuple[list[NDArray[np.int64]], int]:
    """Straight borders strung together where just two of them meet.

    Args:
        corners: (2 n,) first and last corner of each.
        nodes: whether each corner is a node.

    Returns:
        For each chain, the ends at which it enters its borders, as indices of `corners`; and how
        many chains have two ends. Those after are closed.
    """
    order = np.argsort(corners, kind="stable")
    tied = (corners[order[1:]] == corners[order[:-1]]) & ~nodes[corners[order[1:]]]
    link = np.full(len(corners), -1)
    link[order[:-1][tied]], link[order[1:][tied]] = order[1:][tied], order[:-1][tied]
    next_of, seen = link.tolist(), bytearray(len(corners) // 2)
    chains: list[NDArray[np.int64]] = []
    open_chains = 0
    for begins in (np.flatnonzero(link < 0).tolist(), range(0, len(corners), 2)):
        open_chains = len(chains)
        for end in begins:
            chain = []
            while end >= 0 and not seen[end >> 1]:
                seen[end >> 1] = 1
                chain.append(end)
                end = next_of[end ^ 1]
            if chain:
                chains.append(np.array(chain))
    return chains, open_chains


def _simplified(pieces: list[_Piece], tolerance_px: float) -> list[_Arc]:
    """The arcs that whole pieces become. The pieces are put in order for that (`_put_in_order`)."""
    if not pieces:
        return []
    parts: list[NDArray[np.int64]] = []
    number_of: list[int] = []
    for number, piece in enumerate(pieces):
        _put_in_order(piece)
        points = piece.points
        closed = piece.corner(0) == piece.corner(1)
        cut = int(np.square(points - points[0]).sum(axis=1).argmax()) if closed else 0
        parts += [points[: cut + 1], points[cut:]] if closed else [points]
        number_of += [number] * (1 + closed)
    lines: list[list[NDArray[np.float64]]] = [[] for _ in pieces]
    for number, line in zip(number_of, _bent(parts, tolerance_px), strict=True):
        lines[number].append(line[1:] if lines[number] else line)
    return [
        _Arc(np.concatenate(own)[:, ::-1], _step(*piece.points[:2]), _step(*piece.points[-2:]))
        for piece, own in zip(pieces, lines, strict=True)
    ]


def _put_in_order(piece: _Piece) -> None:
    """Leave only corners where the arc turns, and begin and direct it as from any blocks."""
    steps = np.sign(np.diff(piece.points, axis=0))
    turns = (steps[1:] != steps[:-1]).any(axis=1)
    if piece.loop:
        corners = piece.points[:-1][np.append((steps[0] != steps[-1]).any(), turns)]
        top = np.lexsort(corners.T[::-1])[0]
        piece.points = np.vstack([corners[top:], corners[: top + 1]])
    else:
        piece.points = piece.points[np.concatenate([[True], turns, [True]])]
    if piece.points[::-1][:2].tolist() < piece.points[:2].tolist():
        piece.turn()


def _bent(parts: list[NDArray[np.int64]], tolerance_px: float) -> list[NDArray[np.float64]]:
    """Simplified paths; one that is not straight keeps its farthest corner from the line.

    So two arcs between the same nodes never become the same line.
    """
    lines = _thinned(parts, tolerance_px)
    flat = [i for i, line in enumerate(lines) if len(line) == 2 < len(parts[i])]
    halves: list[NDArray[np.int64]] = []
    for i in flat:
        away, chord = parts[i] - parts[i][0], parts[i][-1] - parts[i][0]
        cut = int(np.abs(away[:, 0] * chord[1] - away[:, 1] * chord[0]).argmax())
        halves += [parts[i][: cut + 1], parts[i][cut:]]
    thinned = _thinned(halves, tolerance_px)
    for i, one, two in zip(flat, thinned[::2], thinned[1::2], strict=True):
        lines[i] = np.concatenate([one, two[1:]])
    return lines


def _thinned(parts: list[NDArray[np.int64]], tolerance_px: float) -> list[NDArray[np.float64]]:
    """Paths without the corners that are not farther than the tolerance from the line."""
    if not parts:
        return []
    index = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    lines = shapely.linestrings(np.concatenate(parts).astype(np.float64), indices=index)
    lines = shapely.simplify(lines, tolerance_px, preserve_topology=False)
    ends = np.cumsum(shapely.get_num_coordinates(lines))
    return np.split(shapely.get_coordinates(lines), ends[:-1])


def _step(start: NDArray[np.int64], end: NDArray[np.int64]) -> Corner:
    """The direction from one corner to the next: one of the four (row, column) unit steps."""
    row, col = np.sign(end - start).tolist()
    return row, col


def _polygon(arcs: list[_Arc]) -> shapely.Polygon:
    """The region that has all its arcs at their right hand.

    Where a region meets itself at a corner, its ring turns left: the hole or the outside that it
    runs around there is then rounded at once, and no ring touches itself.
    """
    leaving: dict[tuple[float, ...], list[_Arc]] = {}
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
