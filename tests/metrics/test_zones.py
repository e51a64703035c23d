import math

import numpy as np

from geolink.legend import IGNORE
from geolink.metrics.tally import total
from geolink.metrics.zones import (
    NO_ZONE,
    ZoneHits,
    connected_zones,
    zone_blocks,
    zone_means,
)

# Two zones of class 0 (one of 2 pixels), one of class 1, one of class 2.
REFERENCE = np.array(
    [
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [2, 2, 2, 255, 0],
        [2, 2, 2, 255, 0],
    ],
    np.uint8,
)
PREDICTED = np.array(
    [
        [0, 0, 1, 2, 2],
        [0, 1, 1, 2, 2],
        [2, 2, 2, 1, 0],
        [2, 2, 2, 1, 255],
    ],
    np.uint8,
)


def hits(reference=REFERENCE, predicted=PREDICTED, min_pixels=1):
    zones = connected_zones(reference, min_pixels=min_pixels)
    blocks = np.zeros(reference.shape, int)
    return ZoneHits.by_block(zones, reference, predicted, blocks, classes=3, count=1)[0]


def test_zones_are_connected_areas_of_one_class():
    zones = connected_zones(REFERENCE)
    assert len(np.unique(zones[zones != NO_ZONE])) == 4
    assert (zones[REFERENCE == IGNORE] == NO_ZONE).all()
    for zone in range(4):
        assert len(np.unique(REFERENCE[zones == zone])) == 1


def test_corners_do_not_connect():
    assert connected_zones(np.array([[0, 1], [1, 0]], np.uint8)).max() == 3


def test_small_areas_are_no_zones():
    zones = connected_zones(REFERENCE, min_pixels=3)
    assert zones.max() == 2
    assert (zones[2:, 4] == NO_ZONE).all()


def test_hits_counted_by_hand():
    found = hits()
    assert found.zones.tolist() == [2, 1, 1]
    assert found.right.tolist() == [2, 0, 1]  # class 1: four of six pixels are mapped as 2
    assert found.share_right == 3 / 4
    assert found.area_share_right == (4 + 1 + 6) / (4 + 1 + 6 + 6)
    np.testing.assert_array_equal(found.class_share_right, [1, 0, 1])


def test_a_zone_that_is_not_mapped_is_not_counted():
    predicted = PREDICTED.copy()
    predicted[2:, 4] = IGNORE
    assert hits(predicted=predicted).zones.tolist() == [1, 1, 1]


def test_nothing_known_gives_nan():
    nothing = np.full((3, 3), IGNORE, np.uint8)
    found = hits(nothing, nothing)
    assert math.isnan(found.share_right)
    assert math.isnan(found.area_share_right)


def test_a_zone_belongs_to_the_block_of_its_middle():
    zones = connected_zones(REFERENCE)
    blocks = (np.arange(5) >= 2).astype(int)[None].repeat(4, axis=0)
    parts = ZoneHits.by_block(zones, REFERENCE, PREDICTED, blocks, classes=3, count=2)
    assert [part.zones.sum() for part in parts] == [2, 2]
    np.testing.assert_array_equal(total(parts).right, hits().right)
    assert sorted(zone_blocks(zones, blocks).tolist()) == [0, 0, 1, 1]


def test_means_over_zones():
    zones = connected_zones(REFERENCE)
    values = np.arange(20.0).reshape(4, 5)
    means, sizes = zone_means(zones, values, values < 12)
    first = zones[0, 0]
    assert means[first] == np.mean([0, 1, 5, 6])
    last = zones[3, 4]
    assert sizes[last] == 0
    assert math.isnan(means[last])
