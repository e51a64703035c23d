"""Small regions of a class map given to their neighbours, block by block and exactly.

A region is a 4-connected set of pixels of one class. Regions are found per block and joined across
block borders. What becomes of a small region follows from its cluster, which is the small regions
that it hangs together with, and from the classes around that. A cluster is decided as soon as the
last of its rows has passed, and forgotten. So the result does not depend on the size of the blocks,
and memory follows the width of the map and the open clusters, beside one byte per region.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE

# Pixels a side of the blocks in which regions are found.
BLOCK_SIDE = 512

ReadClasses = Callable[[PixelWindow], NDArray[np.uint8]]


@dataclass(frozen=True)
class RegionGraph:
    """Regions and which of them share a border.

    Attributes:
        classes: (n,) class of each region.
        sizes: (n,) area of each region, in any unit.
        pairs: (m, 2) indices of neighbouring regions, each pair once.
        borders: (m,) length of their common border, in any unit.
    """

    classes: NDArray[np.uint8]
    sizes: NDArray[np.floating] | NDArray[np.integer]
    pairs: NDArray[np.int64]
    borders: NDArray[np.floating] | NDArray[np.integer]


def sieved_blocks(
    read: ReadClasses, grid: GridSpec, *, min_pixels: int, side: int = BLOCK_SIDE
) -> Iterator[tuple[PixelWindow, NDArray[np.uint8]]]:
    """The blocks of a class map without regions of fewer than `min_pixels` pixels.

    A small region, smallest first, takes the class that most of its border meets, and counts as
    one with the neighbours of that class from then on. "No data" (255) neither gives nor takes;
    a small region amid it stays.

    Args:
        read: gives the (height, width) class ids of a window.
        grid: the extent of the map.
        min_pixels: size of the smallest region kept.
        side: block height and width, pixels.

    Yields:
        Each block's window and its class ids, row by row.
    """
    sieve = _Sieve(min_pixels, grid.width)
    for band in bands(grid, side):
        sieve.add(read, band, last=band[-1].row_off + side >= grid.height)
    class_of_label = np.append(np.frombuffer(sieve.classes, np.uint8), np.uint8(IGNORE))
    start = 0
    for window in grid.blocks(side):
        classes = read(window)
        labels, count = label(classes, start) if holds_data(classes) else (None, 0)
        # The last class, of label -1, is "no data".
        yield window, classes if labels is None else class_of_label[labels]
        start += count


def holds_data(classes: NDArray[np.uint8]) -> bool:
    """Whether any pixel has a class; most blocks of a sparse area have none, and are left out."""
    return bool((classes != IGNORE).any())


def bands(grid: GridSpec, side: int) -> Iterator[list[PixelWindow]]:
    """The blocks of a grid, row of blocks by row of blocks."""
    for _, windows in itertools.groupby(grid.blocks(side), key=lambda window: window.row_off):
        yield list(windows)


def merge_small(graph: RegionGraph, min_size: float) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Join regions smaller than `min_size`, smallest first, to the class most around them.

    That is the class with the longest common border (the lower one where two are equal); the
    region and its neighbours of that class become one. Of regions of one size, the one with the
    lowest index in its group is first. A region without neighbours stays.

    Returns:
        (n,) index of the region that stands for each one's group, and (n,) class of that group.
    """
    classes, sizes = graph.classes.tolist(), graph.sizes.tolist()
    borders: list[dict[int, float]] = [{} for _ in classes]
    for (a, b), length in zip(graph.pairs.tolist(), graph.borders.tolist(), strict=True):
        borders[a][b] = borders[b][a] = length
    owner = np.arange(len(classes))
    lowest = list(range(len(classes)))  # index in a region's group, whichever stands for it
    queue = [(size, region, region) for region, size in enumerate(sizes) if size < min_size]
    heapq.heapify(queue)
    while queue:
        size, _, region = heapq.heappop(queue)
        if owner[region] != region or sizes[region] != size or not borders[region]:
            continue  # joined to another, grown since, or alone
        best = _class_most_around(borders[region], classes)
        group = [region, *(n for n in borders[region] if classes[n] == best)]
        kept = max(group, key=lambda r: (len(borders[r]), -r))  # the long list stays where it is
        classes[kept], sizes[kept] = best, sum(sizes[r] for r in group)
        lowest[kept] = min(lowest[r] for r in group)
        for absorbed in group:
            if absorbed != kept:
                owner[absorbed] = kept
                _move_borders(borders, absorbed, kept)
        if sizes[kept] < min_size:
            heapq.heappush(queue, (sizes[kept], lowest[kept], kept))
    owner = _roots(owner)
    return owner, np.asarray(classes, dtype=np.uint8)[owner]


def _class_most_around(borders: dict[int, float], classes: list[int]) -> int:
    """The class with the longest common border."""
    lengths: dict[int, float] = {}
    for neighbour, length in borders.items():
        lengths[classes[neighbour]] = lengths.get(classes[neighbour], 0) + length
    return max(lengths, key=lambda c: (lengths[c], -c))


def _move_borders(borders: list[dict[int, float]], absorbed: int, kept: int) -> None:
    """Give `kept` the neighbours of `absorbed`."""
    for neighbour, length in borders[absorbed].items():
        del borders[neighbour][absorbed]
        if neighbour != kept:
            borders[kept][neighbour] = borders[kept].get(neighbour, 0) + length
            borders[neighbour][kept] = borders[kept][neighbour]
    borders[absorbed] = {}


def _roots(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow every chain of owners to its end."""
    while not np.array_equal(further := owner[owner], owner):
        owner = further
    return owner


def label(classes: NDArray[np.uint8], start: int) -> tuple[NDArray[np.int64], int]:
    """Number the regions of one block from `start`, -1 where "no data", and count them."""
    labels = np.full(classes.shape, -1, np.int64)
    count = 0
    for value in np.unique(classes[classes != IGNORE]):
        found, n = ndimage.label(classes == value)
        inside = found > 0
        labels[inside] = found[inside] + (start + count - 1)
        count += n
    return labels, count


class _Sieve:
    """What is known of a map that is read row of blocks by row of blocks.

    Within a row of blocks, regions carried over from above and then the labels of the blocks are
    numbered from 0. Only regions that may still change are carried on: those that meet the last
    row of pixels, those of clusters that do, and the neighbours of these.

    Attributes:
        classes: class of each label so far, as `label` numbers them over the blocks in order; of
            labels in clusters that are open, the class they came with.
    """

    def __init__(self, min_pixels: int, width: int) -> None:
        self.classes = bytearray()
        self._min_pixels = min_pixels
        none = np.zeros(0, np.int64)
        self._known = RegionGraph(none.astype(np.uint8), none, none.reshape(0, 2), none)
        self._firsts = none
        self._labels = self._owners = none  # labels of the regions carried that are small
        self._above = np.full(width, -1, np.int64)  # region of each pixel of the last row

    def add(self, read: ReadClasses, band: Iterable[PixelWindow], *, last: bool) -> None:
        """Read the next row of blocks, and decide what it completes."""
        known, carried, before = self._known, len(self._firsts), len(self.classes)
        parts, contacts = self._scan(read, band)
        classes, sizes, firsts = (
            np.concatenate(column)
            for column in zip((known.classes, known.sizes, self._firsts), *parts, strict=True)
        )
        contacts = [np.column_stack([known.pairs, known.borders]), *contacts]
        graph, firsts, region = _join(classes, sizes, firsts, np.concatenate(contacts))
        self.classes += classes[carried:].tobytes()
        labels = np.append(self._labels, before + np.arange(len(classes) - carried))
        owners = np.append(region[self._owners], region[carried:])

        goes_on = np.zeros(len(firsts), bool)
        if not last:
            goes_on[region[self._above[self._above >= 0]]] = True
        waits, sieved = _settle(graph, goes_on, self._min_pixels)
        settled = (graph.sizes < self._min_pixels)[owners] & ~waits[owners]
        np.frombuffer(self.classes, np.uint8)[labels[settled]] = sieved[owners[settled]]

        about_waiting = waits[graph.pairs].any(axis=1)
        kept = goes_on | waits
        kept[graph.pairs[about_waiting]] = True
        index = np.append(np.cumsum(kept) - 1, -1)
        self._known = RegionGraph(
            graph.classes[kept],
            graph.sizes[kept],
            index[graph.pairs[about_waiting]],
            graph.borders[about_waiting],
        )
        self._firsts = firsts[kept]
        self._labels, self._owners = labels[waits[owners]], index[owners[waits[owners]]]
        if not last:
            self._above = index[np.append(region, -1)[self._above]]

    def _scan(
        self, read: ReadClasses, band: Iterable[PixelWindow]
    ) -> tuple[list[tuple[NDArray[Any], ...]], list[NDArray[np.int64]]]:
        """Classes, sizes and first pixels of the labels of each block, and all contacts."""
        parts: list[tuple[NDArray[Any], ...]] = []
        contacts: list[NDArray[np.int64]] = []
        start = len(self._firsts)
        left = np.zeros(0, np.int64)
        for window in band:
            classes = read(window)
            cols = window.slices[1]
            if not holds_data(classes):
                self._above[cols], left = -1, np.full(window.height, -1, np.int64)
                continue
            labels, count = label(classes, start)
            if window.col_off == 0:
                left = np.full(window.height, -1, np.int64)
            contacts += [
                _contacts(np.vstack([self._above[cols], labels])),
                _contacts(np.column_stack([left, labels]).T),
            ]
            parts.append(_measure(classes, labels, window, start, count, len(self._above)))
            self._above[cols], left = labels[-1], labels[:, -1]
            start += count
        return parts, contacts


def _settle(
    graph: RegionGraph, goes_on: NDArray[np.bool_], min_pixels: int
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Which small regions must wait, since their cluster goes on, and the class of all others."""
    small = graph.sizes < min_pixels
    a, b = graph.pairs.T
    between = small[a] & small[b]
    count, cluster = components(len(small), graph.pairs[between])
    open_clusters = np.zeros(count, bool)
    open_clusters[cluster[small & goes_on]] = True
    waits = small & open_clusters[cluster]
    ready = small & ~waits
    near = ready[a] | ready[b]
    chosen = ready.copy()
    chosen[graph.pairs[near]] = True
    index = np.cumsum(chosen) - 1
    part = RegionGraph(
        graph.classes[chosen], graph.sizes[chosen], index[graph.pairs[near]], graph.borders[near]
    )
    classes = graph.classes.copy()
    classes[chosen] = merge_small(part, min_pixels)[1]
    return waits, classes


def components(count: int, links: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """Number of connected components of `count` things, and (count,) the one of each."""
    ones = np.ones(len(links), bool)
    graph = coo_array((ones, (links[:, 0], links[:, 1])), shape=(count, count))
    found, component = connected_components(graph, directed=False)
    return int(found), component.astype(np.int64)


def _contacts(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(k, 3) pairs of different labels one above the other, and their number of pixel edges."""
    upper, lower = labels[:-1], labels[1:]
    meets = (upper != lower) & (upper >= 0) & (lower >= 0)
    pairs = np.sort(np.stack([upper[meets], lower[meets]], axis=1), axis=1)
    return _summed(pairs, np.ones(len(pairs), np.int64))


def _summed(pairs: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(k, 3) each different pair once, sorted, with the sum of its lengths."""
    if not len(pairs):
        return np.zeros((0, 3), np.int64)
    order = np.lexsort(pairs.T[::-1])
    pairs, lengths = pairs[order], lengths[order]
    new = np.append(True, (pairs[1:] != pairs[:-1]).any(axis=1))
    return np.column_stack([pairs[new], np.add.reduceat(lengths, np.flatnonzero(new))])


def _measure(
    classes: NDArray[np.uint8],
    labels: NDArray[np.int64],
    window: PixelWindow,
    start: int,
    count: int,
    width: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Class, number of pixels and first pixel (row-major, in the whole map) of a block's labels."""
    rows, cols = np.nonzero(labels >= 0)
    local = labels[rows, cols] - start
    first = np.zeros(count, np.int64)
    # Of several values for one place the last stays, which read backwards is the first pixel.
    first[local[::-1]] = ((rows + window.row_off) * width + cols + window.col_off)[::-1]
    found = np.zeros(count, np.uint8)
    found[local] = classes[rows, cols]
    return found, np.bincount(local, minlength=count), first


def _join(
    classes: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    firsts: NDArray[np.int64],
    contacts: NDArray[np.int64],
) -> tuple[RegionGraph, NDArray[np.int64], NDArray[np.int64]]:
    """Make one region of the labels that touch across a block border and have the same class.

    Returns:
        The regions in the order of their first pixels, these pixels, and the region of each label.
    """
    a, b, length = contacts.T
    same = classes[a] == classes[b]
    count, component = components(len(classes), contacts[same, :2])
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, component, firsts)
    order = np.argsort(first)
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    region = rank[component]
    of_region = np.zeros(count, np.uint8)
    of_region[region] = classes
    area = np.zeros(count, np.int64)
    np.add.at(area, region, sizes)
    pairs = np.sort(np.column_stack([region[a[~same]], region[b[~same]]]), axis=1)
    summed = _summed(pairs, length[~same])
    return RegionGraph(of_region, area, summed[:, :2], summed[:, 2]), first[order], region
