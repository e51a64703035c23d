from datetime import date
from pathlib import Path

import pytest

from geolink.errors import ConfigError
from geolink.sources.specs import (
    LocalImagery,
    Simulated,
    StacImagery,
    XyzImagery,
    parse_imagery,
)


@pytest.mark.parametrize("spec", ["a.tif", "folder/b.vrt", Path("folder"), "sentinel2.tif", "xyz"])
def test_whatever_names_no_service_is_a_path(spec):
    assert parse_imagery(spec) == LocalImagery(Path(spec))


def test_simulated():
    assert parse_imagery("simulated") == Simulated()


def test_sentinel2(monkeypatch):
    monkeypatch.delenv("GEOLINK_STAC_URL", raising=False)
    found = parse_imagery("sentinel2")
    assert (found.collection, found.assets, found.classes) == ("sentinel-2-l2a", ("visual",), "scl")
    assert found.url.startswith("https://")
    assert found.dates is None


def test_sentinel2_of_a_mirror_and_of_some_days(monkeypatch):
    monkeypatch.setenv("GEOLINK_STAC_URL", "http://127.0.0.1:8000/v1")
    found = parse_imagery("sentinel2:2025-05-01/2025-09-30")
    assert found.url == "http://127.0.0.1:8000/v1"
    assert found.dates == (date(2025, 5, 1), date(2025, 9, 30))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            "stac:https://a.org/v1#naip/image",
            StacImagery("https://a.org/v1", "naip", ("image",)),
        ),
        (
            "stac:https://a.org/v1?key=1#c1/red, green,blue",
            StacImagery("https://a.org/v1?key=1", "c1", ("red", "green", "blue")),
        ),
        (
            "xyz:https://{s}.a.org/{z}/{x}/{-y}@2x.png@17",
            XyzImagery("https://{s}.a.org/{z}/{x}/{-y}@2x.png", 17),
        ),
        (
            "xyz:http://a.org/?x={x}&y={y}&z={z}@0",
            XyzImagery("http://a.org/?x={x}&y={y}&z={z}", 0),
        ),
    ],
)
def test_services(spec, expected):
    assert parse_imagery(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "no name"),
        ("  ", "no name"),
        ("https://a.org/ortho.tif", "download the file"),
        ("sentinel2:", "no dates"),
        ("sentinel2:2025", "two dates"),
        ("sentinel2:2025-02-30/2025-03-01", "two dates"),
        ("sentinel2:2025-01-01/2025-02-01/2025-03-01", "two dates"),
        ("sentinel2:2025-06-01/2025-05-01", "ends before it starts"),
        ("stac:", "not complete"),
        ("stac:https://a.org/v1", "not complete"),
        ("stac:https://a.org/v1#naip", "not complete"),
        ("stac:https://a.org/v1#naip/", "not complete"),
        ("stac:#naip/image", "not complete"),
        ("stac:https://a.org#c/red,,blue", "not complete"),
        ("stac:https://a.org#c/red,blue", "names 2 assets"),
        ("stac:ftp://a.org#c/image", "web address"),
        ("stac:catalog.json#c/image", "web address"),
        ("xyz:https://a.org/{z}/{x}/{y}.png", "zoom level"),
        ("xyz:https://a.org/{z}/{x}/{y}.png@", "zoom level"),
        ("xyz:https://a.org/{z}/{x}/{y}@2x.png", "zoom level"),
        ("xyz:https://a.org/{z}/{x}/{y}.png@24", "zoom level"),
        ("xyz:https://a.org/{z}/{x}/{y}.png@-1", "zoom level"),
        ("xyz:https://a.org/{z}/{x}.png@3", r"must contain \{z\}"),
        ("xyz:https://a.org/{z}/{x}/{y}/{-y}.png@3", r"one of \{y\}"),
        ("xyz:https://a.org/{z}/{x}/{y}/{key}.png@3", r"unknown field \{key\}"),
        ("xyz:https://a.org/{z}/{x}/{y.png@3", "brace"),
        ("xyz:a.org/{z}/{x}/{y}.png@3", "web address"),
        ("xyz:https://[::1/{z}/{x}/{y}.png@3", "web address"),
    ],
)
def test_what_cannot_be_parsed_is_told_in_one_sentence(spec, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_imagery(spec)
    assert "\n" not in str(error.value)


def test_a_wrong_mirror_is_named(monkeypatch):
    monkeypatch.setenv("GEOLINK_STAC_URL", "mirror")
    with pytest.raises(ConfigError, match="GEOLINK_STAC_URL"):
        parse_imagery("sentinel2")
