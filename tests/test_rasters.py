import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import CRS
from shapely import box

from geolink.errors import InputError
from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE, UFZ
from geolink.mosaic import Blend
from geolink.rasters import burn, keep_classes, write_class_map, write_probabilities

GRID = GridSpec(CRS.from_epsg(32635), 380_000.0, 6_680_000.0, 1.0, 1100, 1300)
RNG = np.random.default_rng(0)
CLASSES = np.kron(RNG.integers(0, 9, (110, 130)), np.ones((10, 10))).astype(np.uint8)
CLASSES[:40, :40] = IGNORE


def scores(window: PixelWindow) -> Blend:
    rows, cols = window.slices
    ramp = np.linspace(0, 1, GRID.width, dtype=np.float32)[cols]
    values = np.zeros((2, len(UFZ), window.height, window.width), np.float32)
    values[0, 0], values[0, 1] = ramp, 1 - ramp
    return Blend(values, CLASSES[rows, cols] != IGNORE)


@pytest.fixture(scope="module")
def class_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rasters") / "map.tif"
    write(path)
    return path


def write(path: Path, **options: object) -> None:
    settings = {"legend": UFZ, "metadata": {"GEOLINK": '{"seed": 1}'}, "overwrite": False}
    write_class_map(path, GRID, lambda w: CLASSES[w.slices], **(settings | options))  # type: ignore[arg-type]


def test_class_map_round_trips(class_map: Path) -> None:
    with rasterio.open(class_map) as raster:
        np.testing.assert_array_equal(raster.read(1), CLASSES)
        assert raster.nodata == IGNORE
        assert raster.crs.to_epsg() == 32635
        assert raster.transform == GRID.transform
        assert raster.descriptions == ("class",)
        assert raster.tags()["GEOLINK"] == '{"seed": 1}'
        assert json.loads(raster.tags()["LEGEND"]) == UFZ.to_dict()
        assert raster.colormap(1)[4] == (*UFZ.classes[4].rgb, 255)


def test_class_map_is_a_cog_whose_overviews_hold_classes(class_map: Path) -> None:
    with rasterio.open(class_map) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.overviews(1) == [2, 4]
    with rasterio.open(class_map, overview_level=0) as half:
        agree = half.read(1)[:, :650] == CLASSES[::2, ::2]
        assert agree.mean() > 0.99


def test_the_same_map_gives_the_same_bytes(class_map: Path, tmp_path: Path) -> None:
    write(tmp_path / "again.tif")
    assert (tmp_path / "again.tif").read_bytes() == class_map.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_pixels_outside_the_area_are_no_data(tmp_path: Path) -> None:
    west, north = GRID.west, GRID.north
    write(tmp_path / "map.tif", area=box(west + 100, north - 300, west + 250, north - 100))
    with rasterio.open(tmp_path / "map.tif") as raster:
        found = raster.read(1)
    np.testing.assert_array_equal(found[100:300, 100:250], CLASSES[100:300, 100:250])
    assert (found != IGNORE).sum() == 200 * 150


def test_probabilities_round_trip_in_steps(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    write_probabilities(path, GRID, scores, legend=UFZ, metadata={}, overwrite=False)
    with rasterio.open(path) as raster:
        assert raster.descriptions == UFZ.names
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        found, scale = raster.read(), raster.scales[0]
        masks = raster.read_masks(1) > 0
    np.testing.assert_array_equal(masks, CLASSES != IGNORE)
    expected = scores(GRID.window).scores[0]
    assert np.abs(found * scale - expected)[:, masks].max() <= scale / 2 + 1e-6


def test_kept_classes_round_trip_and_take_no_room_where_there_are_none(tmp_path: Path) -> None:
    full, empty = tmp_path / "full.tif", tmp_path / "empty.tif"
    keep_classes(full, GRID, lambda window: CLASSES[window.slices])
    keep_classes(empty, GRID, lambda window: np.full((window.height, window.width), IGNORE, "u1"))
    with rasterio.open(full) as raster:
        np.testing.assert_array_equal(raster.read(1), CLASSES)
    with rasterio.open(empty) as raster:
        assert (raster.read(1) == IGNORE).all()
    assert empty.stat().st_size < 2000 < full.stat().st_size


def test_an_error_while_reading_leaves_no_file(tmp_path: Path) -> None:
    def fail(window: PixelWindow) -> np.ndarray:  # type: ignore[type-arg]
        raise InputError("the tile is gone")

    with pytest.raises(InputError, match="gone"):
        write_class_map(tmp_path / "map.tif", GRID, fail, legend=UFZ, metadata={}, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_burn_equals_a_point_test_and_later_geometries_win() -> None:
    grid = GridSpec(GRID.crs, 0.0, 10.0, 1.0, 10, 10)
    burnt = burn([box(-50, -50, 5, 50), box(4, 0, 6, 2)], [3, 7], grid, fill=-1)
    expected = np.full((10, 10), -1)
    expected[:, :5] = 3
    expected[8:, 4:6] = 7
    np.testing.assert_array_equal(burnt, expected)
    assert (burn([box(50, 50, 60, 60)], [1], grid, fill=0) == 0).all()


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from pyproj import CRS
from geolink.errors import OutputError
from geolink.grid import GridSpec
from geolink.legend import UFZ
from geolink.rasters import write_class_map
target, missing = Path(sys.argv[1]), int(sys.argv[2])
grid = GridSpec(CRS.from_epsg(32635), 380_000.0, 6_680_000.0, 1.0, 1100, 1100)
noise = np.random.default_rng(0).integers(0, 9, grid.shape).astype(np.uint8)

def write():
    write_class_map(target, grid, lambda w: noise[w.slices], legend=UFZ, metadata={},
                    overwrite=False)

write()
enough = target.stat().st_size
target.unlink()
resource.setrlimit(resource.RLIMIT_FSIZE, (enough - missing, enough))
try:
    write()
except OutputError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
@pytest.mark.parametrize("missing", [1, 1000, 100_000, 500_000])
def test_a_full_disk_leaves_no_file(tmp_path: Path, missing: int) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path / "map.tif"), str(missing)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "disk is full" in run.stdout
    assert list(tmp_path.iterdir()) == []
