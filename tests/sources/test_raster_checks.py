import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.errors
import shapely
from affine import Affine
from pyproj import CRS
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasters import NORTH, WEST, grid_at, noise, north_up, write_raster

from geolink.errors import CoverageError, CRSError, InputError
from geolink.grid import WGS84, Bounds, GridSpec, reproject
from geolink.sources.imagery import open_imagery
from geolink.sources.raster_files import raster_name

# Bands and types


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


def test_complex_values_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((3, 20, 20), dtype=np.complex64))
    with pytest.raises(InputError, match="real type"):
        open_imagery(path)


# What is known of a file


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


# What cannot be used


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tif does not exist"):
        open_imagery(tmp_path / "none.tif")


def test_file_that_is_no_raster(tmp_path: Path) -> None:
    path = tmp_path / "notes.tif"
    path.write_text("hello")
    with pytest.raises(InputError, match=r"notes\.tif is not a raster"):
        open_imagery(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = write_raster(tmp_path / "cut.tif", noise(3, 600, 600), tiled=True, compress="deflate")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut\.tif"):
        open_imagery(path).read(grid_at(height=600, width=600))


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


def test_the_signature_of_an_address_is_no_part_of_a_name() -> None:
    assert raster_name("/vsicurl/https://a.org/b/c.tif?sig=secret") == "c.tif"
