import pickle
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from geopandas.testing import assert_geodataframe_equal
from pyproj import CRS
from shapely import box

from geolink.grid import Bounds
from geolink.sources.entities import ENTITY_TYPES, OsmEntities
from geolink.sources.entity_table import EntityTable, keep_entities
from geolink.sources.osm import read_osm, read_osm_parts
from geolink.sources.places import sample_extract

CRS_35N = CRS.from_epsg(32635)
AREA = Bounds(385_400.0, 6_671_600.0, 386_600.0, 6_672_500.0)  # of the Helsinki extract
TILES = [
    Bounds(AREA.west + x, AREA.south + y, AREA.west + x + 300, AREA.south + y + 300)
    for x, y in product((-100, 300, 800), (0, 400))
]


@pytest.fixture(scope="module")
def whole() -> OsmEntities:
    return read_osm(sample_extract(), AREA, crs=CRS_35N)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> EntityTable:
    """Made from quarters of the area, which share many entities."""
    x, y = (AREA.west + AREA.east) / 2, (AREA.south + AREA.north) / 2
    quarters = [
        Bounds(west, south, east, north)
        for west, east in ((AREA.west, x), (x, AREA.east))
        for south, north in ((AREA.south, y), (y, AREA.north))
    ]
    parts = read_osm_parts(sample_extract(), AREA, quarters, crs=CRS_35N)
    return keep_entities(tmp_path_factory.mktemp("table") / "osm.sqlite", parts, CRS_35N)


def test_parts_make_up_the_whole(whole: OsmEntities, table: EntityTable) -> None:
    assert len(table) == len(whole) > 1000
    assert (table.crs, table.info, table.dropped) == (whole.crs, whole.info, whole.dropped)
    assert whole.dropped


@pytest.mark.parametrize("bounds", [AREA, *TILES], ids=str)
def test_the_same_entities_are_within_bounds(
    whole: OsmEntities, table: EntityTable, bounds: Bounds
) -> None:
    expected, found = whole.within(bounds), table.within(bounds)
    assert len(expected) > 0
    for kind in ENTITY_TYPES:
        assert_geodataframe_equal(found.frame(kind), expected.frame(kind), check_dtype=False)


def test_the_same_entities_meet_polygons(whole: OsmEntities, table: EntityTable) -> None:
    polygons = np.array([box(*bounds).buffer(50) for bounds in TILES], dtype=object)
    counts = table.count_meeting(polygons)
    assert counts.tolist() == whole.count_meeting(polygons).tolist()
    assert counts.min() > 0


def test_nothing_is_far_away(table: EntityTable) -> None:
    found = table.within(Bounds(0.0, 0.0, 1.0, 1.0))
    assert len(found) == 0
    assert found.crs == CRS_35N
    assert table.count_meeting(np.array([box(0, 0, 1, 1)])).tolist() == [0]


def test_what_is_pickled_is_the_path(table: EntityTable) -> None:
    pickled = pickle.dumps(table)
    assert len(pickled) < 1000
    assert len(pickle.loads(pickled)) == len(table)


def test_an_unfinished_table_is_none(tmp_path: Path, whole: OsmEntities) -> None:
    def breaking():
        yield whole
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_entities(tmp_path / "osm.sqlite", breaking(), CRS_35N)
    assert not (tmp_path / "osm.sqlite").exists()
    assert len(keep_entities(tmp_path / "osm.sqlite", [whole], CRS_35N)) == len(whole)
