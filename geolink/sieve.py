"""Small regions of a class map given to their neighbours, block by block and exactly.

A region is a 4-connected set of pixels of one class. Regions are found per block and joined across
block borders, so that only numbers per region are held in memory and the result does not depend on
the size of the blocks.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE

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
    read: ReadClasses, grid: GridSpec, *, min_pixels: int, side: int = 1024
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
        Each block's window and its class ids.
    """
    graph, region_of_label = _find_regions(read, grid, side)
    _, classes = merge_small(graph, min_pixels)
    class_of_label = np.append(classes[region_of_label], np.uint8(IGNORE))  # label -1: no data
    start = 0
    for window in grid.blocks(side):
        labels, count = _label(read(window), start)
        yield window, class_of_label[labels]
        start += count


def merge_small(graph: RegionGraph, min_size: float) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Join regions smaller than `min_size`, smallest first, to the class most around them.

    That is the class with the longest common border (the lower one where two are equal); the
    region and its neighbours of that class become one. A region without neighbours stays.

    Returns:
        (n,) index of the region that stands for each one's group, and (n,) class of that group.
    """
    classes, sizes = graph.classes.tolist(), graph.sizes.tolist()
    borders: list[dict[int, float]] = [{} for _ in classes]
    for (a, b), length in zip(graph.pairs.tolist(), graph.borders.tolist(), strict=True):
        borders[a][b] = borders[b][a] = length
    owner = np.arange(len(classes))
    queue = [(size, region) for region, size in enumerate(sizes) if size < min_size]
    heapq.heapify(queue)
    while queue:
        size, region = heapq.heappop(queue)
        if owner[region] != region or sizes[region] != size or not borders[region]:
            continue  # joined to another, grown since, or alone
        best = _class_most_around(borders[region], classes)
        group = [region, *(n for n in borders[region] if classes[n] == best)]
        kept = max(group, key=lambda r: (len(borders[r]), -r))  # the long list stays where it is
        classes[kept], sizes[kept] = best, sum(sizes[r] for r in group)
        for absorbed in group:
            if absorbed != kept:
                owner[absorbed] = kept
                _move_borders(borders, absorbed, kept)
        if sizes[kept] < min_size:
            heapq.heappush(queue, (sizes[kept], kept))
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


def _label(classes: NDArray[np.uint8], start: int) -> tuple[NDArray[np.int64], int]:
    """Number the regions of one block from `start`, -1 where "no data", and count them."""
    labels = np.full(classes.shape, -1, np.int64)
    count = 0
    for value in np.unique(classes[classes != IGNORE]):
        found, n = ndimage.label(classes == value)
        inside = found > 0
        labels[inside] = found[inside] + (start + count - 1)
        count += n
    return labels, count


def _find_regions(
    read: ReadClasses, grid: GridSpec, side: int
) -> tuple[RegionGraph, NDArray[np.int64]]:
    """Regions of the whole map, in the order of their first pixels, and the region of each label.

    Labels are those of `_label` over the blocks in order.
    """
    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]] = []
    contacts: list[NDArray[np.int64]] = [np.zeros((0, 3), np.int64)]
    above = np.full(grid.width, -1, np.int64)  # last row of the blocks above
    start = 0
    for window in grid.blocks(side):
        classes = read(window)
        labels, count = _label(classes, start)
        if window.col_off == 0:
            left = np.full(window.height, -1, np.int64)
        cols = window.slices[1]
        contacts += [
            _contacts(np.vstack([above[cols], labels])),
            _contacts(np.column_stack([left, labels]).T),
        ]
        parts.append(_measure(classes, labels, window, start, count, grid.width))
        above[cols], left = labels[-1], labels[:, -1]
        start += count
    if start == 0:
        none = np.zeros(0, np.int64)
        return RegionGraph(none.astype(np.uint8), none, none.reshape(0, 2), none), none
    classes, sizes, firsts = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _join(classes, sizes, firsts, np.concatenate(contacts))


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
) -> tuple[RegionGraph, NDArray[np.int64]]:
    """Make one region of the labels that touch across a block border and have the same class."""
    n = len(classes)
    a, b, length = contacts.T
    same = classes[a] == classes[b]
    links = coo_array((np.ones(same.sum(), bool), (a[same], b[same])), shape=(n, n))
    count, component = connected_components(links, directed=False)
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, component, firsts)
    rank = np.empty(count, np.int64)
    rank[np.argsort(first)] = np.arange(count)
    region = rank[component]  # regions count in the order of their first pixels
    of_region = np.zeros(count, np.uint8)
    of_region[region] = classes
    area = np.zeros(count, np.int64)
    np.add.at(area, region, sizes)
    pairs = np.sort(np.column_stack([region[a[~same]], region[b[~same]]]), axis=1)
    summed = _summed(pairs, length[~same])
    return RegionGraph(of_region, area, summed[:, :2], summed[:, 2]), region
