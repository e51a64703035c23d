import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import rasterize, shapes
from rasterio.transform import IDENTITY
from scipy import ndimage
from shapely import LineString, Polygon

from geolink.arcs import MAX_TOLERANCE_PX
from geolink.grid import GridSpec
from geolink.legend import IGNORE
from geolink.outlines import region_outlines

Classes = NDArray[np.uint8]


def outlined(
    classes: Classes, side: int = 1000, tolerance_px: float = 0.0
) -> tuple[NDArray[np.object_], Classes]:
    """Polygons and classes of all regions, in the order of their outlines."""
    grid = GridSpec(CRS.from_epsg(32635), 0.0, 0.0, 1.0, *classes.shape)
    blocks = ((window, classes[window.slices]) for window in grid.blocks(side))
    found = list(region_outlines(blocks, classes.shape, tolerance_px=tolerance_px))
    polygons = shapely.normalize(np.concatenate([polygons for polygons, _ in found]))
    order = np.argsort(shapely.to_wkb(polygons, hex=True))
    return polygons[order], np.concatenate([values for _, values in found])[order]


def noisy(seed: int, smooth: float, count: int, nodata: float = 0.0) -> Classes:
    rng = np.random.default_rng(seed)
    scores = [ndimage.gaussian_filter(rng.random((28, 36)), smooth) for _ in range(count)]
    classes = np.argmax(scores, axis=0).astype(np.uint8)
    hidden = ndimage.gaussian_filter(rng.random(classes.shape), 3)
    classes[hidden < np.quantile(hidden, nodata)] = IGNORE
    return classes


MAPS = {
    "two classes of noise": noisy(0, 0.0, 2),
    "five classes of noise": noisy(1, 0.0, 5, 0.2),
    "smooth": noisy(2, 2.5, 9),
    "smooth with gaps": noisy(3, 2.5, 9, 0.3),
    "one class": np.zeros((9, 20), np.uint8),
    "no data": np.full((9, 20), IGNORE, np.uint8),
    "a board": (np.indices((12, 13)).sum(axis=0) % 2).astype(np.uint8),
    "stripes": np.repeat(np.arange(10, dtype=np.uint8)[:, None] % 3, 15, axis=1),
    "one pixel": np.array([[4]], np.uint8),
}


@pytest.fixture(params=MAPS, scope="module")
def classes(request: pytest.FixtureRequest) -> Classes:
    return MAPS[request.param]


def test_outlines_are_those_of_the_regions(classes: Classes) -> None:
    polygons, values = outlined(classes)
    expected = [
        (Polygon(shape["coordinates"][0], shape["coordinates"][1:]), int(value))
        for shape, value in shapes(classes, connectivity=4, transform=IDENTITY)
        if value != IGNORE
    ]
    assert len(polygons) == len(expected)
    assert shapely.is_valid(polygons).all()
    # A corner more, where three regions meet on a straight side, is all that may differ.
    thin = shapely.normalize(shapely.simplify(polygons, 0.0))
    both = shapely.normalize([shapely.simplify(polygon, 0.0) for polygon, _ in expected])
    assert sorted(shapely.to_wkb(thin)) == sorted(shapely.to_wkb(both))
    if len(polygons):
        drawn = rasterize(
            zip(polygons, values.tolist(), strict=True), classes.shape, fill=IGNORE, dtype="uint8"
        )
        np.testing.assert_array_equal(drawn, classes)


@pytest.mark.parametrize("tolerance_px", [0.6, 5.0])
def test_simplified_outlines_are_valid_and_share_their_borders(
    classes: Classes, tolerance_px: float
) -> None:
    polygons, _ = outlined(classes, tolerance_px=tolerance_px)
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 0).all()
    assert not len(polygons) or shapely.coverage_is_valid(polygons)
    if IGNORE not in classes:
        assert shapely.area(polygons).sum() == classes.size


@pytest.mark.parametrize("side", [5, 16])
@pytest.mark.parametrize("tolerance_px", [0.0, MAX_TOLERANCE_PX])
def test_the_blocks_change_nothing(classes: Classes, side: int, tolerance_px: float) -> None:
    one, other = (outlined(classes, s, tolerance_px) for s in (1000, side))
    assert shapely.to_wkb(one[0]).tolist() == shapely.to_wkb(other[0]).tolist()
    np.testing.assert_array_equal(one[1], other[1])


def test_no_outline_leaves_the_pixel_edges_by_a_pixel() -> None:
    classes = MAPS["smooth"]
    exact, simple = (
        shapely.union_all(shapely.boundary(outlined(classes, tolerance_px=t)[0])) for t in (0, 9)
    )
    assert shapely.hausdorff_distance(simple, exact) <= MAX_TOLERANCE_PX
    assert shapely.get_num_coordinates(simple) < 0.7 * shapely.get_num_coordinates(exact)


def test_a_slanted_border_becomes_straight() -> None:
    rows, cols = np.indices((40, 40))
    polygons, _ = outlined((cols > rows).astype(np.uint8), tolerance_px=MAX_TOLERANCE_PX)
    shared = shapely.line_merge(polygons[0].intersection(polygons[1]))
    assert isinstance(shared, LineString)
    assert shapely.get_num_coordinates(shared) <= 4


def test_a_ring_around_a_ring() -> None:
    rows, cols = np.indices((31, 31))
    distance = np.maximum(abs(rows - 15), abs(cols - 15))
    polygons, values = outlined((distance // 4).astype(np.uint8), 8, 0.9)
    holes = dict(zip(values.tolist(), shapely.get_num_interior_rings(polygons), strict=True))
    assert holes == {0: 0, 1: 1, 2: 1, 3: 1}


def test_thin_zones_keep_an_area() -> None:
    classes = np.zeros((20, 60), np.uint8)
    classes[10, 3:50] = 1
    classes[5:15, 55] = 2
    polygons, values = outlined(classes, tolerance_px=MAX_TOLERANCE_PX)
    assert sorted(values.tolist()) == [0, 1, 2]
    assert shapely.area(polygons).min() > 0
