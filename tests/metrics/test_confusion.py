import math

import numpy as np
import pytest

from geolink.errors import InputError
from geolink.legend import IGNORE
from geolink.metrics import ConfusionMatrix

RNG = np.random.default_rng(0)
REFERENCE = RNG.integers(0, 5, (40, 50)).astype(np.uint8)
PREDICTED = np.where(RNG.random((40, 50)) < 0.6, REFERENCE, RNG.integers(0, 5, (40, 50)))
PREDICTED = PREDICTED.astype(np.uint8)


def test_figures_equal_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    found = ConfusionMatrix.of(REFERENCE, PREDICTED, classes=5)
    pair = REFERENCE.ravel(), PREDICTED.ravel()
    np.testing.assert_array_equal(found.counts, sk.confusion_matrix(*pair))
    np.testing.assert_allclose(found.iou, sk.jaccard_score(*pair, average=None))
    np.testing.assert_allclose(found.f1, sk.f1_score(*pair, average=None))
    assert found.accuracy == pytest.approx(sk.accuracy_score(*pair))
    assert found.kappa == pytest.approx(sk.cohen_kappa_score(*pair))


def test_figures_of_a_matrix_counted_by_hand() -> None:
    reference, predicted = np.array([0, 0, 1, 1], np.uint8), np.array([0, 0, 0, 1], np.uint8)
    found = ConfusionMatrix.of(reference, predicted, classes=2)
    assert found.counts.tolist() == [[2, 0], [1, 1]]
    np.testing.assert_allclose(found.iou, [2 / 3, 1 / 2])
    np.testing.assert_allclose(found.f1, [4 / 5, 2 / 3])
    assert found.accuracy == 0.75
    assert found.kappa == 0.5


def test_pixels_without_a_class_are_not_counted() -> None:
    reference, predicted = REFERENCE.copy(), PREDICTED.copy()
    reference[:10] = IGNORE
    predicted[:, :5] = IGNORE
    found = ConfusionMatrix.of(reference, predicted, classes=5)
    inner = ConfusionMatrix.of(REFERENCE[10:, 5:], PREDICTED[10:, 5:], classes=5)
    np.testing.assert_array_equal(found.counts, inner.counts)


def test_mean_iou_is_over_classes_of_the_reference() -> None:
    reference = np.array([0, 0, 1, 1], np.uint8)
    predicted = np.array([0, 0, 1, 2], np.uint8)
    found = ConfusionMatrix.of(reference, predicted, classes=4)
    np.testing.assert_allclose(found.iou, [1, 0.5, 0, math.nan])
    assert found.mean_iou == 0.75


def test_matrices_add_up() -> None:
    halves = [
        ConfusionMatrix.of(REFERENCE[part], PREDICTED[part], classes=5)
        for part in (slice(0, 20), slice(20, 40))
    ]
    whole = ConfusionMatrix.of(REFERENCE, PREDICTED, classes=5)
    np.testing.assert_array_equal((halves[0] + halves[1]).counts, whole.counts)


def test_majority_is_a_map_of_the_most_frequent_class() -> None:
    found = ConfusionMatrix.of(REFERENCE, PREDICTED, classes=5).majority()
    most = np.bincount(REFERENCE.ravel()).argmax()
    constant = np.full_like(REFERENCE, most)
    expected = ConfusionMatrix.of(REFERENCE, constant, classes=5)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.kappa == pytest.approx(0)


def test_without_pixels_figures_are_nan_and_silent() -> None:
    nothing = np.full((3, 3), IGNORE, np.uint8)
    found = ConfusionMatrix.of(nothing, nothing, classes=3)
    assert found.pixels == 0
    figures = (found.accuracy, found.kappa, found.mean_iou, found.mean_f1)
    assert all(math.isnan(figure) for figure in figures)


def test_bad_maps_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        ConfusionMatrix.of(REFERENCE, PREDICTED[:5], classes=5)
    with pytest.raises(InputError, match="classes"):
        ConfusionMatrix.of(REFERENCE, PREDICTED, classes=4)
