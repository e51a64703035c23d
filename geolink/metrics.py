"""How well a class map agrees with a reference: counts over pixels, and figures from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geolink.errors import InputError
from geolink.legend import IGNORE


@dataclass(frozen=True)
class ConfusionMatrix:
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
        if reference.shape != predicted.shape:
            raise InputError(
                f"reference and prediction differ in shape: {reference.shape}, {predicted.shape}"
            )
        both = (reference != IGNORE) & (predicted != IGNORE)
        rows, cols = reference[both].astype(np.int64), predicted[both].astype(np.int64)
        if max(rows.max(initial=0), cols.max(initial=0)) >= classes:
            raise InputError(f"a map holds an id that is none of the {classes} classes")
        counts = np.bincount(rows * classes + cols, minlength=classes**2)
        return cls(counts.reshape(classes, classes))

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        return ConfusionMatrix(self.counts + other.counts)

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.counts.sum())

    @property
    def iou(self) -> NDArray[np.float64]:
        """(classes,) intersection over union; NaN for a class that neither map has."""
        return _ratio(self._hits, self._referenced + self._predicted - self._hits)

    @property
    def f1(self) -> NDArray[np.float64]:
        """(classes,) harmonic mean of precision and recall; NaN for a class that neither has."""
        return _ratio(2 * self._hits, self._referenced + self._predicted)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that occur in the reference; NaN where there are none."""
        return self._mean(self.iou)

    @property
    def mean_f1(self) -> float:
        """Mean F1 of the classes that occur in the reference; NaN where there are none."""
        return self._mean(self.f1)

    @property
    def accuracy(self) -> float:
        """Share of pixels with the right class; NaN without pixels."""
        return float(_ratio(self._hits.sum(), self.counts.sum()))

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond chance; NaN where chance alone agrees wholly."""
        total = float(self.counts.sum())
        chance = _ratio((self._referenced * self._predicted).sum(), np.float64(total**2))
        return float(_ratio(self.accuracy - chance, 1.0 - chance))

    def majority(self) -> "ConfusionMatrix":
        """The matrix of a map that has the reference's most frequent class everywhere."""
        counts = np.zeros_like(self.counts)
        counts[:, self._referenced.argmax()] = self._referenced
        return ConfusionMatrix(counts)

    @property
    def _hits(self) -> NDArray[np.int64]:
        return self.counts.diagonal()

    @property
    def _referenced(self) -> NDArray[np.int64]:
        return np.asarray(self.counts.sum(axis=1))

    @property
    def _predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.counts.sum(axis=0))

    def _mean(self, figures: NDArray[np.float64]) -> float:
        occurring = figures[self._referenced > 0]
        return float(occurring.mean()) if len(occurring) else float("nan")


def _ratio(part: object, whole: object) -> NDArray[np.float64]:
    """`part` / `whole`, NaN where `whole` is 0."""
    above, below = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    ratio = np.full(above.shape, np.nan)
    np.divide(above, below, out=ratio, where=below != 0)
    return ratio
