"""Borders of a class map as arcs: found in a block, and simplified.

An arc is a path along pixel edges from node to node, a node being a corner where more than two
edges meet. Every arc is simplified by itself, and both sides share the result. No vertex goes that
is a whole pixel or more off the new line. That keeps borders from meeting: between an arc and a
line that stays less than a pixel off there is no corner of another arc, and two lines could only
cross where one of them had cut off such a corner.
"""

from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray

# Pixels that an arc may leave the pixel edges by: less than one, see above.
MAX_TOLERANCE_PX = 0.99

Corner = tuple[int, int]  # (row, column)


@dataclass(eq=False)
class Piece:
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
class Arc:
    """A simplified arc as one of its sides walks it, that side at the right hand.

    Attributes:
        points: (n, 2) columns and rows.
        first, last: (row, column) steps of the unsimplified path where it begins and ends.
    """

    points: NDArray[np.float64]
    first: Corner
    last: Corner

    @property
    def turned(self) -> "Arc":
        """The same for the other side."""
        (r0, c0), (r1, c1) = self.first, self.last
        return Arc(self.points[::-1], (-r1, -c1), (-r0, -c0))

    @property
    def ends(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Where it begins and where it ends."""
        return tuple(self.points[0].tolist()), tuple(self.points[-1].tolist())


def nodes_of(around: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(height, width) corners where more than two edges meet."""
    nodes: NDArray[np.bool_] = np.sum(_edges(around), axis=0) > 2
    return nodes


def pieces_of(
    around: NDArray[np.uint8], beside: NDArray[np.int64], nodes: NDArray[np.bool_]
) -> list[Piece]:
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
        piece = Piece(np.column_stack(np.divmod(points, stride)), one, other)
        if number < open_chains:
            piece.loose = {end for end in (0, 1) if not nodes[piece.corner(end)]}
        else:
            piece.loop = True
        pieces.append(piece)
    return pieces


def simplified(pieces: list[Piece], tolerance_px: float) -> list[Arc]:
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
        Arc(np.concatenate(own)[:, ::-1], _step(*piece.points[:2]), _step(*piece.points[-2:]))
        for piece, own in zip(pieces, lines, strict=True)
    ]


def _edges(around: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], ...]:
    """Whether a border runs from each corner up, down, left and right; each (height, width)."""
    across, along = around[:, :-1] != around[:, 1:], around[:-1] != around[1:]
    return across[:-1], across[1:], along[:, :-1], along[:, 1:]


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


def _put_in_order(piece: Piece) -> None:
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
