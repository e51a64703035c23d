from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from matplotlib.image import imread
from pyproj import CRS
from shapely import box

from geolink.errors import OutputError
from geolink.grid import Bounds, GridSpec
from geolink.legend import UFZ
from geolink.preview import MAX_SIDE, write_preview
from geolink.sources.base import ImageTile, SourceInfo

UTM35 = CRS.from_epsg(32635)


class Flat:
    """Imagery of one colour."""

    def __init__(self, *, simulated: bool = False) -> None:
        self.info = SourceInfo("flat", simulated=simulated)
        self.most_pixels = 0

    def read(self, grid: GridSpec) -> ImageTile:
        self.most_pixels = max(self.most_pixels, grid.height * grid.width)
        rgb = np.full((3, *grid.shape), 200, np.uint8)
        return ImageTile(rgb, np.ones(grid.shape, bool))


def zones(bounds: Bounds) -> gpd.GeoDataFrame:
    middle = (bounds.west + bounds.east) / 2
    halves = [
        box(bounds.west, bounds.south, middle, bounds.north),
        box(middle, bounds.south, bounds.east, bounds.north),
    ]
    frame = gpd.GeoDataFrame({"class_id": [1, 4]}, geometry=halves, crs=UTM35)
    return frame.assign(area_m2=frame.area)


def write(path: Path, bounds: Bounds, imagery: Flat | None, **changes: object) -> np.ndarray:  # type: ignore[type-arg]
    options = {"title": "Zones", "credits": ["© contributors"], "overwrite": False} | changes
    write_preview(path, zones(bounds), imagery, bounds=bounds, legend=UFZ, **options)  # type: ignore[arg-type]
    picture: np.ndarray = imread(path)  # type: ignore[type-arg]
    return picture


@pytest.mark.parametrize("shape", [(900, 800), (300, 2000), (2500, 400), (3, 50_000)])
def test_any_extent_gives_a_picture_of_bounded_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    height, width = shape
    imagery = Flat()
    picture = write(tmp_path / "map.png", Bounds(0, 0, width, height), imagery)
    assert max(picture.shape[:2]) <= MAX_SIDE
    assert 0 < imagery.most_pixels < MAX_SIDE**2
    assert [p.name for p in tmp_path.iterdir()] == ["map.png"]


def test_zones_have_the_colours_of_the_legend(tmp_path: Path) -> None:
    picture = write(tmp_path / "map.png", Bounds(0, 0, 1000, 1000), None)
    shares = [
        (np.abs(255 * picture[..., :3] - UFZ.classes[i].rgb).max(axis=2) < 1).mean()
        for i in (0, 1, 4)
    ]
    assert shares[0] == 0
    assert min(shares[1:]) > 0.2


def test_simulated_imagery_is_named(tmp_path: Path) -> None:
    bounds = Bounds(0, 0, 1000, 1000)
    red = np.array([0xB3, 0x26, 0x1E]) / 255
    count = []
    for simulated in (False, True):
        path = tmp_path / f"{simulated}.png"
        picture = write(path, bounds, Flat(simulated=simulated))
        count.append(int((np.abs(picture[:80, :, :3] - red).max(axis=2) < 0.02).sum()))
    assert count[0] == 0
    assert count[1] > 100


def test_the_same_map_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write(tmp_path / name, Bounds(0, 0, 500, 400), Flat())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_odd_texts_and_no_zones(tmp_path: Path) -> None:
    bounds = Bounds(0, 0, 500, 400)
    empty = zones(bounds).head(0)
    write_preview(
        tmp_path / "map.png",
        empty,
        None,
        bounds=bounds,
        legend=UFZ,
        title="$x_{ 東京 \U0001f3d9 " * 30,
        credits=["$\\frac{", "x" * 5000],
        overwrite=False,
    )
    assert imread(tmp_path / "map.png").ndim == 3


def test_an_existing_picture_stays(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    path.write_text("old")
    with pytest.raises(OutputError, match="exists"):
        write(path, Bounds(0, 0, 500, 400), None)
    assert path.read_text() == "old"
