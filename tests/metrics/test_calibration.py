import math

import numpy as np
import pytest

from geolink.errors import InputError
from geolink.metrics.calibration import Reliability
from geolink.metrics.tally import total

RNG = np.random.default_rng(0)
CONFIDENCE = RNG.random(20_000)


def reliability(confidence, correct, **options):
    blocks = np.zeros(len(confidence), int)
    return Reliability.by_block(confidence, correct, blocks, count=1, **options)[0]


def test_two_bins_counted_by_hand():
    found = reliability(np.array([0.2, 0.4, 0.9]), np.array([False, True, True]), bins=2)
    assert found.count.tolist() == [2, 1]
    np.testing.assert_allclose(found.accuracy, [0.5, 1.0])
    np.testing.assert_allclose(found.mean_confidence, [0.3, 0.9])
    assert found.ece == pytest.approx((abs(1 - 0.6) + abs(1 - 0.9)) / 3)


def test_an_honest_confidence_has_hardly_an_error_and_a_boast_has():
    honest = reliability(CONFIDENCE, RNG.random(20_000) < CONFIDENCE)
    boast = reliability(np.sqrt(CONFIDENCE), RNG.random(20_000) < CONFIDENCE)
    assert honest.ece < 0.02
    assert boast.ece == pytest.approx(2 / 3 - 1 / 2, abs=0.02)


def test_certainty_falls_into_the_last_bin():
    assert reliability(np.array([1.0, 0.0]), np.array([True, False])).count[[0, -1]].tolist() == [
        1,
        1,
    ]


def test_weights_count_as_often():
    confidence, correct = np.array([0.3, 0.7]), np.array([True, False])
    weighted = reliability(confidence, correct, weights=np.array([3, 1]))
    repeated = reliability(np.repeat(confidence, [3, 1]), np.repeat(correct, [3, 1]))
    np.testing.assert_allclose(weighted.count, repeated.count)
    assert weighted.ece == pytest.approx(repeated.ece)


def test_blocks_add_up():
    correct = RNG.random(20_000) < CONFIDENCE
    blocks = RNG.integers(0, 7, 20_000)
    parts = Reliability.by_block(CONFIDENCE, correct, blocks, count=7)
    assert total(parts).ece == pytest.approx(reliability(CONFIDENCE, correct).ece)


def test_nothing_has_no_error_and_no_figure():
    assert math.isnan(reliability(np.zeros(0), np.zeros(0, bool)).ece)


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(InputError, match="between 0 and 1"):
        reliability(np.array([value]), np.array([True]))
