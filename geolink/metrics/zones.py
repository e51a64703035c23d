"""Figures over whole zones: what a planner asks of a map, who counts sites and not pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label as label_components

from geolink.legend import IGNORE
from geolink.metrics.tally import Tally, ratio

NO_ZONE = -1


@dataclass(frozen=True)
class ZoneHits(Tally):
    """Reference zones by class, and those whose most frequent mapped class is right.

    Attributes:
        zones: (classes,) number of zones.
        right: (classes,) those that are right.
        area: (classes,) their pixels that are mapped.
        area_right: (classes,) pixels of the zones that are right.
    """

    zones: NDArray[np.int64]
    right: NDArray[np.int64]
    area: NDArray[np.int64]
    area_right: NDArray[np.int64]

    @classmethod
    def by_block(
        cls,
        zones: NDArray[np.int32],
        reference: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        blocks: NDArray[np.integer],
        *,
        classes: int,
        count: int,
    ) -> list["ZoneHits"]:
        """One tally for each of `count` blocks; a zone belongs to the block of its middle.

        Args:
            zones: (height, width) id of the zone that a pixel is in, `NO_ZONE` for none; all
                pixels of a zone have one reference class.
            reference: class ids, 255 where unknown.
            predicted: class ids; pixels that are not mapped (255) have no say, and a zone without
                any other is not counted.
            blocks: each pixel's block, from 0.
            classes: number of classes.
            count: number of blocks.
        """
        inside = (zones != NO_ZONE) & (reference != IGNORE) & (predicted != IGNORE)
        zone, votes = zones[inside], predicted[inside].astype(np.int64)
        number = int(zone.max(initial=-1)) + 1
        table = np.bincount(zone * classes + votes, minlength=number * classes)
        table = table.reshape(number, classes)
        area = table.sum(axis=1)
        kind = np.zeros(number, np.int64)
        kind[zone] = reference[inside]
        home = _blocks_of(zones, blocks, number)
        right = table.argmax(axis=1) == kind
        cells = home * classes + kind
        sums = [
            np.bincount(cells, weights, minlength=count * classes).reshape(count, classes)
            for weights in (area > 0, (area > 0) & right, area, area * right)
        ]
        return [cls(*(row.astype(np.int64) for row in rows)) for rows in zip(*sums, strict=True)]

    @property
    def share_right(self) -> float:
        """Share of the zones that are right, each counting once; NaN where there are none."""
        return float(ratio(self.right.sum(), self.zones.sum()))

    @property
    def area_share_right(self) -> float:
        """Share of the zones' area that lies in right ones, so that zones count by their size."""
        return float(ratio(self.area_right.sum(), self.area.sum()))

    @property
    def class_share_right(self) -> NDArray[np.float64]:
        """(classes,) share of the zones of each class that are right."""
        return ratio(self.right, self.zones)


def connected_zones(class_map: NDArray[np.uint8], *, min_pixels: int = 1) -> NDArray[np.int32]:
    """(height, width) ids of the connected areas of one class, from 0; `NO_ZONE` elsewhere.

    Pixels are connected by their sides. Areas under `min_pixels` are no zones.
    """
    zones = np.full(class_map.shape, NO_ZONE, np.int32)
    count = 0
    for i in np.unique(class_map[class_map != IGNORE]):
        parts, found = label_components(class_map == i)
        large = np.bincount(parts.ravel(), minlength=found + 1)[1:] >= min_pixels
        ids = np.full(found + 1, NO_ZONE, np.int32)
        ids[1:][large] = count + np.arange(large.sum())
        zones = np.where(parts > 0, ids[parts], zones)
        count += int(large.sum())
    return zones


def zone_means(
    zones: NDArray[np.int32], values: NDArray[np.floating | np.bool_], among: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean of `values` over the pixels `among` those of each zone, and their number.

    Returns:
        Two (zones,) arrays; the mean is NaN where the number is 0.
    """
    inside = (zones != NO_ZONE) & among
    number = int(zones.max(initial=-1)) + 1
    sizes = np.bincount(zones[inside], minlength=number)
    sums = np.bincount(zones[inside], values[inside].astype(np.float64), minlength=number)
    return ratio(sums, sizes), sizes


def zone_blocks(zones: NDArray[np.int32], blocks: NDArray[np.integer]) -> NDArray[np.int64]:
    """(zones,) block of each zone's middle pixel."""
    return _blocks_of(zones, blocks, int(zones.max(initial=-1)) + 1)


def _blocks_of(
    zones: NDArray[np.int32], blocks: NDArray[np.integer], number: int
) -> NDArray[np.int64]:
    """(number,) block at the mean position of each zone's pixels."""
    rows, cols = np.nonzero(zones != NO_ZONE)
    zone = zones[rows, cols]
    sizes = np.maximum(np.bincount(zone, minlength=number), 1)
    row, col = (np.bincount(zone, axis, minlength=number) / sizes for axis in (rows, cols))
    middle = row.astype(np.int64)[:number], col.astype(np.int64)[:number]
    home: NDArray[np.int64] = blocks[middle].astype(np.int64)
    return home
