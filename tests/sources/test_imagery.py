import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.errors
import shapely
from affine import Affine
from rasterio.shutil import copy as copy_raster
from rasters import NORTH, RGBA, UTM35, WEST, grid_at, noise, north_up, write_raster

from geolink.errors import CoverageError, InputError
from geolink.grid import WGS84, Bounds, GridSpec, reproject
from geolink.sources.imagery import open_imagery

# What is read


def test_pixels_of_the_native_grid_are_those_of_the_file(tmp_path: Path) -> None:
    data = noise(3, 40, 50)
    imagery = open_imagery(write_raster(tmp_path / "a.tif", data))
    tile = imagery.read(grid_at(height=40, width=50))
    assert tile.rgb.dtype == np.uint8
    assert tile.valid.all()
    np.testing.assert_array_equal(tile.rgb, data)


def test_parts_outside_are_invalid_and_black(tmp_path: Path) -> None:
    data = noise(3, 40, 50)
    imagery = open_imagery(write_raster(tmp_path / "small.tif", data))
    tile = imagery.read(grid_at(row=-100, col=-90, height=224, width=224))
    expected = np.zeros((224, 224), dtype=bool)
    expected[100:140, 90:140] = True
    np.testing.assert_array_equal(tile.valid, expected)
    np.testing.assert_array_equal(tile.rgb[:, 100:140, 90:140], data)
    assert not tile.rgb[:, ~expected].any()


def test_a_grid_far_away_is_all_invalid(tmp_path: Path) -> None:
    imagery = open_imagery(write_raster(tmp_path / "a.tif", noise(3, 40, 50)))
    tile = imagery.read(grid_at(row=90_000, height=30, width=20))
    assert tile.valid.shape == (30, 20)
    assert not tile.valid.any()


def test_rotated_raster(tmp_path: Path) -> None:
    data = np.full((3, 100, 100), 90, dtype=np.uint8)
    cos, sin = 2 * math.cos(math.radians(30)), 2 * math.sin(math.radians(30))
    turned = Affine(cos, sin, WEST, sin, -cos, NORTH)
    imagery = open_imagery(write_raster(tmp_path / "turned.tif", data, transform=turned))
    assert imagery.native_gsd == pytest.approx(2.0, rel=1e-3)
    extent = reproject(imagery.footprint, WGS84, UTM35)
    assert extent.area == pytest.approx(40_000, rel=1e-4)
    box_area = shapely.box(*extent.bounds).area
    assert extent.area < 0.6 * box_area
    tile = imagery.read(GridSpec.from_bounds(UTM35, Bounds(*extent.bounds), 2.0))
    assert tile.valid.mean() == pytest.approx(extent.area / box_area, abs=0.02)
    assert (tile.rgb[:, tile.valid] == 90).all()


def test_south_up_raster(tmp_path: Path) -> None:
    data = noise(3, 30, 30)
    upwards = Affine(1, 0, WEST, 0, 1, NORTH - 30)
    imagery = open_imagery(write_raster(tmp_path / "up.tif", data[:, ::-1], transform=upwards))
    tile = imagery.read(grid_at(height=30, width=30))
    assert tile.valid.all()
    np.testing.assert_array_equal(tile.rgb, data)


def test_vrt(tmp_path: Path) -> None:
    data = noise(3, 30, 30)
    copy_raster(write_raster(tmp_path / "a.tif", data), tmp_path / "a.vrt", driver="VRT")
    tile = open_imagery(tmp_path / "a.vrt").read(grid_at(height=30, width=30))
    np.testing.assert_array_equal(tile.rgb, data)


def test_folder_takes_the_first_valid_pixel_by_name(tmp_path: Path) -> None:
    left, right = (np.full((3, 40, 40), value, dtype=np.uint8) for value in (50, 100))
    left[:, :, 35:] = 0
    write_raster(tmp_path / "a.tif", left, nodata=0)
    write_raster(tmp_path / "b.tif", right, transform=north_up(WEST + 30, NORTH, 1, 1))
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset/>")
    (tmp_path / "readme.txt").write_text("not a raster")
    imagery = open_imagery(tmp_path)
    tile = imagery.read(grid_at(height=40, width=70))
    assert tile.valid.all()
    expected = np.where(np.arange(70) < 35, 50, 100)
    np.testing.assert_array_equal(tile.rgb, np.broadcast_to(expected, (3, 40, 70)))
    assert imagery.info.description == tmp_path.name


def test_folder_of_several_crs(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.full((3, 50, 50), 50, dtype=np.uint8))
    corner = reproject(shapely.Point(WEST + 50, NORTH), UTM35, WGS84)
    lonlat = north_up(*shapely.get_coordinates(corner)[0], 2e-5, 1e-5)
    data = np.full((3, 50, 50), 100, dtype=np.uint8)
    write_raster(tmp_path / "b.tif", data, crs="EPSG:4326", transform=lonlat)
    imagery = open_imagery(tmp_path)
    tile = imagery.read(grid_at(row=5, height=40, width=90))
    assert tile.valid.mean() > 0.95
    assert set(np.unique(tile.rgb[:, tile.valid])) == {50, 100}
    assert imagery.crs == UTM35
    assert imagery.footprint.geom_type == "Polygon"


# Values and validity


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_alpha_nodata_and_masks_are_the_validity(tmp_path: Path, dtype: str) -> None:
    data = noise(3, 20, 20).astype(dtype)
    expected = np.ones((20, 20), dtype=bool)
    expected[:, :7] = False
    holed = np.where(expected, data, 0).astype(dtype)
    alpha = expected * (1.0 if dtype.startswith("float") else np.iinfo(dtype).max)
    rgba = np.concatenate([data, alpha[None].astype(dtype)])
    paths = [
        write_raster(tmp_path / "nodata.tif", holed, nodata=0),
        write_raster(tmp_path / "mask.tif", data, mask=expected),
        write_raster(tmp_path / "alpha.tif", rgba, colours=RGBA),
    ]
    for path in paths:
        tile = open_imagery(path, scale=(0, 255)).read(grid_at(height=20, width=20))
        np.testing.assert_array_equal(tile.valid, expected, err_msg=path.name)
        np.testing.assert_array_equal(tile.rgb[:, expected], data[:, expected].astype(np.uint8))
        assert not tile.rgb[:, ~expected].any()


def test_a_mask_holds_at_an_overview(tmp_path: Path) -> None:
    mask = np.ones((256, 256), dtype=bool)
    mask[:, :128] = False
    path = write_raster(tmp_path / "a.tif", noise(3, 256, 256), mask=mask, overviews=(2, 4))
    tile = open_imagery(path).read(grid_at(height=64, width=64, gsd=4.0))
    np.testing.assert_array_equal(tile.valid, np.broadcast_to(np.arange(64) >= 32, (64, 64)))


@pytest.mark.parametrize("nodata", [None, -9999.0])
def test_nan_is_invalid(tmp_path: Path, nodata: float | None) -> None:
    data = noise(3, 40, 40).astype(np.float32)
    data[:, 10:20, 10:20] = np.nan
    data[1, 30, 30] = np.nan
    imagery = open_imagery(write_raster(tmp_path / "a.tif", data, nodata=nodata), scale=(0, 255))
    tile = imagery.read(grid_at(height=40, width=40))
    np.testing.assert_array_equal(tile.valid, np.isfinite(data).all(axis=0))
    assert not tile.rgb[:, ~tile.valid].any()
    finer = imagery.read(grid_at(height=80, width=80, gsd=0.5))
    assert not finer.valid[22:38, 22:38].any()
    assert finer.valid[42:58, 42:58].all()


@pytest.mark.parametrize(("dtype", "top"), [("uint16", 10_000), ("float32", 1.0), ("int16", 3000)])
def test_values_are_scaled_by_the_scene_not_by_the_tile(
    tmp_path: Path, dtype: str, top: float
) -> None:
    ramp = np.linspace(0, top, 300 * 300).reshape(300, 300)
    data = np.stack([ramp, ramp, ramp]).astype(dtype)
    imagery = open_imagery(write_raster(tmp_path / "a.tif", data))
    assert imagery.scale == pytest.approx((0.02 * top, 0.98 * top), rel=0.01)
    tile = imagery.read(grid_at(row=100, col=100, height=100, width=100))
    expected = np.clip((data[:, 100:200, 100:200] / top - 0.02) / 0.96, 0, 1) * 255
    assert np.abs(tile.rgb - expected).max() <= 1.5
    assert tile.rgb.max() - tile.rgb.min() < 100


def test_scale_can_be_given(tmp_path: Path) -> None:
    data = np.full((3, 20, 20), 1500, dtype=np.uint16)
    data[:, :10] = 9000
    path = write_raster(tmp_path / "a.tif", data)
    tile = open_imagery(path, scale=(0, 3000)).read(grid_at(height=20, width=20))
    assert set(np.unique(tile.rgb)) == {128, 255}


@pytest.mark.parametrize("scale", [(1.0, 1.0), (2.0, 1.0), (0.0, math.nan)])
def test_impossible_scales_are_refused(tmp_path: Path, scale: tuple[float, float]) -> None:
    path = write_raster(tmp_path / "a.tif", noise(3, 20, 20))
    with pytest.raises(InputError, match="growing"):
        open_imagery(path, scale=scale)


def test_constant_image_has_a_scale(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.full((3, 20, 20), 700, dtype=np.uint16))
    assert open_imagery(path).scale == (700.0, 701.0)


def test_scale_of_a_raster_too_large_to_read_whole(tmp_path: Path) -> None:
    ramp = np.linspace(0, 20_000, 2100).astype(np.uint16)
    data = np.broadcast_to(ramp, (3, 2100, 2100))
    imagery = open_imagery(write_raster(tmp_path / "a.tif", data, tiled=True))
    assert imagery.scale == pytest.approx((400, 19_600), abs=400)


def test_folder_of_mixed_types_is_refused(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", noise(3, 20, 20))
    write_raster(tmp_path / "b.tif", noise(3, 20, 20).astype(np.uint16))
    with pytest.raises(InputError, match="uint16, uint8"):
        open_imagery(tmp_path)


# Sharing, and what cannot be used


def test_tiles_do_not_share_memory(tmp_path: Path) -> None:
    imagery = open_imagery(write_raster(tmp_path / "a.tif", noise(3, 20, 20)))
    grid = grid_at(height=20, width=20)
    first = imagery.read(grid)
    kept = first.rgb.copy()
    first.rgb[:] = 0
    np.testing.assert_array_equal(imagery.read(grid).rgb, kept)


def test_folder_without_rasters(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no raster"):
        open_imagery(tmp_path)


def test_file_truncated_after_opening_is_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "cut.tif", noise(3, 600, 600), tiled=True, compress="deflate")
    imagery = open_imagery(path)
    path.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(InputError, match=r"cut\.tif cannot be read"):
        imagery.read(grid_at(height=600, width=600))


@pytest.mark.parametrize("kind", ["nodata", "nan", "alpha"])
def test_image_without_a_valid_pixel(tmp_path: Path, kind: str) -> None:
    if kind == "nodata":
        write_raster(tmp_path / "a.tif", np.zeros((3, 20, 20), dtype=np.uint8), nodata=0)
    elif kind == "nan":
        write_raster(tmp_path / "a.tif", np.full((3, 20, 20), np.nan, dtype=np.float32))
    else:
        data = np.concatenate([noise(3, 20, 20), np.zeros((1, 20, 20), dtype=np.uint8)])
        write_raster(tmp_path / "a.tif", data, colours=RGBA)
    with pytest.raises(CoverageError, match=r"no valid pixel was found in a\.tif"):
        open_imagery(tmp_path / "a.tif")


def test_huge_declared_size_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=300_000, width=300_000, dtype="uint8",
        crs="EPSG:32635", transform=north_up(WEST, NORTH, 1, 1), tiled=True,
        blockxsize=512, blockysize=512, sparse_ok=True, bigtiff=True,
    ) as out:  # fmt: skip
        out.write(noise(3, 512, 512), window=rasterio.windows.Window(0, 0, 512, 512))
    imagery = open_imagery(path)
    tile = imagery.read(grid_at(row=100, col=100, height=50, width=50))
    np.testing.assert_array_equal(tile.rgb, noise(3, 512, 512)[:, 100:150, 100:150])
