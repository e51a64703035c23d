import math

import numpy as np
import pytest

from geolink.legend import IGNORE
from geolink.metrics.boundaries import BoundaryMatches, edge_pixels
from geolink.metrics.tally import total


def halves(split, side=40):
    """Class 0 left of column `split`, class 1 from there on."""
    return np.where(np.arange(side) < split, 0, 1).astype(np.uint8)[None].repeat(side, axis=0)


def matches(reference, predicted, distances_m, gsd=1.0):
    blocks = np.zeros(reference.shape, int)
    return BoundaryMatches.by_block(
        reference, predicted, blocks, classes=2, count=1, gsd=gsd, distances_m=distances_m
    )[0]


def test_edges_are_pixels_beside_another_class():
    found = edge_pixels(halves(3, side=6))
    assert np.flatnonzero(found.any(axis=0)).tolist() == [2, 3]


def test_what_has_no_class_has_no_edge():
    class_map = halves(3, side=6)
    class_map[:, 3] = IGNORE
    assert not edge_pixels(class_map).any()


@pytest.mark.parametrize(
    ("gsd", "distances_m", "expected"),
    [(1.0, (3.9, 4.0, 9.0), [0, 1, 1]), (2.5, (4.0, 9.9, 10.0), [0, 0, 1])],
)
def test_an_outline_four_pixels_off_is_right_from_that_distance_on(gsd, distances_m, expected):
    found = matches(halves(20), halves(24), distances_m, gsd)
    assert found.mean_f1 == expected


def test_the_same_map_is_perfect():
    found = matches(halves(20), halves(20), (0.0,))
    np.testing.assert_array_equal(found.f1, [[1.0, 1.0]])


def test_a_map_of_one_class_finds_nothing():
    found = matches(halves(20), np.zeros((40, 40), np.uint8), (3.0,))
    assert found.mean_f1 == [0.0]
    assert math.isnan(matches(*2 * [np.zeros((40, 40), np.uint8)], (3.0,)).mean_f1[0])


def test_figures_follow_from_precision_and_recall():
    reference = halves(20)
    predicted = halves(20)
    predicted[:, 32:] = 0  # an outline too many, far away
    found = matches(reference, predicted, (2.0,))
    np.testing.assert_allclose(found.f1, [[2 / 3, 2 / 3]])


def test_no_boundary_along_the_unknown():
    reference, predicted = halves(20), halves(20)
    predicted[:10, 5:9] = 1  # wrong, but where nobody knows
    reference[:12, :12] = IGNORE
    np.testing.assert_array_equal(matches(reference, predicted, (0.0,)).f1, [[1.0, 1.0]])


def test_distances_reach_across_blocks():
    reference, predicted = halves(20), halves(22)
    blocks = (np.arange(40) >= 21).astype(int)[None].repeat(40, axis=0)
    options = {"classes": 2, "gsd": 1.0, "distances_m": (2.0,)}
    parts = BoundaryMatches.by_block(reference, predicted, blocks, count=2, **options)
    whole = BoundaryMatches.by_block(reference, predicted, blocks * 0, count=1, **options)[0]
    np.testing.assert_array_equal(total(parts).f1, whole.f1)
    assert whole.mean_f1 == [1.0]
