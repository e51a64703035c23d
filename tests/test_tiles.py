import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from shapely import Point, box

from geolink import tiles
from geolink.errors import ConfigError
from geolink.grid import GridSpec, PixelWindow
from geolink.tiles import TilePlan

UTM35 = CRS.from_epsg(32635)


def grid(height: int, width: int) -> GridSpec:
    return GridSpec(UTM35, 380_000.0, 6_680_000.0, 2.0, height, width)


sizes = st.integers(1, 700)


@given(sizes, sizes, st.integers(1, 64), st.data())
def test_tiles_cover_the_grid_without_a_needless_one(
    height: int, width: int, side: int, data: st.DataObject
) -> None:
    plan = TilePlan(grid(height, width), side, data.draw(st.integers(0, side // 2)))
    last = plan.window(len(plan) - 1)
    assert last.row_off + side >= height
    assert last.col_off + side >= width
    rows, cols = plan.shape
    assert rows == 1 or last.row_off - plan.step + side < height
    assert cols == 1 or last.col_off - plan.step + side < width


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200), st.integers(1, 200))
def test_tiles_meeting_equals_a_search(row: int, col: int, height: int, width: int) -> None:
    plan = TilePlan(grid(300, 260), 64, 20)
    window = PixelWindow(row, col, height, width)
    expected = [i for i, w in enumerate(plan.windows) if w.intersection(window)]
    assert list(plan.tiles_meeting(window)) == expected


def test_ids_count_row_by_row_and_neighbours_share_the_overlap() -> None:
    plan = TilePlan(grid(400, 600), 224, 56)
    assert plan.shape == (3, 4)
    assert plan.window(5) == PixelWindow(168, 168, 224, 224)
    assert plan.tile_grid(5).bounds.west == 380_000 + 168 * 2


def test_a_small_grid_has_one_tile_that_reaches_beyond_it() -> None:
    plan = TilePlan(grid(10, 10), 224, 56)
    assert list(plan.windows) == [PixelWindow(0, 0, 224, 224)]


def test_tiles_in_an_area_leaves_out_those_that_only_touch() -> None:
    plan = TilePlan(grid(448, 448), 224, 0)
    west, north = plan.grid.west, plan.grid.north
    assert plan.tiles_in(box(west, north - 448, west + 448, north)).tolist() == [0]
    assert plan.tiles_in(Point(west + 448, north - 448).buffer(3)).tolist() == [0, 1, 2, 3]


def test_tiles_in_an_area_do_not_depend_on_how_many_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = TilePlan(grid(700, 900), 64, 20)
    area = Point(plan.grid.west + 900, plan.grid.north - 700).buffer(300)
    expected = plan.tiles_in(area).tolist()
    assert 0 < len(expected) < len(plan)
    monkeypatch.setattr(tiles, "_AT_ONCE", 7)
    assert plan.tiles_in(area).tolist() == expected


def test_footprints_are_the_bounds_of_the_tile_grids() -> None:
    plan = TilePlan(grid(448, 700), 224, 56)
    ids = np.array([0, 3, 6])
    expected = [plan.tile_grid(int(i)).bounds for i in ids]
    assert [tuple(b.bounds) for b in plan.footprints(ids)] == [tuple(b) for b in expected]


@pytest.mark.parametrize(("side", "overlap"), [(0, 0), (224, 113), (224, -1)])
def test_contradictions_are_refused(side: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="tile"):
        TilePlan(grid(10, 10), side, overlap)


def test_there_is_no_tile_outside_the_plan() -> None:
    with pytest.raises(IndexError, match="tile 1 of 1"):
        TilePlan(grid(10, 10)).window(1)
