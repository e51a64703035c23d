import numpy as np
import pytest

from geolink.errors import InputError
from geolink.metrics.probes import knn_votes, linear_probe

RNG = np.random.default_rng(0)


def clusters(each, spread, seed=0):
    """Features of three classes in three directions, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(3).repeat(each)
    return np.eye(5)[labels] * 4 + spread * rng.standard_normal((len(labels), 5)), labels


def test_knn_tells_clusters_apart_by_angle():
    train, labels = clusters(30, 0.3)
    test, expected = clusters(10, 0.3, seed=1)
    lengths = RNG.uniform(0.01, 100, (len(test), 1))
    assert (knn_votes(train, labels, test * lengths).argmax(axis=1) == expected).all()


def test_knn_is_a_vote_of_k():
    train = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
    labels = np.array([0, 1, 1, 0])
    ahead = np.array([[1.0, 0.0]])
    assert knn_votes(train, labels, ahead, neighbours=1).tolist() == [[1.0, 0.0]]
    np.testing.assert_allclose(knn_votes(train, labels, ahead, neighbours=3), [[1 / 3, 2 / 3]])


def test_knn_of_few_samples_asks_all_of_them():
    train, labels = clusters(2, 0.1)
    assert len(knn_votes(train, labels, train)) == 6


def test_linear_probe_gives_probabilities_of_the_right_class():
    train, labels = clusters(30, 0.5)
    test, expected = clusters(10, 0.5, seed=1)
    validation = clusters(8, 0.5, seed=2)
    found = linear_probe(train, labels, test, validation=validation)
    assert found.shape == (30, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == expected).mean() > 0.95


def test_validation_chooses_the_strength():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60)
    train = np.column_stack([labels + 1.5 * rng.standard_normal(60), rng.standard_normal((60, 40))])
    strong = linear_probe(train, labels, train, validation=(train, labels), strengths=(1e-4, 1e3))
    weak = linear_probe(train, labels, train, validation=(train, labels), strengths=(1e3,))
    np.testing.assert_array_equal(strong, weak)  # overfitting wins on the data it has seen


def test_one_class_is_not_learnable():
    train, _ = clusters(3, 0.1)
    with pytest.raises(InputError, match="one class"):
        knn_votes(train, np.zeros(9, int), train)


def test_features_that_are_not_finite_are_refused():
    train, labels = clusters(3, 0.1)
    train[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        linear_probe(train, labels, train, validation=(train, labels))
