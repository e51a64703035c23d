import numpy as np
import pytest

from geolink.legend import IGNORE, UFZ
from geolink.metrics.segmentation import tally_map
from geolink.metrics.tally import total


def mosaic(side, cell, seed):
    """(side, side) squares of random classes."""
    cells = np.random.default_rng(seed).integers(0, 9, (side // cell, side // cell))
    return cells.repeat(cell, 0).repeat(cell, 1).astype(np.uint8)


REFERENCE = mosaic(120, 30, 0)
REFERENCE[:7] = IGNORE
PREDICTED = np.where(mosaic(120, 10, 1) < 6, np.roll(REFERENCE, 2, axis=1), 3).astype(np.uint8)
PREDICTED[-5:] = IGNORE
CONFIDENCE = np.random.default_rng(2).uniform(0.2, 1, (120, 120)).astype(np.float16)
BLOCKS = (np.indices((120, 120)) // 40 * [[[3]], [[1]]]).sum(axis=0)
ONE = np.zeros_like(BLOCKS)


def measure(reference=REFERENCE, predicted=PREDICTED, blocks=BLOCKS, count=9, **options):
    common = {"classes": 9, "count": count, "gsd": 1.0, **options}
    return total(tally_map(reference, predicted, CONFIDENCE, blocks, **common))


def test_blocks_make_up_the_whole():
    parts, whole = measure(), measure(blocks=ONE, count=1)
    np.testing.assert_equal(parts.figures(UFZ), pytest.approx(whole.figures(UFZ), nan_ok=True))


def test_a_perfect_map():
    figures = measure(REFERENCE, REFERENCE).figures(UFZ)
    for name in ("miou", "mean_f1", "accuracy", "kappa", "boundary_f1_3m", "zones_right"):
        assert figures[name] == 1.0, name
    assert figures["misallocated_area"] == 0.0
    assert figures["ece"] == pytest.approx(1 - CONFIDENCE[REFERENCE != IGNORE].mean(), abs=1e-3)


def test_every_class_has_its_figures():
    figures = measure().figures(UFZ)
    for name in UFZ.names:
        assert {f"iou.{name}", f"f1.{name}", f"area_error.{name}", f"zones_right.{name}"} < set(
            figures
        )


def test_area_errors_are_shares_of_the_reference():
    reference = np.full((10, 10), 4, np.uint8)
    predicted = reference.copy()
    predicted[:2] = 5
    blocks, confidence = np.zeros((10, 10), int), np.ones((10, 10))
    tally = tally_map(reference, predicted, confidence, blocks, classes=9, count=1, gsd=1.0)[0]
    figures = tally.figures(UFZ)
    assert figures["area_error.residential"] == pytest.approx(-0.2)
    assert np.isnan(figures["area_error.commercial"])
    assert figures["misallocated_area"] == pytest.approx(0.2)


def test_given_zones_take_the_place_of_connected_ones():
    zones = np.where(REFERENCE == IGNORE, -1, 0).astype(np.int32)
    reference = np.where(REFERENCE == IGNORE, IGNORE, 4).astype(np.uint8)
    found = measure(reference, reference, zones=zones)
    assert found.zones.zones.sum() == 1


def test_zones_smaller_than_asked_do_not_count():
    few = measure(min_zone_area_m2=1000.0).zones.zones.sum()
    assert few < measure(min_zone_area_m2=1.0).zones.zones.sum()
