import pytest

from geolink.errors import ConfigError
from geolink.legend import UFZ, Legend, MapClass


def test_ufz_is_the_nine_classes_in_published_order():
    assert UFZ.names == (
        "water",
        "green",
        "farmland",
        "undeveloped",
        "residential",
        "commercial",
        "institution",
        "industrial",
        "transport",
    )


def test_round_trip():
    assert Legend.from_dict(UFZ.to_dict()) == UFZ


def test_id_of_unknown_class_names_the_known_ones():
    assert UFZ.id_of("transport") == 8
    with pytest.raises(ConfigError, match="water, green"):
        UFZ.id_of("harbour")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "x", "classes": 3},
        {"name": "x", "classes": [{"id": 0}]},
        {"name": "x", "classes": [{"id": "a", "name": "b", "color": "#000000"}]},
        {"name": "x", "classes": [{"id": 1, "name": "b", "color": "#000000"}]},
        {"name": "x", "classes": [{"id": 0, "name": "b", "color": "red"}]},
        {"name": "x", "classes": [{"id": 0, "name": "a\x1b[31m", "color": "#000000"}]},
        {"name": "x", "classes": [{"id": 0, "name": "a\udcff", "color": "#000000"}]},
        {"name": "x", "classes": [{"id": i, "name": "b", "color": "#000000"} for i in (0, 1)]},
    ],
)
def test_bad_records_are_refused(data):
    with pytest.raises(ConfigError):
        Legend.from_dict(data)


def test_rgb():
    assert MapClass(0, "a", "#0a10ff").rgb == (10, 16, 255)
