"""Whether a confidence of 0.8 is right in 8 of 10 cases."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geolink.errors import InputError
from geolink.metrics.tally import Tally, ratio

BINS = 15


@dataclass(frozen=True)
class Reliability(Tally):
    """Confidence and correctness, summed in bins of equal width over 0-1.

    Attributes:
        count: (bins,) weight (pixels) in each bin.
        confidence: (bins,) sum of their confidences.
        correct: (bins,) weight of those that are right.
    """

    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.float64]

    @classmethod
    def by_block(
        cls,
        confidence: NDArray[np.floating],
        correct: NDArray[np.floating | np.bool_],
        blocks: NDArray[np.integer],
        *,
        count: int,
        weights: NDArray[np.floating | np.integer] | None = None,
        bins: int = BINS,
    ) -> list["Reliability"]:
        """One table for each of `count` blocks.

        Args:
            confidence: (n,) stated probability of being right, 0-1.
            correct: (n,) True or 1 where it is right; a share for what is right in part.
            blocks: (n,) block of each, from 0.
            count: number of blocks.
            weights: (n,) how much each counts; 1 where not given.
            bins: number of bins.

        Raises:
            InputError: a confidence is not between 0 and 1.
        """
        stated = confidence.astype(np.float64)
        if not ((stated >= 0) & (stated <= 1 + 1e-6)).all():
            raise InputError("confidences must be between 0 and 1")
        cells = blocks * bins + np.minimum((stated * bins).astype(np.int64), bins - 1)
        weight = np.ones(len(stated)) if weights is None else weights.astype(np.float64)

        def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
            sums = np.bincount(cells, values, minlength=count * bins).astype(np.float64)
            return sums.reshape(count, bins)

        tables = summed(weight), summed(weight * stated), summed(weight * correct)
        return [cls(*rows) for rows in zip(*tables, strict=True)]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(bins,) share that is right; NaN for an empty bin."""
        return ratio(self.correct, self.count)

    @property
    def mean_confidence(self) -> NDArray[np.float64]:
        """(bins,) mean confidence; NaN for an empty bin."""
        return ratio(self.confidence, self.count)

    @property
    def ece(self) -> float:
        """Expected calibration error: the bins' gaps between confidence and accuracy, weighted.

        0 is perfect; NaN where nothing was counted (Guo et al. 2017, equation 3).
        """
        return float(ratio(np.abs(self.correct - self.confidence).sum(), self.count.sum()))
