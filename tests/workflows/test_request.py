from pathlib import Path

import pytest

from geolink.errors import ConfigError
from geolink.workflows.request import PredictRequest


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"city": "sample", "bbox": (24.0, 60.0, 25.0, 61.0)}, "one place only"),
        ({"bbox": (24.0, 60.0, 25.0, 61.0), "aoi": "area.gpkg"}, "one place only"),
        ({"overlap": 0.51}, "overlap"),
        ({"overlap": float("nan")}, "overlap"),
        ({"gsd": 0.0}, "ground sampling distance"),
        ({"gsd": float("inf")}, "ground sampling distance"),
        ({"batch_size": 0}, "batch size"),
        ({"workers": -1}, "workers"),
        ({"min_zone_area_m2": -1.0}, "zone area"),
        ({"min_zone_area_m2": float("nan")}, "zone area"),
        ({"out": "map.tif"}, "GeoPackage"),
        ({"preview": "map.pdf"}, "picture or a page"),
        ({"raster": "a.tif", "probabilities": "./a.tif"}, "same name"),
    ],
)
def test_contradictions_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        PredictRequest(**settings)


def test_names_of_files_may_be_text():
    request = PredictRequest(aoi="area.gpkg", out="map.gpkg", raster="map.tif")
    assert (request.aoi, request.out, request.raster) == (
        Path("area.gpkg"),
        Path("map.gpkg"),
        Path("map.tif"),
    )


def test_the_record_holds_what_shapes_the_map():
    request = PredictRequest(
        aoi="/home/me/area.gpkg", imagery="/home/me/ortho.tif", osm="none", seed=7, gsd=0.5
    )
    assert request.record() == {
        "aoi": "area.gpkg",
        "imagery": "ortho.tif",
        "osm": "none",
        "model": "geolink-tiny",
        "gsd": 0.5,
        "overlap": 0.25,
        "min_zone_area_m2": 500.0,
        "seed": 7,
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1},
        {"workers": 0},
        {"resume": False},
        {"overwrite": True},
        {"out": "elsewhere/map.gpkg"},
        {"preview": "map.png"},
    ],
    ids=str,
)
def test_the_record_leaves_out_how_it_is_computed(settings):
    assert PredictRequest(city="sample", **settings).record() == PredictRequest("sample").record()
