import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import CRS
from scipy import ndimage

from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE
from geolink.sieve import RegionGraph, merge_small, sieved_blocks

Classes = NDArray[np.uint8]


def sieved(classes: Classes, min_pixels: int, side: int = 1024) -> Classes:
    grid = GridSpec(CRS.from_epsg(32635), 0.0, 0.0, 1.0, *classes.shape)

    def read(window: PixelWindow) -> Classes:
        return classes[window.slices]

    result = np.full_like(classes, 77)
    for window, block in sieved_blocks(read, grid, min_pixels=min_pixels, side=side):
        result[window.slices] = block
    return result


def region_sizes(classes: Classes) -> list[int]:
    sizes: list[int] = []
    for value in np.unique(classes[classes != IGNORE]):
        labels, _ = ndimage.label(classes == value)
        sizes += np.bincount(labels.ravel())[1:].tolist()
    return sizes


def noisy(seed: int, smooth: float, nodata: float) -> Classes:
    rng = np.random.default_rng(seed)
    scores = [ndimage.gaussian_filter(rng.random((120, 150)), smooth) for _ in range(5)]
    classes = np.argmax(scores, axis=0).astype(np.uint8)
    hidden = ndimage.gaussian_filter(rng.random(classes.shape), 3)
    classes[hidden < np.quantile(hidden, nodata)] = IGNORE
    return classes


@pytest.mark.parametrize(("seed", "smooth"), [(0, 0.0), (1, 1.0), (2, 3.0)])
def test_no_small_region_remains(seed: int, smooth: float) -> None:
    assert min(region_sizes(sieved(noisy(seed, smooth, 0.0), 40))) >= 40


@pytest.mark.parametrize("side", [7, 13, 64, 149])
@pytest.mark.parametrize(("smooth", "min_pixels"), [(0.0, 5), (1.0, 30), (2.0, 60)])
def test_the_block_size_changes_nothing(side: int, smooth: float, min_pixels: int) -> None:
    classes = noisy(3, smooth, 0.1)
    np.testing.assert_array_equal(sieved(classes, min_pixels, side), sieved(classes, min_pixels))


def test_no_data_stays_and_takes_nothing() -> None:
    classes = noisy(4, 1.0, 0.3)
    result = sieved(classes, 50)
    np.testing.assert_array_equal(result == IGNORE, classes == IGNORE)
    land, _ = ndimage.label(classes != IGNORE)
    whole = np.bincount(land.ravel())[1:]
    assert sum(size < 50 for size in region_sizes(result)) == (whole < 50).sum()


def test_large_regions_keep_their_class() -> None:
    classes = noisy(5, 3.0, 0.0)
    kept = np.zeros(classes.shape, bool)
    for value in np.unique(classes):
        labels, _ = ndimage.label(classes == value)
        kept |= (np.bincount(labels.ravel()) >= 40)[labels] & (classes == value)
    assert 0 < kept.mean() < 1
    np.testing.assert_array_equal(sieved(classes, 40)[kept], classes[kept])


def test_a_small_region_takes_the_class_most_around_it() -> None:
    classes = np.zeros((9, 9), np.uint8)
    classes[:, 5:] = 1
    classes[4, 3:5] = 2  # five edges to class 0, one to class 1
    expected = classes.copy()
    expected[4, 3:5] = 0
    np.testing.assert_array_equal(sieved(classes, 3), expected)


def test_diagonal_neighbours_are_two_regions() -> None:
    classes = np.zeros((6, 6), np.uint8)
    classes[2, 2] = classes[3, 3] = 1
    assert (sieved(classes, 2) == 0).all()


def test_small_regions_may_add_up_to_a_kept_one() -> None:
    classes = np.full((8, 8), IGNORE, np.uint8)
    classes[2:6, 2:4], classes[2:6, 4:6] = 1, 2
    result = sieved(classes, 10)
    assert set(result[2:6, 2:6].ravel()) == {1} or set(result[2:6, 2:6].ravel()) == {2}


def test_a_map_without_data() -> None:
    classes = np.full((5, 5), IGNORE, np.uint8)
    np.testing.assert_array_equal(sieved(classes, 10), classes)


def test_joining_makes_one_region_of_neighbours_of_the_class() -> None:
    graph = RegionGraph(
        classes=np.array([1, 0, 1, 2], np.uint8),
        sizes=np.array([50.0, 3.0, 60.0, 70.0]),
        pairs=np.array([[0, 1], [1, 2], [1, 3]]),
        borders=np.array([2.0, 2.0, 3.0]),
    )
    owner, classes = merge_small(graph, 10.0)
    assert owner[0] == owner[1] == owner[2] != owner[3]
    assert classes.tolist() == [1, 1, 1, 2]
    assert graph.classes.tolist() == [1, 0, 1, 2]
