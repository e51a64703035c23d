"""The colours of the bundled legend stay apart, whatever cones the reader lacks."""

import json
from importlib.resources import files

import numpy as np
import pytest

from geolink.legend import UFZ, Legend

# CIE76 distance in Lab, in which about 2.3 is a just noticeable difference.
APART = 20.0

# How dichromats see, in linear RGB: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A
# physiologically-based model for simulation of color vision deficiency", 2009, severity 1.0.
VISION = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# sRGB to XYZ under D65 (IEC 61966-2-1).
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
)


def linear(legend):
    part = np.array([c.rgb for c in legend.classes]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    ratio = rgb @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def closest(colours):
    """Distance of the closest two, and which they are."""
    distance = np.linalg.norm(colours[:, None] - colours, axis=2)
    np.fill_diagonal(distance, np.inf)
    pair = np.unravel_index(distance.argmin(), distance.shape)
    return distance.min(), [UFZ.names[i] for i in pair]


def test_lab_is_that_of_the_standard():
    white, red = lab(np.array([[1.0, 1, 1], [1, 0, 0]]))
    np.testing.assert_allclose(white, [100, 0, 0], atol=1e-6)
    np.testing.assert_allclose(red, [53.24, 80.09, 67.20], atol=0.05)


@pytest.mark.parametrize("matrix", VISION.values(), ids=VISION)
def test_classes_stay_apart(matrix):
    seen = np.clip(linear(UFZ) @ np.transpose(matrix), 0, 1)
    distance, pair = closest(lab(seen))
    assert distance > APART, f"{' and '.join(pair)} look alike"


def test_the_bundled_model_has_these_colours():
    card = files("geolink").joinpath("assets/models/geolink-tiny/card.json").read_text()
    assert Legend.from_dict(json.loads(card)["legend"]) == UFZ
