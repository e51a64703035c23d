import math

import numpy as np
import pytest

from geolink.metrics.confusion import ConfusionMatrix
from geolink.metrics.intervals import UNKNOWN, bootstrap, bootstrap_difference, t_interval


def blocks(count, share, seed=0, pixels=400):
    """Two-class blocks of which `share` is right, some more and some less."""
    rng = np.random.default_rng(seed)
    found = {}
    for i in range(count):
        right = rng.binomial(pixels, np.clip(share + 0.1 * rng.standard_normal(), 0, 1))
        found[f"b{i}"] = ConfusionMatrix(np.array([[right, pixels - right], [0, pixels]]))
    return found


def accuracy(tally):
    return {"accuracy": tally.accuracy}


def test_t_interval_of_three_runs():
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2.0)
    assert high - low == pytest.approx(2 * 4.302653 * 1 / math.sqrt(3))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan]])
def test_too_few_runs_tell_nothing(values):
    assert all(map(math.isnan, t_interval(values)))


def test_bootstrap_covers_the_spread_between_blocks():
    parts = list(blocks(40, 0.8).values())
    low, high = bootstrap(parts, accuracy)["accuracy"]
    each = np.array([part.accuracy for part in parts])
    error = each.std() / math.sqrt(len(each))
    assert (low + high) / 2 == pytest.approx(each.mean(), abs=error / 2)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_bootstrap_is_reproducible():
    parts = list(blocks(10, 0.8).values())
    assert bootstrap(parts, accuracy) == bootstrap(parts, accuracy)
    assert bootstrap(parts, accuracy) != bootstrap(parts, accuracy, seed=1)


def test_one_block_tells_nothing():
    found = bootstrap(list(blocks(1, 0.8).values()), accuracy)
    assert all(map(math.isnan, found["accuracy"]))


def test_a_figure_that_is_mostly_undefined_has_no_interval():
    parts = [ConfusionMatrix(np.array([[1, 0], [0, 0]])) for _ in range(20)]
    found = bootstrap(parts, lambda tally: {"iou": float(tally.iou[1])})
    assert found == {"iou": UNKNOWN} or all(map(math.isnan, found["iou"]))


def test_a_paired_difference_is_narrower_than_an_unpaired_one():
    first = blocks(30, 0.7)
    better = {
        name: ConfusionMatrix(part.counts + np.array([[8, -8], [0, 0]]))
        for name, part in first.items()
    }
    elsewhere = {f"other {name}": part for name, part in better.items()}
    paired = bootstrap_difference(first, better, accuracy)["accuracy"]
    unpaired = bootstrap_difference(first, elsewhere, accuracy)["accuracy"]
    assert paired.low == pytest.approx(0.01)
    assert paired.high == pytest.approx(0.01)
    assert unpaired.low < 0 < unpaired.high
