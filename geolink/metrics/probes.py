"""Protocols that judge frozen features by simple learners: nearest neighbours, linear probe.

The protocols of GeoLink (Bai et al. 2025, section 4) for scene classification. They see feature
vectors and nothing else, and are deterministic for a seed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from geolink.errors import InputError

Features = NDArray[np.floating]
Labels = NDArray[np.integer]

NEIGHBOURS = 20
# Inverse strengths of the regularisation that the validation part chooses from.
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


def knn_votes(
    train: Features, labels: Labels, test: Features, *, neighbours: int = NEIGHBOURS
) -> NDArray[np.float64]:
    """Share of votes per class among the training features nearest in angle.

    Args:
        train: (n, features).
        labels: (n,) classes of `train`.
        test: (m, features).
        neighbours: voters; all of `train` where that is fewer.

    Returns:
        (m, classes) shares, columns in the order of `numpy.unique(labels)`.

    Raises:
        InputError: there are not two classes to tell apart, or features are not finite.
    """
    _require_learnable(labels, train, test)
    learner = KNeighborsClassifier(min(neighbours, len(train)), metric="cosine", algorithm="brute")
    votes: NDArray[np.float64] = learner.fit(train, labels).predict_proba(test)
    return votes


def linear_probe(
    train: Features,
    labels: Labels,
    test: Features,
    *,
    validation: tuple[Features, Labels],
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Class probabilities of the test features by logistic regression on standardised features.

    Args:
        train: (n, features).
        labels: (n,) classes of `train`.
        test: (m, features).
        validation: features and classes that choose the strength of the regularisation by
            accuracy; of equal ones, the strongest.
        strengths: inverse strengths to choose from.
        seed: of the solver.

    Returns:
        (m, classes) probabilities, columns in the order of `numpy.unique(labels)`.

    Raises:
        InputError: there are not two classes to tell apart, or features are not finite.
    """
    _require_learnable(labels, train, validation[0], test)
    learners = [
        make_pipeline(
            StandardScaler(), LogisticRegression(C=strength, max_iter=2000, random_state=seed)
        ).fit(train, labels)
        for strength in sorted(strengths)
    ]
    best = max(learners, key=lambda learner: float(learner.score(*validation)))
    probabilities: NDArray[np.float64] = best.predict_proba(test)
    return probabilities


def _require_learnable(labels: Labels, *features: Features) -> None:
    if len(np.unique(labels)) < 2:
        raise InputError("the training part has one class only; add samples of another class")
    if not all(np.isfinite(table).all() for table in features):
        raise InputError(
            "the features hold NaN or infinite numbers; check the images and the model"
        )
