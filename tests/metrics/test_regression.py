import math

import numpy as np
import pytest

from geolink.errors import InputError
from geolink.metrics.regression import RegressionSums

RNG = np.random.default_rng(0)
MEASURED = RNG.normal(1e6, 5, 200)
PREDICTED = MEASURED + RNG.normal(1, 2, 200)


def test_figures_equal_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    found = RegressionSums.of(MEASURED, PREDICTED, origin=1e6)
    assert found.r2 == pytest.approx(sk.r2_score(MEASURED, PREDICTED))
    assert found.rmse == pytest.approx(math.sqrt(sk.mean_squared_error(MEASURED, PREDICTED)))
    assert found.mae == pytest.approx(sk.mean_absolute_error(MEASURED, PREDICTED))


def test_parts_add_up():
    parts = [RegressionSums.of(MEASURED[i::3], PREDICTED[i::3], origin=1e6) for i in range(3)]
    whole = RegressionSums.of(MEASURED, PREDICTED, origin=1e6)
    assert (parts[0] + parts[1] + parts[2]).r2 == pytest.approx(whole.r2)


def test_values_that_do_not_vary_have_no_r2():
    assert math.isnan(RegressionSums.of(np.ones(5), np.arange(5.0)).r2)


def test_bad_values_are_refused():
    with pytest.raises(InputError, match="finite"):
        RegressionSums.of(np.array([1.0, math.nan]), np.zeros(2))
    with pytest.raises(InputError, match="match"):
        RegressionSums.of(np.zeros(3), np.zeros(2))
