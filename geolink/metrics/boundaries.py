"""How well the outlines of classes agree, at stated distances on the ground."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects

from geolink.legend import IGNORE
from geolink.metrics.tally import Tally, mean_of, ratio


@dataclass(frozen=True)
class BoundaryMatches(Tally):
    """Boundary pixels of two maps, and how many of them have the other's boundary near.

    Attributes:
        distances_m: tolerances in metres.
        referenced: (classes,) boundary pixels in the reference.
        predicted: (classes,) boundary pixels in the prediction.
        found: (distances, classes) reference boundary pixels with a predicted one of the same
            class within the distance.
        right: (distances, classes) predicted boundary pixels with one of the reference near.
    """

    distances_m: tuple[float, ...]
    referenced: NDArray[np.int64]
    predicted: NDArray[np.int64]
    found: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def by_block(
        cls,
        reference: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        blocks: NDArray[np.integer],
        *,
        classes: int,
        count: int,
        gsd: float,
        distances_m: Sequence[float],
    ) -> list["BoundaryMatches"]:
        """One tally for each of `count` blocks of two (height, width) maps.

        A boundary pixel of a class touches, by one of its four sides, a pixel of another class.
        Where either map has no class (255), neither has boundaries.

        Args:
            reference: class ids, 255 where unknown.
            predicted: class ids, 255 where unmapped.
            blocks: each pixel's block, from 0; the distances reach across blocks.
            classes: number of classes.
            count: number of blocks.
            gsd: metres per pixel.
            distances_m: tolerances in metres.
        """
        known = (reference != IGNORE) & (predicted != IGNORE)
        maps = [np.where(known, classes_of, IGNORE) for classes_of in (reference, predicted)]
        edges = [edge_pixels(class_map) for class_map in maps]
        limits = np.asarray(distances_m, float)
        shape = (2, 1 + len(limits), classes, count)
        sums = np.zeros(shape, np.int64)  # side, all then per distance, class, block
        for i in range(classes):
            own = [edge & (class_map == i) for edge, class_map in zip(edges, maps, strict=True)]
            window = _extent(own[0] | own[1], round(limits.max(initial=0.0) / gsd) + 1)
            if window is None:
                continue
            here = [side[window] for side in own]
            for side, other in ((0, 1), (1, 0)):
                where = blocks[window][here[side]]
                gaps = _distances(here[other], gsd)[here[side]]
                sums[side, 0, i] = np.bincount(where, minlength=count)
                for k, limit in enumerate(limits):
                    near = where[gaps <= limit * (1 + 1e-9)]
                    sums[side, 1 + k, i] = np.bincount(near, minlength=count)
        tolerances = tuple(float(limit) for limit in limits)
        return [
            cls(tolerances, ref[0], pred[0], ref[1:], pred[1:])
            for ref, pred in np.moveaxis(sums, -1, 0)
        ]

    @property
    def f1(self) -> NDArray[np.float64]:
        """(distances, classes) harmonic mean of the shares right and found.

        NaN for a class without any boundary (Csurka et al. 2013, BF score).
        """
        precision = ratio(self.right, self.predicted)
        recall = ratio(self.found, self.referenced)
        both = ratio(2 * precision * recall, precision + recall)
        missing = (self.referenced > 0) | (self.predicted > 0)
        return np.where(np.isnan(both) & missing, 0.0, both)

    @property
    def mean_f1(self) -> list[float]:
        """Per distance, the mean over the classes with a boundary in the reference."""
        return [mean_of(row, self.referenced > 0) for row in self.f1]


def edge_pixels(class_map: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(height, width) True where a side of the pixel touches another class; never at 255."""
    edge = np.zeros(class_map.shape, bool)
    for first, second in (
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ):
        a, b = class_map[first], class_map[second]
        differ = (a != b) & (a != IGNORE) & (b != IGNORE)
        edge[first] |= differ
        edge[second] |= differ
    return edge


def _extent(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice] | None:
    """The rectangle around the True pixels, grown by `margin`; None where there are none."""
    found = find_objects(mask.astype(np.uint8))
    if not found:
        return None
    rows, cols = (slice(max(s.start - margin, 0), s.stop + margin) for s in found[0])
    return rows, cols


def _distances(mask: NDArray[np.bool_], gsd: float) -> NDArray[np.float64]:
    """Metres from each pixel's centre to the nearest True one; infinite where there are none."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    gaps: NDArray[np.float64] = distance_transform_edt(~mask, sampling=gsd)
    return gaps
