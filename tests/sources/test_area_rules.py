import pytest

from geolink.sources.area_rules import is_area


@pytest.mark.parametrize(
    "tags",
    [
        {"building": "yes"},
        {"landuse": "residential"},
        {"natural": "water"},
        {"leisure": "park", "barrier": "fence"},  # one area tag is enough
        {"highway": "pedestrian", "area": "yes"},
        {"natural": "cliff", "area": "yes"},
        {"railway": "station"},
        {"natural": "coastline", "place": "island"},
        {"aeroway": "apron"},
        {"power": "substation"},
        {"barrier": "hedge"},
    ],
)
def test_areas(tags: dict[str, str]) -> None:
    assert is_area(tags)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"name": "A loop"},
        {"highway": "residential"},
        {"highway": "pedestrian"},
        {"barrier": "fence"},
        {"natural": "coastline"},
        {"natural": "cliff"},
        {"railway": "rail"},
        {"leisure": "track"},
        {"aeroway": "taxiway"},
        {"waterway": "stream"},
        {"man_made": "pier"},
        {"building": "no"},
        {"leisure": "park", "area": "no"},
    ],
)
def test_lines(tags: dict[str, str]) -> None:
    assert not is_area(tags)
