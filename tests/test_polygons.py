from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import rasterize
from scipy import ndimage
from shapely import Geometry, Point, Polygon, STRtree, box

from geolink.errors import CoverageError
from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE, UFZ
from geolink.mosaic import Blend
from geolink.polygons import add_statistics, find_zones
from geolink.rasters import write_class_map
from geolink.sources.base import SourceInfo
from geolink.sources.entities import OsmEntities
from geolink.zone_table import ZoneTable

UTM35 = CRS.from_epsg(32635)
GRID = GridSpec(UTM35, 380_000.3, 6_672_000.7, 0.6, 260, 300)


def classes(seed: int, *, nodata: float = 0.0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    scores = [ndimage.gaussian_filter(rng.random(GRID.shape), 4) for _ in range(9)]
    found = np.argmax(scores, axis=0).astype(np.uint8)
    hidden = ndimage.gaussian_filter(rng.random(GRID.shape), 8)
    found[hidden < np.quantile(hidden, nodata)] = IGNORE
    return found


def star(seed: int) -> Polygon:
    rng = np.random.default_rng(seed)
    angle, radius = np.sort(rng.uniform(0, 2 * np.pi, 40)), rng.uniform(30, 75, 40)
    x, y = GRID.west + 90, GRID.north - 78
    return Polygon(np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)]))


def write(folder: Path, values: NDArray[np.uint8]) -> Path:
    path = folder / "classes.tif"
    write_class_map(path, GRID, lambda w: values[w.slices], legend=UFZ, metadata={}, overwrite=True)
    return path


def zones(class_map: Path, area: Geometry, **options: float) -> gpd.GeoDataFrame:
    path = class_map.with_name("zones.sqlite")
    path.unlink(missing_ok=True)
    with ZoneTable(path, UTM35) as table:
        find_zones(class_map, area, table, **options)  # type: ignore[arg-type]
        return table.frame()


def with_statistics(
    folder: Path,
    polygons: list[Geometry],
    class_ids: list[int],
    read: Callable[[PixelWindow], Blend],
    entities: OsmEntities | None,
) -> gpd.GeoDataFrame:
    with ZoneTable(folder / "statistics.sqlite", UTM35) as table:
        table.add(np.array(polygons, dtype=object), np.array(class_ids, np.uint8))
        table.arrange()
        add_statistics(table, GRID, read, legend=UFZ, entities=entities)
        return table.frame()


def assert_tiling(found: gpd.GeoDataFrame, area: Geometry) -> None:
    """Zones are valid, do not overlap, share borders, and fill `area` without reaching out."""
    polygons = found.geometry.to_numpy()
    assert found.is_valid.all()
    assert (found.geom_type == "Polygon").all()
    assert shapely.coverage_is_valid(polygons)
    a, b = STRtree(polygons).query(polygons, predicate="intersects")
    once = a < b
    assert (
        shapely.area(shapely.intersection(polygons[a[once]], polygons[b[once]])).max(initial=0)
        < 1e-9
    )
    union = shapely.union_all(polygons)
    micrometres = 1e-6  # to which corners are rounded
    assert shapely.area(shapely.symmetric_difference(union, area)) < micrometres * area.length


@pytest.mark.parametrize("seed", range(4))
def test_zones_tile_an_area_of_any_shape(tmp_path: Path, seed: int) -> None:
    area = star(seed)
    found = zones(write(tmp_path, classes(seed)), area, min_area_m2=40, tolerance_m=1.2)
    assert len(found) > 10
    assert_tiling(found, area)
    assert found.area.min() >= 40
    assert found.crs == UTM35


def test_zones_tile_the_whole_map(tmp_path: Path) -> None:
    area = box(*GRID.bounds)
    assert_tiling(zones(write(tmp_path, classes(9)), area, min_area_m2=30, tolerance_m=1.0), area)


def test_only_places_without_image_stay_open(tmp_path: Path) -> None:
    values = classes(5, nodata=0.2)
    found = zones(write(tmp_path, values), star(5), min_area_m2=20, tolerance_m=0.0)
    shapes = [(box(*GRID.bounds), 1), *((g, 0) for g in found.geometry)]
    options = {"out_shape": GRID.shape, "transform": GRID.transform, "dtype": "uint8"}
    open_pixels = rasterize(shapes, **options) == 1
    inside = rasterize([(star(5), 1)], **options) == 1
    np.testing.assert_array_equal(open_pixels & inside, (values == IGNORE) & inside)
    assert not shapely.intersects(found.union_all(), Point(GRID.west, GRID.north))


def test_two_runs_give_the_same_zones_in_the_same_order(tmp_path: Path) -> None:
    path = write(tmp_path, classes(1))
    one, two = (zones(path, star(1), min_area_m2=40, tolerance_m=1.2) for _ in range(2))
    assert one.to_wkb().equals(two.to_wkb())
    assert one.class_id.is_monotonic_increasing


@pytest.mark.parametrize("side", [50, 97, 256])
def test_the_block_size_changes_nothing(tmp_path: Path, side: int) -> None:
    path, area = write(tmp_path, classes(3, nodata=0.05)), star(3)
    one, other = (zones(path, area, min_area_m2=25, tolerance_m=0.6, side=s) for s in (1000, side))
    assert len(one) > 10
    assert one.class_id.equals(other.class_id)
    assert one.to_wkb().equals(other.to_wkb())


def test_simplification_keeps_areas_nearly(tmp_path: Path) -> None:
    path, area = write(tmp_path, classes(2)), box(*GRID.bounds)
    exact = zones(path, area, min_area_m2=40, tolerance_m=0.0)
    simple = zones(path, area, min_area_m2=40, tolerance_m=1.2)
    assert shapely.get_num_coordinates(simple.geometry).sum() < 0.5 * (
        shapely.get_num_coordinates(exact.geometry).sum()
    )
    by_class = [z.area.groupby(z.class_id).sum() for z in (exact, simple)]
    np.testing.assert_allclose(*by_class, rtol=0.05)  # a zone at the limit may join another


def test_a_sliver_along_the_edge_joins_its_neighbour(tmp_path: Path) -> None:
    values = np.zeros(GRID.shape, np.uint8)
    values[:, :100] = 1
    edge = GRID.west + 99.5 * GRID.gsd  # leaves half a pixel of class 1 in the area
    area = box(edge, GRID.north - 90, edge + 60, GRID.north - 20)
    found = zones(write(tmp_path, values), area, min_area_m2=40, tolerance_m=1.0)
    assert found.class_id.tolist() == [0]
    assert_tiling(found, area)


def test_a_map_without_data_has_no_zones(tmp_path: Path) -> None:
    path = write(tmp_path, np.full(GRID.shape, IGNORE, np.uint8))
    found = zones(path, star(0), min_area_m2=40, tolerance_m=1.0)
    assert len(found) == 0
    assert {"class_id", "geometry"} <= set(found.columns)
    assert len(with_statistics(tmp_path, [], [], constant, None)) == 0


@pytest.mark.parametrize("area", [Polygon(), box(*GRID.bounds.buffered(5.0))])
def test_the_area_must_lie_on_the_map(tmp_path: Path, area: Geometry) -> None:
    with pytest.raises(CoverageError, match="area"):
        zones(write(tmp_path, classes(0)), area, min_area_m2=40, tolerance_m=1.0)


def frame(geometry: list[Geometry]) -> gpd.GeoDataFrame:
    ids = [f"way/{i}" for i in range(len(geometry))]
    return gpd.GeoDataFrame({"osm_id": ids, "tags": [{}] * len(ids)}, geometry=geometry, crs=UTM35)


def halves() -> list[Geometry]:
    west, south, east, north = GRID.bounds
    middle = west + 150 * GRID.gsd
    return [box(west, south, middle, north), box(middle, south, east, north)]


def constant(window: PixelWindow) -> Blend:
    scores = np.zeros((2, 9, window.height, window.width), np.float32)
    scores[0, 2], scores[1, 2], scores[0, 5], scores[1, 5] = 0.75, 0.5, 0.25, 0.5
    valid = np.ones((window.height, window.width), bool)
    valid[:100] = False
    scores[:, :, :100] = 0.0
    return Blend(scores, valid)


def test_statistics_are_means_over_the_pixels_of_each_zone(tmp_path: Path) -> None:
    point = frame([Point(GRID.west + 1, GRID.north - 1)])
    crossing = shapely.LineString([(GRID.west, GRID.north - 5), (GRID.west + 179, GRID.north - 9)])
    entities = OsmEntities(point, frame([crossing]), frame([]), SourceInfo("made"))
    found = with_statistics(tmp_path, halves(), [2, 5], constant, entities)
    assert found.columns.tolist() == [
        "class_id",
        "class_name",
        "confidence",
        "area_m2",
        "osm_objects",
        "osm_gain",
        "geometry",
    ]
    assert found.class_name.tolist() == ["farmland", "commercial"]
    np.testing.assert_allclose(found.confidence, [0.75, 0.25])
    np.testing.assert_allclose(found.osm_gain, [0.25, -0.25])
    np.testing.assert_allclose(found.area_m2, 0.5 * 0.36 * 260 * 300)
    assert found.osm_objects.tolist() == [2, 1]


def test_a_zone_narrower_than_a_pixel_takes_the_pixel_it_lies_in(tmp_path: Path) -> None:
    x, y = GRID.west + 0.1, GRID.north - 200 * GRID.gsd
    zone = box(x, y, x + 0.05, y + 5)

    def read(window: PixelWindow) -> Blend:
        scores = np.full((2, 9, window.height, window.width), 0.5, np.float32)
        return Blend(scores, np.ones((window.height, window.width), bool))

    found = with_statistics(tmp_path, [zone], [2], read, None)
    assert found.confidence.tolist() == [0.5]
    assert found.osm_objects.tolist() == [0]
