import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.errors
import shapely
from pyproj import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasters import grid_at, noise, smooth, write_raster

from geolink.grid import WGS84, Bounds, GridSpec, PixelWindow, reproject, utm_crs
from geolink.sources.imagery import RasterImagery, open_imagery
from geolink.sources.warping import OpenFiles


def scene_of(imagery: RasterImagery, *, gsd: float, side: int, zone_shift: int = 0) -> GridSpec:
    centre = imagery.footprint.centroid
    code = utm_crs(centre.x, centre.y).to_epsg()
    assert code is not None
    crs = CRS.from_epsg(code + zone_shift)
    middle = shapely.get_coordinates(reproject(centre, WGS84, crs))[0]
    half = side * gsd / 2
    bounds = Bounds(*(middle - half), *(middle + half))
    return GridSpec.from_bounds(crs, bounds, gsd)


@pytest.mark.parametrize(("factor", "zone_shift"), [(1.0, 0), (0.6, 1), (1.7, 1), (3.1, 1)])
@pytest.mark.parametrize(
    "name",
    ["banepa/mosaic_train_0.5m_utm45n.tif", "virginia_sentinel2/s2_rgb_uint8.tif"],
)
def test_shared_pixels_are_equal_in_every_tile(
    shared_data: Path, name: str, factor: float, zone_shift: int
) -> None:
    path = shared_data / "imagery" / name
    imagery = open_imagery(path)
    scene = scene_of(imagery, gsd=imagery.native_gsd * factor, side=500, zone_shift=zone_shift)
    whole = imagery.read(scene)
    assert whole.valid.mean() > 0.3
    for row, col in [(17, 133), (31, -60), (276, 301)]:
        window = PixelWindow(row, col, 224, 224)
        tile = open_imagery(path).read(scene.subgrid(window))
        shared = window.intersection(scene.window)
        assert shared is not None
        inner = (
            slice(shared.row_off - row, shared.row_off - row + shared.height),
            slice(shared.col_off - col, shared.col_off - col + shared.width),
        )
        np.testing.assert_array_equal(tile.rgb[:, *inner], whole.rgb[:, *shared.slices])
        np.testing.assert_array_equal(tile.valid[inner], whole.valid[shared.slices])


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_blocks_leave_no_seam(shared_data: Path, factor: float) -> None:
    path = shared_data / "imagery/banepa/mosaic_train_0.5m_utm45n.tif"
    imagery = open_imagery(path)
    scene = scene_of(imagery, gsd=imagery.native_gsd * factor, side=440, zone_shift=1)
    tile = imagery.read(scene)
    with (
        rasterio.open(path) as dataset,
        WarpedVRT(
            dataset,
            crs=scene.crs.to_wkt(),
            transform=scene.transform,
            height=scene.height,
            width=scene.width,
            resampling=Resampling.bilinear,
            tolerance=1e-6,
            XSCALE=min(1 / factor, 1),
            YSCALE=min(1 / factor, 1),
        ) as view,
    ):
        at_once = view.read()
    inside = tile.valid & at_once.any(axis=0)
    assert inside.sum() > 100_000
    difference = np.abs(tile.rgb.astype(int) - at_once)[:, inside]
    assert difference.max() <= 1


@pytest.mark.parametrize("overviews", [(), (2, 4)])
def test_reduction_averages_and_does_not_alias(tmp_path: Path, overviews: tuple[int, ...]) -> None:
    stripes = np.zeros((3, 640, 640), dtype=np.uint8)
    stripes[:, :, ::2] = 200
    imagery = open_imagery(write_raster(tmp_path / "a.tif", stripes, overviews=overviews))
    tile = imagery.read(grid_at(row=20, col=20, height=100, width=100, gsd=5.3))
    assert tile.valid.all()
    assert np.abs(tile.rgb.astype(int) - 100).max() < 100 / 5


def test_strong_reduction_is_the_mean(tmp_path: Path) -> None:
    data = noise(3, 64, 64)
    imagery = open_imagery(write_raster(tmp_path / "a.tif", data))
    tile = imagery.read(grid_at(height=16, width=16, gsd=4.0))
    mean = data.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4))
    assert np.abs(tile.rgb - mean).max() <= 0.51


def test_the_overview_next_finer_than_the_grid_is_read(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", smooth(640, 640), overviews=(2, 4))
    raster = open_imagery(path).rasters[0]
    assert raster.overviews == (2, 4)
    assert [raster.overview_for(gsd) for gsd in (0.5, 1.9, 1.999, 2.0, 3.9, 50.0)] == [
        (None, 1.0),
        (None, 1.0),
        (0, 2.0),
        (0, 2.0),
        (0, 2.0),
        (1, 4.0),
    ]


def test_threads_and_copies_read_the_same(shared_data: Path) -> None:
    imagery = open_imagery(shared_data / "imagery/banepa/mosaic_train_0.5m_utm45n.tif")
    scene = scene_of(imagery, gsd=0.7, side=400, zone_shift=1)
    grids = [
        scene.subgrid(PixelWindow(row, col, 96, 96)) for row in (0, 90, 200) for col in (0, 77)
    ]
    expected = [imagery.read(grid).rgb for grid in grids]
    copied = pickle.loads(pickle.dumps(imagery))
    assert copied.info == imagery.info
    assert copied.footprint.equals(imagery.footprint)
    with ThreadPoolExecutor(4) as pool:
        for actual, wanted in zip(pool.map(copied.read, grids * 4), expected * 4, strict=True):
            np.testing.assert_array_equal(actual.rgb, wanted)


def test_threads_and_forked_children_open_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_raster(tmp_path / "a.tif", noise(3, 20, 20)))
    files = OpenFiles()
    here = files.get(path, None)
    assert files.get(path, None) is here
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(files.get, path, None).result() is not here
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert files.get(path, None) is not here
