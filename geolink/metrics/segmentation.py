"""Everything that is measured of a class map, by spatial block, and its named figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geolink.legend import IGNORE, Legend
from geolink.metrics.boundaries import BoundaryMatches
from geolink.metrics.calibration import Reliability
from geolink.metrics.confusion import ConfusionMatrix
from geolink.metrics.tally import Measured
from geolink.metrics.zones import ZoneHits, connected_zones, zone_blocks, zone_means

DISTANCES_M = (3.0, 10.0)
MIN_ZONE_AREA_M2 = 500.0


@dataclass(frozen=True)
class SegmentationTally(Measured):
    """What is counted of a class map.

    Attributes:
        confusion: pixels by reference and mapped class.
        pixels: confidence and correctness of pixels.
        polygons: the same of mapped zones (mean confidence of a zone, share of its pixels that
            are right), weighted by pixels.
        boundaries: boundary pixels that match.
        zones: reference zones whose most frequent mapped class is right.
    """

    confusion: ConfusionMatrix
    pixels: Reliability
    polygons: Reliability
    boundaries: BoundaryMatches
    zones: ZoneHits

    def figures(self, legend: Legend) -> dict[str, float]:
        """Figures of pixels, zones and outlines (see `Measured`)."""
        confusion, edges, names = self.confusion, self.boundaries, legend.names
        metres = [f"boundary_f1_{distance:g}m" for distance in edges.distances_m]
        overall = {
            "miou": confusion.mean_iou,
            "mean_f1": confusion.mean_f1,
            "accuracy": confusion.accuracy,
            "kappa": confusion.kappa,
            "ece": self.pixels.ece,
            "zone_ece": self.polygons.ece,
            **dict(zip(metres, edges.mean_f1, strict=True)),
            "zones_right": self.zones.share_right,
            "zones_right_by_area": self.zones.area_share_right,
            "misallocated_area": confusion.misallocated,
        }
        per_class = {
            "iou": confusion.iou,
            "f1": confusion.f1,
            "area_error": confusion.area_error,
            "zones_right": self.zones.class_share_right,
            **dict(zip(metres, edges.f1, strict=True)),
        }
        return overall | {
            f"{figure}.{name}": float(value)
            for figure, values in per_class.items()
            for name, value in zip(names, values, strict=True)
        }


def tally_map(
    reference: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    confidence: NDArray[np.floating],
    blocks: NDArray[np.integer],
    *,
    classes: int,
    count: int,
    gsd: float,
    distances_m: Sequence[float] = DISTANCES_M,
    min_zone_area_m2: float = MIN_ZONE_AREA_M2,
    zones: NDArray[np.int32] | None = None,
) -> list[SegmentationTally]:
    """One tally for each of `count` blocks of a (height, width) map.

    Args:
        reference: class ids, 255 where unknown.
        predicted: class ids, 255 where unmapped.
        confidence: probability of the predicted class.
        blocks: each pixel's block, from 0.
        classes: number of classes.
        count: number of blocks.
        gsd: metres per pixel.
        distances_m: tolerances of the boundary figures.
        min_zone_area_m2: smaller connected areas of the reference are no zones.
        zones: ids of the reference's own zones; its connected areas where not given.

    Raises:
        InputError: the maps differ in shape, or hold an id that is no class.
    """
    common = {"classes": classes, "count": count}
    confusion = ConfusionMatrix.by_block(reference, predicted, blocks, **common)
    if zones is None:
        zones = connected_zones(reference, min_pixels=max(round(min_zone_area_m2 / gsd**2), 1))
    known = (reference != IGNORE) & (predicted != IGNORE)
    right = predicted == reference
    boundaries = BoundaryMatches.by_block(
        reference, predicted, blocks, **common, gsd=gsd, distances_m=distances_m
    )
    parts = (
        confusion,
        Reliability.by_block(confidence[known], right[known], blocks[known], count=count),
        _mapped_zones(predicted, confidence, right, known, blocks, count),
        boundaries,
        ZoneHits.by_block(zones, reference, predicted, blocks, **common),
    )
    return [SegmentationTally(*block) for block in zip(*parts, strict=True)]


def _mapped_zones(
    predicted: NDArray[np.uint8],
    confidence: NDArray[np.floating],
    right: NDArray[np.bool_],
    known: NDArray[np.bool_],
    blocks: NDArray[np.integer],
    count: int,
) -> list[Reliability]:
    """Reliability of the mapped zones' mean confidence, as far as the reference knows them."""
    mapped = connected_zones(predicted)
    stated, _ = zone_means(mapped, confidence, predicted != IGNORE)
    share, pixels = zone_means(mapped, right, known)
    judged = pixels > 0
    home = zone_blocks(mapped, blocks)[judged]
    return Reliability.by_block(
        stated[judged], share[judged], home, count=count, weights=pixels[judged]
    )
