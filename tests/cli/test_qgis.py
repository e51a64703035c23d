"""What QGIS shows of a map, where it is installed."""

import json
import shutil
import subprocess
from pathlib import Path

import geopandas as gpd
import pytest

from geolink.legend import UFZ

PYTHON = shutil.which("python3", path="/usr/bin") or ""
VIEW = Path(__file__).with_name("qgis_view.py")


@pytest.fixture(scope="module")
def seen(mapped):
    has_qgis = [PYTHON, "-c", "import qgis.core"]
    if not PYTHON or subprocess.run(has_qgis, capture_output=True, check=False).returncode:
        pytest.skip("QGIS is not installed for the system's Python")
    folder, _ = mapped
    command = [PYTHON, VIEW, folder / "map.gpkg", folder / "classes.tif"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(shown.stdout)


def test_layers_open_in_colour(seen, mapped):
    zones, tiles = seen["layers"]["zones"], seen["layers"]["tiles"]
    assert zones["by"] == "class_id"
    assert zones["legend"] == {each.name: each.color for each in UFZ.classes}
    assert tiles["by"] == "status"
    assert list(tiles["legend"]) == ["ok", "no_osm", "no_image", "failed"]


def test_all_features_are_read_and_valid(seen, mapped):
    for name, layer in seen["layers"].items():
        frame = gpd.read_file(mapped[0] / "map.gpkg", layer=name)
        assert layer["features"] == len(frame) > 0
        assert layer["invalid"] == 0
        assert layer["crs"] == frame.crs.to_string()


def test_the_class_raster_has_the_same_colours(seen):
    shown = dict(seen["raster"])
    assert {shown[i] for i in range(len(UFZ))} == {each.color for each in UFZ.classes}
