from dataclasses import dataclass

import numpy as np
import pytest

from geolink.metrics.tally import Tally, ratio, total


@dataclass(frozen=True)
class Inner(Tally):
    seen: np.ndarray


@dataclass(frozen=True)
class Outer(Tally):
    unit: str
    counts: np.ndarray
    inner: Inner


PARTS = [Outer("m", np.array([1, i]), Inner(np.array(float(i)))) for i in range(4)]


def test_the_whole_is_the_sum_of_its_parts():
    whole = total(PARTS)
    assert whole.counts.tolist() == [4, 6]
    assert whole.inner.seen == 6.0
    assert whole.unit == "m"
    assert (PARTS[1] + PARTS[2]).counts.tolist() == [2, 3]


def test_weights_repeat_parts():
    whole = total(PARTS, np.array([0, 2, 0, 1]))
    assert whole.counts.tolist() == [3, 5]
    assert whole.counts.dtype == PARTS[0].counts.dtype
    assert whole.inner.seen == 5.0


@pytest.mark.parametrize(
    ("part", "whole", "expected"), [(1, 2, 0.5), (0, 0, np.nan), (3, 0, np.nan)]
)
def test_a_ratio_to_nothing_is_nan(part, whole, expected):
    np.testing.assert_equal(float(ratio(part, whole)), expected)
