from pathlib import Path

import pytest
from osm_elements import elements, same
from pyproj import CRS

from geolink.grid import WGS84, Bounds, reproject_bounds, utm_crs
from geolink.sources.entities import OsmEntities
from geolink.sources.osm import read_osm
from geolink.sources.pbf import copy_with_date, extract_bounds, extract_timestamp, write_pbf
from geolink.sources.places import sample_extract

MAY_2024 = 1_714_989_600


def read_whole(path: Path, of: Path) -> OsmEntities:
    """What read_osm finds in `path` within the bounds of the extract `of`."""
    bounds = extract_bounds(of)
    crs: CRS = utm_crs(bounds.west, bounds.south)
    return read_osm(path, Bounds(*reproject_bounds(bounds, WGS84, crs)), crs=crs)


@pytest.mark.parametrize("name", ["singapore_bayfront", "liechtenstein"])
def test_elements_of_a_real_extract_read_back_the_same(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    original = shared_data / "osm" / f"{name}.osm.pbf"
    written = tmp_path / "written.osm.pbf"
    write_pbf(written, reversed(list(elements(original))), timestamp=MAY_2024)
    assert list(elements(written)) == sorted(
        elements(original),
        key=lambda e: (("node", "way", "relation").index(e["type"]), e["id"]),
    )
    back = read_whole(written, original)
    assert same(back, read_whole(original, original))
    assert len(back.polygon) > 30
    assert back.info.date == "2024-05-06T10:00:00Z"


def test_elements_given_twice_are_written_once(tmp_path: Path) -> None:
    node = {"type": "node", "id": 5, "lat": -1.5, "lon": 103.25, "tags": {"shop": "ö"}}
    write_pbf(tmp_path / "a.osm.pbf", [node, dict(node)], timestamp=0)
    assert list(elements(tmp_path / "a.osm.pbf")) == [node]


def test_a_copy_differs_in_its_date_only(tmp_path: Path) -> None:
    copy = tmp_path / "copy.osm.pbf"
    copy_with_date(sample_extract(), copy, timestamp=MAY_2024)
    assert list(elements(copy)) == list(elements(sample_extract()))
    assert extract_bounds(copy) == extract_bounds(sample_extract())
    assert extract_timestamp(copy) == MAY_2024
    assert extract_timestamp(sample_extract()) == 0
