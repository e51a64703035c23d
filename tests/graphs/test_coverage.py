import numpy as np
import pytest
import shapely
from shapely import LineString, box

from geolink.graphs.coverage import line_shares, polygon_shares
from geolink.grid import Bounds

TILE = Bounds(100, 200, 140, 240)  # four cells of 10 metres per side


def shares(measure, *shapes):
    return measure(np.array(shapes, dtype=object), TILE, side=4).reshape(-1, 4, 4)


def test_a_polygon_counts_by_area():
    (found,) = shares(polygon_shares, box(105, 225, 120, 240))
    expected = np.zeros((4, 4))
    expected[:2, :2] = [[0.5, 1.0], [0.25, 0.5]]
    np.testing.assert_allclose(found, expected)


def test_a_line_counts_by_length():
    (found,) = shares(line_shares, LineString([(105, 235), (125, 235), (125, 225)]))
    expected = np.zeros((4, 4))
    expected[0] = [0.5, 1.0, 1.0, 0.0]
    expected[1, 2] = 0.5
    np.testing.assert_allclose(found, expected)


def test_an_object_inside_one_cell():
    (polygon,) = shares(polygon_shares, box(132, 202, 134, 207))
    (line,) = shares(line_shares, LineString([(101, 201), (105, 204)]))
    assert polygon[3, 3] == pytest.approx(0.1)
    assert polygon.sum() == pytest.approx(0.1)
    assert line[3, 0] == line.sum() == pytest.approx(0.5)


def test_a_line_along_a_border_lies_half_in_each_cell():
    inner, outer = shares(
        line_shares, LineString([(110, 205), (110, 225)]), LineString([(140, 240), (140, 200)])
    )
    np.testing.assert_allclose(inner[1:, :2], [[0.25] * 2, [0.5] * 2, [0.25] * 2])
    assert inner.sum() == pytest.approx(2)
    np.testing.assert_allclose(outer, [[0, 0, 0, 1]] * 4)


def test_cells_that_are_no_squares():
    tile = Bounds(0, 0, 8, 2)
    shapes = [LineString([(0, 1), (8, 1)]), LineString([(1, 0), (1, 2)])]
    found = line_shares(np.array(shapes), tile, side=2)  # cells of 4 x 1 metres
    np.testing.assert_allclose(found.sum(axis=1), [4, 1])
    found = polygon_shares(np.array([box(2, 0, 8, 1)]), tile, side=2)
    np.testing.assert_allclose(found, [[0, 0, 0.5, 1]])


def test_a_hole_is_not_covered():
    (found,) = shares(polygon_shares, box(*TILE).difference(box(110, 210, 130, 230)))
    assert not found[1:3, 1:3].any()
    assert found.sum() == pytest.approx(12)


def test_cells_outside_a_polygon_have_none_of_it():
    rng = np.random.default_rng(1)
    corners = rng.uniform((100, 200), (120, 220), (200, 8, 2))
    hulls = shapely.convex_hull(shapely.multipoints(corners))
    found = polygon_shares(hulls, TILE, side=4).reshape(-1, 4, 4)
    assert not found[:, :, 2:].any()
    assert not found[:, :2].any()
    assert (found >= 0).all()


@pytest.mark.parametrize("turn", [shapely.normalize, shapely.reverse, lambda shape: shape])
def test_the_direction_of_rings_does_not_matter(turn):
    ring = box(102, 203, 131, 238).difference(box(110, 210, 125, 230))
    np.testing.assert_array_equal(shares(polygon_shares, turn(ring)), shares(polygon_shares, ring))


def test_shares_add_up_and_equal_the_intersections():
    rng = np.random.default_rng(0)
    around = shapely.buffer(shapely.points(rng.uniform((110, 210), (130, 230), (30, 2))), 9)
    walks = np.array([LineString(rng.uniform((100, 200), (140, 240), (9, 2))) for _ in range(30)])
    cells = [
        box(100 + 10 * c, 230 - 10 * r, 110 + 10 * c, 240 - 10 * r)
        for r in range(4)
        for c in range(4)
    ]
    for shapes, measure, size, unit in (
        (around, polygon_shares, shapely.area, 100),
        (walks, line_shares, shapely.length, 10),
    ):
        found = measure(shapes, TILE, side=4)
        parts = shapely.intersection(shapes[:, None], np.array(cells)[None])
        np.testing.assert_allclose(found, size(parts) / unit, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), size(shapes) / unit, rtol=1e-5)


@pytest.mark.parametrize("measure", [line_shares, polygon_shares])
def test_no_geometries(measure):
    assert shares(measure).shape == (0, 4, 4)
