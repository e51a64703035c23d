"""The temperature that makes a model's confidence agree with how often it is right."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from geolink.datasets.base import LabelledData
from geolink.legend import IGNORE
from geolink.models.geolink import GeoLink
from geolink.workflows.answers import Answer, answers
from geolink.workflows.validation import hide_all_givers

_RANGE = (0.2, 10.0)  # of temperatures
_STEP = 4  # pixels between those that are looked at: scores are no finer


def fit_temperature(
    model: GeoLink, data: LabelledData, keys: Sequence[str], device: torch.device
) -> float:
    """The temperature with the least cross-entropy on labelled samples (Guo et al. 2017).

    Scores divided by it are calibrated where samples are as hard as these. Samples with objects
    that gave labels count twice, with these and without: a map is drawn where some zones are mapped
    and others are not.

    Args:
        model: in evaluation mode, on `device`; one that tells classes apart.
        data: labelled data.
        keys: samples that the model has not learned from.
        device: where the model is.

    Returns:
        Above 1 for a model that is too sure; 1 where nothing is labelled.
    """
    log_chances, labels = [np.empty((0, len(data.legend)), np.float32)], [np.empty(0, np.uint8)]
    for answer in _answers_of_both(model, data, keys, device):
        chance, label = _spread(answer.values), _spread(answer.sample.label[None])[:, 0]
        log_chances.append(np.log(np.maximum(chance[label != IGNORE], 1e-12)))
        labels.append(label[label != IGNORE])
    scores, truth = np.concatenate(log_chances), np.concatenate(labels)
    if not len(truth):
        return 1.0

    def cross_entropy(log_temperature: float) -> float:
        scaled = scores / np.float32(math.exp(log_temperature))
        peak = scaled.max(axis=1, keepdims=True)
        total = peak[:, 0] + np.log(np.exp(scaled - peak).sum(axis=1))
        return float((total - scaled[np.arange(len(truth)), truth]).mean())

    bounds = (math.log(_RANGE[0]), math.log(_RANGE[1]))
    return math.exp(minimize_scalar(cross_entropy, bounds=bounds, method="bounded").x)


def _answers_of_both(
    model: GeoLink, data: LabelledData, keys: Sequence[str], device: torch.device
) -> Iterator[Answer]:
    """Answers to all samples, then to those that change without the objects that gave labels."""
    mapped = []
    for answer in answers(model, data, keys, device=device):
        yield answer
        if any(mask.any() for mask in answer.sample.givers.values()):
            mapped.append(answer.key)
    yield from answers(model, data, mapped, device=device, change=hide_all_givers)


def _spread(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """(C, H, W) or (C,) values to (n, C), of every fourth pixel along both axes."""
    thinned = values[:, ::_STEP, ::_STEP] if values.ndim == 3 else values
    return thinned.reshape(len(values), -1).T
