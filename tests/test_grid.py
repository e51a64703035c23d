import numpy as np
import pytest
from pyproj import CRS
from shapely import box

from geolink.errors import CRSError, InputError
from geolink.grid import (
    WGS84,
    Bounds,
    GridSpec,
    PixelWindow,
    reproject,
    reproject_bounds,
    require_metric,
    utm_crs,
)

UTM35 = CRS.from_epsg(32635)


def test_from_bounds_covers_and_aligns_to_whole_multiples():
    grid = GridSpec.from_bounds(UTM35, Bounds(100.3, 200.1, 150.2, 240.9), 2.0)
    assert grid.bounds == Bounds(100.0, 200.0, 152.0, 242.0)
    assert grid.shape == (21, 26)


def test_from_bounds_of_an_aligned_rectangle_adds_nothing():
    bounds = Bounds(385000.0, 6671000.0, 385100.0, 6671050.0)
    assert GridSpec.from_bounds(UTM35, bounds, 0.1).shape == (500, 1000)


def test_pixels_of_one_place_do_not_depend_on_the_area_asked_for():
    small = GridSpec.from_bounds(UTM35, Bounds(103.0, 200.0, 110.0, 220.0), 3.0)
    large = GridSpec.from_bounds(UTM35, Bounds(0.0, 0.0, 1000.0, 1000.0), 3.0)
    assert (small.west - large.west) % 3.0 == 0
    assert (small.north - large.north) % 3.0 == 0


def test_pixel_to_world_to_pixel():
    grid = GridSpec(UTM35, 385000.0, 6671000.0, 0.5, 40, 60)
    x, y = grid.transform @ (12, 7)
    assert (x, y) == (385006.0, 6670996.5)
    assert ~grid.transform @ (x, y) == pytest.approx((12, 7))


def test_subgrid_may_reach_beyond_the_grid():
    grid = GridSpec(UTM35, 0.0, 100.0, 1.0, 50, 50)
    sub = grid.subgrid(PixelWindow(40, -10, 20, 20))
    assert sub.bounds == Bounds(-10.0, 40.0, 10.0, 60.0)


def test_blocks_tile_the_grid_once():
    grid = GridSpec(UTM35, 0.0, 0.0, 1.0, 50, 70)
    seen = np.zeros(grid.shape, dtype=int)
    for window in grid.blocks(32):
        seen[window.slices] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("a", "b", "shared"),
    [
        (PixelWindow(0, 0, 4, 4), PixelWindow(2, 3, 4, 4), PixelWindow(2, 3, 2, 1)),
        (PixelWindow(0, 0, 4, 4), PixelWindow(4, 0, 4, 4), None),
        (PixelWindow(-2, -2, 9, 9), PixelWindow(0, 0, 1, 1), PixelWindow(0, 0, 1, 1)),
    ],
)
def test_window_intersection(a, b, shared):
    assert a.intersection(b) == shared
    assert b.intersection(a) == shared


@pytest.mark.parametrize("bad", [{"height": 0}, {"width": -1}, {"gsd": 0.0}, {"gsd": np.nan}])
def test_a_grid_without_pixels_is_refused(bad):
    with pytest.raises(InputError):
        GridSpec(
            **({"crs": UTM35, "west": 0, "north": 0, "gsd": 1.0, "height": 1, "width": 1} | bad)
        )


@pytest.mark.parametrize(
    ("lon", "lat", "epsg"),
    [
        (24.94, 60.17, 32635),
        (103.85, 1.29, 32648),
        (-76.6, 39.3, 32618),
        (151.2, -33.9, 32756),
        (-180.0, 10.0, 32601),
        (180.0, 10.0, 32601),
        (10.0, 85.0, 32661),
        (10.0, -81.0, 32761),
    ],
)
def test_utm_zone(lon, lat, epsg):
    assert utm_crs(lon, lat) == CRS.from_epsg(epsg)


@pytest.mark.parametrize(("crs", "reason"), [(None, "no coordinate"), (WGS84, "metres")])
def test_the_metric_gate(crs, reason):
    with pytest.raises(CRSError, match=reason):
        require_metric(crs)


def test_feet_are_not_metres():
    with pytest.raises(CRSError, match="metres"):
        require_metric(CRS.from_epsg(2263))  # New York Long Island, US survey feet


def test_reproject_goes_there_and_back():
    tile = box(24.93, 60.16, 24.95, 60.17)
    back = reproject(reproject(tile, WGS84, UTM35), UTM35, WGS84)
    assert back.equals_exact(tile, 1e-9)


def test_reprojected_bounds_contain_the_rectangle():
    bounds = Bounds(20.0, 60.0, 28.0, 61.0)
    metric = reproject(box(*bounds).segmentize(0.1), WGS84, UTM35)
    assert box(*reproject_bounds(bounds, WGS84, UTM35)).buffer(50).contains(metric)
