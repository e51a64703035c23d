"""How well a class map agrees with a reference: counts over pixels, and figures from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geolink.errors import InputError
from geolink.legend import IGNORE
from geolink.metrics.tally import Tally, mean_of, ratio


@dataclass(frozen=True)
class ConfusionMatrix(Tally):
    """Pixels by reference and predicted class; matrices of several maps can be added.

    Attributes:
        counts: (classes, classes) int64, rows the reference and columns the prediction.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(
        cls, reference: NDArray[np.uint8], predicted: NDArray[np.uint8], *, classes: int
    ) -> "ConfusionMatrix":
        """Count the pixels where both maps, of the same shape, have a class (not 255).

        Raises:
            InputError: the shapes differ, or an id is not a class.
        """
        blocks = np.zeros(np.shape(reference), np.intp)
        return cls.by_block(reference, predicted, blocks, classes=classes, count=1)[0]

    @classmethod
    def by_block(
        cls,
        reference: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        blocks: NDArray[np.integer],
        *,
        classes: int,
        count: int,
    ) -> list["ConfusionMatrix"]:
        """One matrix for each of `count` blocks; `blocks` holds each pixel's, from 0.

        Raises:
            InputError: the shapes differ, or an id is not a class.
        """
        if reference.shape != predicted.shape:
            raise InputError(
                f"reference and prediction differ in shape: {reference.shape}, {predicted.shape}"
            )
        both = (reference != IGNORE) & (predicted != IGNORE)
        rows, cols = reference[both].astype(np.int64), predicted[both].astype(np.int64)
        if max(rows.max(initial=0), cols.max(initial=0)) >= classes:
            raise InputError(f"a map holds an id that is none of the {classes} classes")
        cells = (blocks[both] * classes + rows) * classes + cols
        counts = np.bincount(cells, minlength=count * classes**2)
        return [cls(matrix) for matrix in counts.reshape(count, classes, classes)]

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.counts.sum())

    @property
    def referenced(self) -> NDArray[np.int64]:
        """(classes,) pixels of each class in the reference."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(classes,) pixels of each class in the prediction."""
        return np.asarray(self.counts.sum(axis=0))

    @property
    def iou(self) -> NDArray[np.float64]:
        """(classes,) intersection over union; NaN for a class that neither map has."""
        return ratio(self._hits, self.referenced + self.predicted - self._hits)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(classes,) harmonic mean of precision and recall; NaN for a class that neither has."""
        return ratio(2 * self._hits, self.referenced + self.predicted)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that occur in the reference; NaN where there are none."""
        return mean_of(self.iou, self.referenced > 0)

    @property
    def mean_f1(self) -> float:
        """Mean F1 of the classes that occur in the reference; NaN where there are none."""
        return mean_of(self.f1, self.referenced > 0)

    @property
    def accuracy(self) -> float:
        """Share of pixels with the right class; NaN without pixels."""
        return float(ratio(self._hits.sum(), self.counts.sum()))

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance; NaN where chance alone agrees wholly."""
        total = float(self.counts.sum())
        by_chance = self.referenced.astype(float) * self.predicted
        chance = ratio(by_chance.sum(), np.float64(total**2))
        return float(ratio(self.accuracy - chance, 1.0 - chance))

    @property
    def area_error(self) -> NDArray[np.float64]:
        """(classes,) mapped area minus that of the reference, as a share of the latter.

        0.2 is a fifth too much, -1 a class that is missed wholly; NaN for a class that the
        reference does not have.
        """
        return ratio(self.predicted - self.referenced, self.referenced)

    @property
    def misallocated(self) -> float:
        """Share of the area that has to change class for every class to have the right area.

        Half the sum of the classes' absolute differences; 0 where the total areas are right,
        whatever their places (quantity disagreement, Pontius and Millones 2011).
        """
        return float(ratio(np.abs(self.predicted - self.referenced).sum() / 2, self.counts.sum()))

    def majority(self) -> "ConfusionMatrix":
        """The matrix of a map that has the reference's most frequent class everywhere."""
        counts = np.zeros_like(self.counts)
        counts[:, self.referenced.argmax()] = self.referenced
        return ConfusionMatrix(counts)

    @property
    def _hits(self) -> NDArray[np.int64]:
        return self.counts.diagonal()
