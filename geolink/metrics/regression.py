"""How well predicted numbers agree with measured ones."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geolink.errors import InputError
from geolink.legend import Legend
from geolink.metrics.tally import Measured, ratio


@dataclass(frozen=True)
class RegressionSums(Measured):
    """Sums over predictions of a quantity.

    Attributes:
        count: () number of values.
        total: () sum of the measured values.
        squares: () sum of their squares.
        errors: () sum of absolute errors.
        squared_errors: () sum of squared errors.
    """

    count: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    errors: NDArray[np.float64]
    squared_errors: NDArray[np.float64]

    @classmethod
    def of(
        cls, measured: NDArray[np.floating], predicted: NDArray[np.floating], *, origin: float = 0.0
    ) -> "RegressionSums":
        """The sums of (n,) values; `origin` is subtracted first, near the mean for precision.

        Raises:
            InputError: the shapes differ, or a value is not finite.
        """
        if measured.shape != predicted.shape:
            raise InputError(
                f"{measured.shape} measured and {predicted.shape} predicted values do not match"
            )
        if not (np.isfinite(measured).all() and np.isfinite(predicted).all()):
            raise InputError("measured and predicted values must be finite; leave out the others")
        value = measured.astype(np.float64) - origin
        gap = predicted.astype(np.float64) - origin - value
        sums = (len(value), value.sum(), (value**2).sum(), np.abs(gap).sum(), (gap**2).sum())
        return cls(*(np.asarray(number, np.float64) for number in sums))

    @property
    def r2(self) -> float:
        """Share of the variance explained; NaN where the measured values do not vary."""
        spread = self.squares - ratio(self.total**2, self.count)
        return float(1 - ratio(self.squared_errors, spread if spread > 0 else 0.0))

    @property
    def rmse(self) -> float:
        """Root of the mean squared error, in the unit of the quantity."""
        return float(np.sqrt(ratio(self.squared_errors, self.count)))

    @property
    def mae(self) -> float:
        """Mean absolute error, in the unit of the quantity."""
        return float(ratio(self.errors, self.count))

    def figures(self, legend: Legend) -> dict[str, float]:
        """r2, RMSE and MAE; the legend has no part in them."""
        return {"r2": self.r2, "rmse": self.rmse, "mae": self.mae}
