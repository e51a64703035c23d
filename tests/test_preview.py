from itertools import combinations
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.transforms import Bbox
from pyproj import CRS
from shapely import box

from geolink.errors import OutputError
from geolink.grid import Bounds, GridSpec
from geolink.legend import UFZ, new_legend
from geolink.preview import MAX_SIDE, area_words, write_preview
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
    write_preview(path, [zones(bounds)], imagery, crs=UTM35, bounds=bounds, legend=UFZ, **options)  # type: ignore[arg-type]
    picture: np.ndarray = imread(path)  # type: ignore[type-arg]
    return picture


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, in turn."""
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        saved.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def words(figure: Figure) -> dict[str, Bbox]:
    """What is written where, in pixels from the lower left."""
    drawn = [text for text in figure.axes[0].texts if text.get_text()]
    return {f"{i} {text.get_text()}": text.get_window_extent() for i, text in enumerate(drawn)}


SHAPES = [(900, 800), (300, 2000), (2500, 400), (3, 50_000), (50_000, 3), (9, 12)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_extent_gives_a_sound_picture(
    tmp_path: Path, shape: tuple[int, int], figures: list[Figure]
) -> None:
    height, width = shape
    imagery = Flat(simulated=True)
    title = "Functional zones of a place with a name of considerable length (simulated imagery)"
    credits = ["Imagery: " + "Ministry of Long Names, " * 40, "https://example.org/" + "x" * 900]
    options = {"title": title, "credits": credits}
    picture = write(tmp_path / "map.png", Bounds(0, 0, width, height), imagery, **options)
    assert max(picture.shape[:2]) <= MAX_SIDE
    assert 0 < imagery.most_pixels < MAX_SIDE**2
    assert [p.name for p in tmp_path.iterdir()] == ["map.png"]
    places = words(figures[0])
    page = Bbox.from_bounds(0, 0, picture.shape[1], picture.shape[0])
    for name, place in places.items():
        assert page.count_contains(place.corners()) == 4, name
    for (a, first), (b, second) in combinations(places.items(), 2):
        assert not first.overlaps(second), f"{a!r} overlaps {b!r}"


@pytest.mark.parametrize("count", [1, 9, 200])
def test_any_number_of_classes_has_a_legend(
    tmp_path: Path, count: int, figures: list[Figure]
) -> None:
    legend = new_legend("long", [f"quite a long name of class {i}" for i in range(count)])
    strips = [box(i, 0, i + 1, 100 + i) for i in range(count)]
    frame = gpd.GeoDataFrame({"class_id": range(count)}, geometry=strips, crs=UTM35)
    write_preview(
        tmp_path / "map.png",
        [frame.assign(area_m2=frame.area)],
        None,
        crs=UTM35,
        bounds=Bounds(0, 0, count, 100 + count),
        legend=legend,
        title="Zones",
        credits=[],
        overwrite=False,
    )
    assert max(imread(tmp_path / "map.png").shape) <= MAX_SIDE
    places = words(figures[0])
    for (a, first), (b, second) in combinations(places.items(), 2):
        assert not first.overlaps(second), f"{a!r} overlaps {b!r}"
    assert any("181 smaller" in name for name in places) == (count == 200)


def test_zones_in_parts_give_the_same_picture(tmp_path: Path) -> None:
    bounds = Bounds(0, 0, 900, 800)
    options = {"crs": UTM35, "bounds": bounds, "legend": UFZ, "title": "Zones", "credits": []}
    whole = zones(bounds)
    for name, frames in (("one", [whole]), ("two", [whole[:1], whole[1:]])):
        write_preview(tmp_path / name, frames, Flat(), overwrite=False, **options)  # type: ignore[arg-type]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_what_is_not_mapped_is_explained(tmp_path: Path, figures: list[Figure]) -> None:
    whole = Bounds(0, 0, 1000, 1000)
    write(tmp_path / "full.png", whole, None)
    half = zones(whole).head(1)
    write_preview(
        tmp_path / "half.png",
        [half],
        None,
        crs=UTM35,
        bounds=whole,
        legend=UFZ,
        title="Zones",
        credits=[],
        overwrite=False,
    )
    full, half = (" ".join(words(figure)) for figure in figures)
    assert "not mapped" not in full
    assert "not mapped" in half


@pytest.mark.parametrize(
    ("area_m2", "expected"),
    [
        (0, "0 m²"),
        (9_999.4, "9,999 m²"),
        (10_000, "1.00 ha"),
        (123_456, "12.3 ha"),
        (1_607_000, "1.61 km²"),
        (2_345_678_000, "2,346 km²"),
    ],
)
def test_areas_have_three_digits(area_m2: float, expected: str) -> None:
    assert area_words(area_m2) == expected


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
        [empty],
        None,
        crs=UTM35,
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
