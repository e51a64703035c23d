import numpy as np
import pytest

from geolink.legend import Legend, MapClass
from geolink.metrics.classification import tally_classes
from geolink.metrics.tally import total

LEGEND = Legend("scenes", tuple(MapClass(i, n, "#000000") for i, n in enumerate(("a", "b", "c"))))


def test_figures_equal_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200).astype(np.uint8)
    probabilities = rng.dirichlet([1, 1, 1], 200) + np.eye(3)[truth] * 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    parts = tally_classes(truth, probabilities, rng.integers(0, 4, 200), count=4)
    figures = total(parts).figures(LEGEND)
    predicted = probabilities.argmax(axis=1)
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert figures["mean_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert figures["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, predicted))
    assert figures["f1.b"] == pytest.approx(sk.f1_score(truth, predicted, average=None)[1])


def test_confidence_is_that_of_the_predicted_class():
    truth = np.array([0, 1], np.uint8)
    probabilities = np.array([[0.8, 0.2, 0.0], [0.6, 0.4, 0.0]])
    found = tally_classes(truth, probabilities, np.zeros(2, int), count=1)[0]
    assert found.figures(LEGEND)["ece"] == pytest.approx((0.2 + 0.6) / 2)
