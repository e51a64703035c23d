import pytest

from geolink.sources.landcover.cover import LOOKS, Cover, area_cover, line_cover, number


def test_every_material_has_a_look() -> None:
    assert set(LOOKS) == set(Cover)


@pytest.mark.parametrize(
    "tags",
    [
        {}, {"landuse": "residential"}, {"landuse": "commercial"}, {"landuse": "retail"},
        {"landuse": "industrial"}, {"landuse": "railway"}, {"landuse": "military"},
        {"amenity": "school"}, {"amenity": "hospital"}, {"leisure": "sports_centre"},
        {"building": "no"}, {"building": "yes", "location": "underground"},
        {"highway": "pedestrian", "tunnel": "yes"},
        {"amenity": "parking", "parking": "underground"},
    ],
)  # fmt: skip
def test_uses_and_hidden_areas_show_nothing(tags: dict[str, str]) -> None:
    assert area_cover(tags) is None


@pytest.mark.parametrize(
    ("tags", "cover"),
    [
        ({"landuse": "residential", "leisure": "garden"}, Cover.GARDEN),
        ({"building": "parking", "amenity": "parking", "parking": "multi-storey"}, Cover.ROOF),
        ({"building": "greenhouse"}, Cover.GLASS),
        ({"amenity": "parking", "surface": "gravel"}, Cover.GRAVEL),
        ({"leisure": "pitch", "sport": "tennis"}, Cover.CLAY),
        ({"leisure": "pitch", "sport": "tennis;multi", "surface": "grass"}, Cover.GRASS),
        ({"waterway": "riverbank"}, Cover.WATER),
    ],
)
def test_areas_show_their_surface(tags: dict[str, str], cover: Cover) -> None:
    assert area_cover(tags) == cover


def test_lines_have_a_surface_and_a_width() -> None:
    assert line_cover({"highway": "primary", "lanes": "2"}) == (Cover.ROAD, pytest.approx(7.4))
    assert line_cover({"highway": "track", "width": "4 m"}) == (Cover.TRACK, 4.0)
    assert line_cover({"highway": "path", "width": "9e9"}) == (Cover.GRAVEL, 60.0)
    assert line_cover({"boundary": "administrative"}) is None


def test_tunnels_are_hidden_but_passages_are_not() -> None:
    assert line_cover({"railway": "subway", "tunnel": "yes"}) is None
    assert line_cover({"highway": "service", "tunnel": "building_passage"}) is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12.0), ("12.5 m", 12.5), ("3,5", 3.5), ("7m", 7.0), ("", None), (None, None),
     ("many", None), ("nan", None), ("inf", None)],
)  # fmt: skip
def test_numbers_are_read_leniently(text: str | None, value: float | None) -> None:
    assert number(text) == value
