import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.errors
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.shutil import copy as copy_raster
from rasterio.vrt import WarpedVRT

from geolink.errors import CoverageError, CRSError, InputError
from geolink.grid import WGS84, Bounds, GridSpec, PixelWindow, reproject, utm_crs
from geolink.sources.imagery import RasterImagery, open_imagery
from geolink.sources.warping import OpenFiles

UTM35 = CRS.from_epsg(32635)
WEST, NORTH = 385_000.0, 6_672_000.0
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
RGBA = (*RGB, ColorInterp.alpha)


def north_up(west: float, north: float, width: float, height: float) -> Affine:
    return Affine(width, 0, west, 0, -height, north)


def write_raster(
    path: Path,
    data: NDArray[np.generic],
    *,
    crs: str | None = "EPSG:32635",
    transform: Affine | None = None,
    colours: tuple[ColorInterp, ...] | None = None,
    tags: dict[str, str] | None = None,
    overviews: tuple[int, ...] = (),
    mask: NDArray[np.bool_] | None = None,
    **profile: object,
) -> Path:
    count, height, width = data.shape
    if transform is None:
        transform = north_up(WEST, NORTH, 1.0, 1.0)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            crs=crs,
            transform=transform,
            count=count,
            height=height,
            width=width,
            dtype=data.dtype,
            **profile,
        ) as dataset,
    ):
        dataset.write(data)
        if colours:
            dataset.colorinterp = colours
        if tags:
            dataset.update_tags(**tags)
        if mask is not None:
            dataset.write_mask(mask)
        if overviews:
            dataset.build_overviews(overviews, Resampling.average)
    return path


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 255, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    row, col = np.mgrid[:height, :width]
    return np.stack([row % 200 + 20, col % 200 + 20, (row + col) % 200 + 20]).astype(np.uint8)


def grid_at(
    *, row: float = 0, col: float = 0, height: int, width: int, gsd: float = 1.0
) -> GridSpec:
    return GridSpec(UTM35, WEST + col, NORTH - row, gsd, height, width)


def scene_of(imagery: RasterImagery, *, gsd: float, side: int, zone_shift: int = 0) -> GridSpec:
    centre = imagery.footprint.centroid
    code = utm_crs(centre.x, centre.y).to_epsg()
    assert code is not None
    crs = CRS.from_epsg(code + zone_shift)
    middle = shapely.get_coordinates(reproject(centre, WGS84, crs))[0]
    half = side * gsd / 2
    bounds = Bounds(*(middle - half), *(middle + half))
    return GridSpec.from_bounds(crs, bounds, gsd)


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


# Bands, values and validity


def test_colours_follow_the_interpretation(tmp_path: Path) -> None:
    data = noise(4, 20, 20)
    order = (ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    imagery = open_imagery(write_raster(tmp_path / "a.tif", data, colours=order))
    np.testing.assert_array_equal(imagery.read(grid_at(height=20, width=20)).rgb, data[[3, 2, 1]])


def test_bands_can_be_chosen(tmp_path: Path) -> None:
    data = noise(5, 20, 20)
    path = write_raster(tmp_path / "a.tif", data)
    tile = open_imagery(path, bands=(5, 1, 3)).read(grid_at(height=20, width=20))
    assert tile.valid.all()
    np.testing.assert_array_equal(tile.rgb, data[[4, 0, 2]])


def test_one_band_is_used_where_it_is_asked_for(tmp_path: Path) -> None:
    data = noise(1, 20, 20)
    path = write_raster(tmp_path / "a.tif", data)
    tile = open_imagery(path, bands=(1, 1, 1)).read(grid_at(height=20, width=20))
    np.testing.assert_array_equal(tile.rgb, data[[0, 0, 0]])


@pytest.mark.parametrize("bands", [(1, 2), (0, 1, 2), (1, 2, 4)])
def test_impossible_bands_are_refused(tmp_path: Path, bands: tuple[int, ...]) -> None:
    path = write_raster(tmp_path / "a.tif", noise(3, 20, 20))
    with pytest.raises(InputError, match=r"need three bands|a\.tif has the bands 1 to 3"):
        open_imagery(path, bands=bands)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "message"),
    [(1, "1 band.*1,1,1"), (2, "2 band.*1,1,1"), (5, "5 bands.*choose three")],
)
def test_rasters_that_are_not_rgb_are_refused(tmp_path: Path, count: int, message: str) -> None:
    path = write_raster(tmp_path / "grey.tif", noise(count, 20, 20), photometric="MINISBLACK")
    with pytest.raises(InputError, match=f"grey.tif has {message}"):
        open_imagery(path)


def test_colour_table_is_refused_with_its_remedy(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise(1, 20, 20), colours=(ColorInterp.palette,))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    with pytest.raises(InputError, match="-expand rgb"):
        open_imagery(path)


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


def test_complex_values_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((3, 20, 20), dtype=np.complex64))
    with pytest.raises(InputError, match="real type"):
        open_imagery(path)


# What is known of an image


def test_provenance_is_read_from_the_file(tmp_path: Path) -> None:
    tags = {"TIFFTAG_DATETIME": "2024:05:31 10:20:30", "TIFFTAG_COPYRIGHT": "(c) City"}
    info = open_imagery(write_raster(tmp_path / "a.tif", noise(3, 9, 9), tags=tags)).info
    assert (info.description, info.date, info.attribution) == ("a.tif", "2024-05-31", "(c) City")
    assert not info.simulated


def test_acquisition_date_goes_before_the_file_date(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif", noise(3, 9, 9), tags={"TIFFTAG_DATETIME": "2024:05:31 10:20:30"}
    )
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2023-04-01T09:30:00")
    assert open_imagery(path).info.date == "2023-04-01"


def test_senseless_date_is_left_out(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif", noise(3, 9, 9), tags={"TIFFTAG_DATETIME": "last summer"}
    )
    assert open_imagery(path).info.date is None


def test_real_images_know_their_resolution_and_place(shared_data: Path) -> None:
    banepa = open_imagery(shared_data / "imagery/banepa/mosaic_train_0.5m_utm45n.tif")
    assert banepa.native_gsd == 0.5
    assert banepa.crs == CRS.from_epsg(32645)
    assert banepa.footprint.contains(shapely.Point(85.521, 27.632))
    extent = reproject(banepa.footprint, WGS84, banepa.crs)
    assert extent.area == pytest.approx(826 * 1089 / 4, rel=1e-5)
    assert (
        open_imagery(shared_data / "imagery/virginia_sentinel2/s2_rgb_uint8.tif").native_gsd == 10
    )


def test_resolution_is_in_ground_metres(tmp_path: Path) -> None:
    mercator = write_raster(
        tmp_path / "a.tif",
        noise(3, 50, 50),
        crs="EPSG:3857",
        transform=north_up(2_776_000, 8_437_000, 1, 1),
    )
    assert open_imagery(mercator).native_gsd == pytest.approx(
        math.cos(math.radians(60.2)), rel=0.01
    )


def test_antimeridian(tmp_path: Path) -> None:
    data = noise(3, 100, 100)
    crossing = north_up(179.995, -16.5, 1e-4, 1e-4)
    imagery = open_imagery(
        write_raster(tmp_path / "a.tif", data, crs="EPSG:4326", transform=crossing)
    )
    west, _, east, _ = imagery.footprint.bounds
    assert (west, east) == (-180.0, 180.0)
    assert imagery.footprint.area == pytest.approx(1e-4, rel=1e-6)
    for lon, zone in ((179.997, 32760), (-179.997, 32701)):
        crs = CRS.from_epsg(zone)
        x, y = shapely.get_coordinates(reproject(shapely.Point(lon, -16.505), WGS84, crs))[0]
        tile = imagery.read(GridSpec.from_bounds(crs, Bounds(x, y, x + 100, y + 100), 5.0))
        assert tile.valid.all()


# Use by several workers


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


def test_tiles_do_not_share_memory(tmp_path: Path) -> None:
    imagery = open_imagery(write_raster(tmp_path / "a.tif", noise(3, 20, 20)))
    grid = grid_at(height=20, width=20)
    first = imagery.read(grid)
    kept = first.rgb.copy()
    first.rgb[:] = 0
    np.testing.assert_array_equal(imagery.read(grid).rgb, kept)


# What cannot be used


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tif does not exist"):
        open_imagery(tmp_path / "none.tif")


def test_file_that_is_no_raster(tmp_path: Path) -> None:
    path = tmp_path / "notes.tif"
    path.write_text("hello")
    with pytest.raises(InputError, match=r"notes\.tif is not a raster"):
        open_imagery(path)


def test_folder_without_rasters(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no raster"):
        open_imagery(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = write_raster(tmp_path / "cut.tif", noise(3, 600, 600), tiled=True, compress="deflate")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut\.tif"):
        open_imagery(path).read(grid_at(height=600, width=600))


def test_file_truncated_after_opening_is_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "cut.tif", noise(3, 600, 600), tiled=True, compress="deflate")
    imagery = open_imagery(path)
    path.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(InputError, match=r"cut\.tif cannot be read"):
        imagery.read(grid_at(height=600, width=600))


def test_raster_without_crs(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", noise(3, 20, 20), crs=None)
    with pytest.raises(CRSError, match=r"a\.tif has no coordinate reference system.*gdal_edit"):
        open_imagery(path)


def test_raster_without_position(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_raster(path, noise(3, 20, 20), transform=Affine.identity())
    with pytest.raises(CRSError, match="no position on the ground"):
        open_imagery(path)


def test_picture_without_any_georeference(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(path, "w", driver="PNG", count=3, height=9, width=9, dtype="uint8") as out,
    ):
        out.write(noise(3, 9, 9))
    with pytest.raises(CRSError, match="no coordinate reference system"):
        open_imagery(path)


def test_control_points_only(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    corners = [(0, 0), (0, 20), (20, 0), (20, 20)]
    points = [GroundControlPoint(r, c, WEST + c, NORTH - r) for r, c in corners]
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=20, width=20, dtype="uint8", gcps=points,
        crs="EPSG:32635",
    ) as out:  # fmt: skip
        out.write(noise(3, 20, 20))
    with pytest.raises(CRSError, match=r"control points.*gdalwarp"):
        open_imagery(path)


def test_local_crs(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif", noise(3, 20, 20), crs='LOCAL_CS["site",UNIT["metre",1]]'
    )
    with pytest.raises(CRSError, match="local system site"):
        open_imagery(path)


def test_position_off_the_earth(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif",
        noise(3, 20, 20),
        crs="EPSG:4326",
        transform=north_up(WEST, NORTH, 1, 1),
    )
    with pytest.raises(CRSError, match="no place on earth"):
        open_imagery(path)


def test_raster_around_a_pole(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "a.tif",
        noise(3, 20, 20),
        crs="EPSG:32661",
        transform=north_up(1_990_000, 2_010_000, 1000, 1000),
    )
    with pytest.raises(CoverageError, match="pole"):
        open_imagery(path)


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
