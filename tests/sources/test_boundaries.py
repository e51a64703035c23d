from pathlib import Path

import pytest
from pyproj import Geod
from shapely import Point

from geolink.errors import ConfigError, InputError
from geolink.sources.boundaries import boundary_of
from geolink.sources.pbf import write_pbf
from geolink.sources.places import sample_extract

GEOD = Geod(ellps="WGS84")


def km2(area: object) -> float:
    return abs(GEOD.geometry_area_perimeter(area)[0]) / 1e6


@pytest.fixture(scope="module")
def liechtenstein(shared_data: Path) -> Path:
    return shared_data / "osm/liechtenstein.osm.pbf"


@pytest.fixture(scope="module")
def monaco(shared_data: Path) -> Path:
    return shared_data / "osm/monaco.osm.pbf"


# Real extracts


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("Vaduz", 17.3),
        ("VADUZ", 17.3),
        ("relation/1155956", 17.3),
        ("Balzers", 19.6),
        ("Liechtenstein", 160.5),
        ("Fürstentum Liechtenstein", 160.5),
    ],
)
def test_boundaries_have_their_official_size(liechtenstein: Path, name: str, area: float) -> None:
    found = boundary_of(liechtenstein, name)
    assert found.is_valid
    assert km2(found) == pytest.approx(area, rel=0.01)


def test_a_boundary_lies_where_the_town_is(liechtenstein: Path) -> None:
    assert boundary_of(liechtenstein, "Vaduz").contains(Point(9.5209, 47.1410))
    assert not boundary_of(liechtenstein, "Balzers").contains(Point(9.5209, 47.1410))


def test_spelling_is_taken_lightly(monaco: Path) -> None:
    assert boundary_of(monaco, "monte carlo").equals(boundary_of(monaco, "Monte-Carlo"))
    assert boundary_of(monaco, "Le Rocher").equals(boundary_of(monaco, "Monaco-Ville"))


@pytest.mark.parametrize(
    ("file", "name", "counts"),
    [("liechtenstein", "Fläsch", "5 of the 9"), ("monaco", "Monaco", "22 of the 25")],
)
def test_a_boundary_that_leaves_the_extract_is_refused(
    shared_data: Path, file: str, name: str, counts: str
) -> None:
    with pytest.raises(InputError, match=rf"only {counts} lines of relation.*larger extract"):
        boundary_of(shared_data / f"osm/{file}.osm.pbf", name)


def test_near_names_are_suggested(liechtenstein: Path) -> None:
    with pytest.raises(InputError, match=r"'Vadus'; did you mean Vaduz"):
        boundary_of(liechtenstein, "Vadus")
    with pytest.raises(InputError, match=r"'qqqqqq'; there are Balzers.*and others"):
        boundary_of(liechtenstein, "qqqqqq")


def test_places_drawn_as_areas_are_found_too() -> None:
    assert km2(boundary_of(sample_extract(), "Seepra")) == pytest.approx(0.0058, rel=0.2)


def test_several_places_of_one_name_are_listed_with_their_ids() -> None:
    with pytest.raises(
        ConfigError, match=r"'Vuohi'; choose one by its id: way/33505710.*, way/33505711"
    ):
        boundary_of(sample_extract(), "Vuohi")
    assert boundary_of(sample_extract(), "way/33505711").area > 0


def test_extracts_without_boundaries_say_so(shared_data: Path) -> None:
    with pytest.raises(InputError, match=r"it has no boundaries; draw the area"):
        boundary_of(shared_data / "osm/singapore_bayfront.osm.pbf", "Marina Bay")


# Drawn cases


def square(first: int, west: float, side: float) -> list[dict[str, object]]:
    """A closed way with four nodes, numbered from `first`."""
    corners = [(west, 0.0), (west + side, 0.0), (west + side, side), (west, side)]
    nodes = [
        {"type": "node", "id": first + i, "lon": lon, "lat": lat}
        for i, (lon, lat) in enumerate(corners)
    ]
    ring = [*range(first, first + 4), first]
    return [*nodes, {"type": "way", "id": first, "nodes": ring}]


def relation(osm_id: int, way: int, **tags: str) -> dict[str, object]:
    members = [{"type": "way", "ref": way, "role": "outer"}]
    plain = {"type": "boundary", "boundary": "administrative", **tags}
    return {"type": "relation", "id": osm_id, "members": members, "tags": plain}


def test_one_place_on_two_levels_is_no_choice(tmp_path: Path) -> None:
    drawn = [
        *square(10, 8.0, 0.1),
        relation(1, 10, name="Bremen", admin_level="4"),
        relation(2, 10, name="Bremen", admin_level="6"),
    ]
    write_pbf(tmp_path / "a.osm.pbf", drawn, timestamp=0)
    assert boundary_of(tmp_path / "a.osm.pbf", "bremen").area == pytest.approx(0.01)


def test_a_country_and_its_capital_are_a_choice(tmp_path: Path) -> None:
    drawn = [
        *square(10, 6.0, 0.4),
        *square(20, 6.1, 0.1),
        relation(1, 10, name="Luxembourg", admin_level="2"),
        relation(2, 20, **{"name": "Lëtzebuerg", "name:en": "Luxembourg", "admin_level": "8"}),
    ]
    write_pbf(tmp_path / "a.osm.pbf", drawn, timestamp=0)
    listed = r"relation/1 \(Luxembourg, admin_level 2\), relation/2 \(Lëtzebuerg, admin_level 8\)"
    with pytest.raises(ConfigError, match=listed):
        boundary_of(tmp_path / "a.osm.pbf", "Luxembourg")
    assert boundary_of(tmp_path / "a.osm.pbf", "relation/2").area == pytest.approx(0.01)


def test_boundaries_come_before_places(tmp_path: Path) -> None:
    town = {"type": "multipolygon", "place": "town", "name": "Vik"}
    drawn = [
        *square(10, 6.0, 0.1),
        *square(20, 6.0, 0.3),
        relation(1, 10, name="Vik", admin_level="8"),
        {**relation(2, 20), "tags": town},
    ]
    write_pbf(tmp_path / "a.osm.pbf", drawn, timestamp=0)
    assert boundary_of(tmp_path / "a.osm.pbf", "Vik").area == pytest.approx(0.01)


# Bad input


@pytest.mark.parametrize("name", ["", "  ", "?!"])
def test_a_name_is_needed(name: str) -> None:
    with pytest.raises(ConfigError, match="must not be empty"):
        boundary_of(sample_extract(), name)


def test_files_that_are_no_extracts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        boundary_of(tmp_path / "none.osm.pbf", "Vaduz")
    (tmp_path / "text.osm.pbf").write_text("hello")
    with pytest.raises(InputError, match="not a readable OSM PBF"):
        boundary_of(tmp_path / "text.osm.pbf", "Vaduz")
    cut = tmp_path / "cut.osm.pbf"
    cut.write_bytes(sample_extract().read_bytes()[:300_000])
    with pytest.raises(InputError, match="not a readable OSM PBF"):
        boundary_of(cut, "Vaduz")
