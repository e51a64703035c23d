"""What `geolink fetch` promises: registered data, a cache that can be seen, checked and emptied."""

import json

import pytest
from shapely import box
from synthetic import NORTH, WEST, run_cli, write_area, write_raster

from geolink.gpkg import read_metadata
from geolink.sources.cache import Cache

TILES = "xyz:http://127.0.0.1:9/{z}/{x}/{y}.png@14"


@pytest.fixture
def registered(small_scene):
    """The made-up scene, registered as the place Harbour Lab."""
    files = ["--imagery", small_scene / "ortho.tif", "--osm", small_scene / "osm.gpkg"]
    outcome = run_cli("fetch", "--city", "Harbour Lab", *files, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_registered_data_maps_offline(tmp_path, small_model, predict, registered):
    assert registered["place"] == "harbour_lab"
    assert [entry["kind"] for entry in registered["entries"]] == ["place", "imagery", "osm"]
    by_name = ["--city", "harbour lab", "--offline", "--model", small_model]
    assert run_cli("predict", *by_name, cwd=tmp_path).code == 0
    assert predict(tmp_path, "--out", "direct.gpkg").code == 0
    records = [read_metadata(tmp_path / f"{name}.gpkg") for name in ("harbour_lab", "direct")]
    assert records[0]["imagery"] == records[1]["imagery"]
    assert records[0]["osm"] == records[1]["osm"]
    assert records[0]["request"]["city"] == "harbour lab"


def test_a_name_can_stand_for_an_area_of_its_own(tmp_path, small_scene, small_model):
    area = write_area(tmp_path / "quay.gpkg", box(WEST + 10, NORTH - 60, WEST + 50, NORTH - 20))
    files = ["--imagery", small_scene / "ortho.tif", "--osm", small_scene / "osm.gpkg"]
    note = ["--accept-imagery-terms", "CC0-1.0"]
    outcome = run_cli("fetch", "--city", "quay", "--aoi", area, *files, *note)
    assert outcome.code == 0, outcome.err
    planned = run_cli("predict", "--city", "quay", "--offline", "--dry-run", "--json")
    record = json.loads(planned.out)
    assert record["area_km2"] == pytest.approx(0.0016, rel=1e-3)
    assert record["sources"][0]["licence"] == "CC0-1.0"
    assert record["downloads"] == []


def test_registered_files_that_moved_are_told(tmp_path, small_model):
    image = write_raster(tmp_path / "image.tif")
    assert run_cli("fetch", "--city", "lab", "--imagery", image, "--osm", "none").code == 0
    image.rename(tmp_path / "elsewhere.tif")
    outcome = run_cli("predict", "--city", "lab", "--no-osm", "--offline", "--model", small_model)
    assert outcome.code == 3
    assert "image.tif" in outcome.err
    assert "register it again" in outcome.err


def test_the_cache_is_listed_and_emptied(small_scene, registered):
    shown = run_cli("fetch", "--list", "--json")
    entries = json.loads(shown.out)["entries"]
    assert {entry["kind"] for entry in entries} == {"place", "imagery", "osm"}
    assert all({"licence", "date", "bytes", "source"} <= entry.keys() for entry in entries)
    table = run_cli("fetch", "--list").err
    assert "harbour_lab" in table.replace("\n", "")
    removed = run_cli("fetch", "--remove", "harbour_lab")
    assert removed.code == 0, removed.err
    assert Cache().entries() == []
    assert (small_scene / "ortho.tif").exists()
    again = run_cli("fetch", "--remove", "harbour_lab")
    assert again.code == 1
    assert "--list" in again.err


def test_damage_is_found(tmp_path):
    image = write_raster(tmp_path / "image.tif")
    assert run_cli("fetch", "--city", "lab", "--imagery", image, "--osm", "none").code == 0
    assert run_cli("fetch", "--verify").code == 0
    image.write_bytes(image.read_bytes()[:-1] + b"?")
    outcome = run_cli("fetch", "--verify")
    assert outcome.code == 3
    assert "image.tif" in outcome.err


def test_the_sample_is_there_in_any_spelling():
    planned = run_cli("predict", "--city", "Sample", "--dry-run", "--json", "--offline")
    assert planned.code == 0, planned.err
    record = json.loads(planned.out)
    assert record["out"] == "sample.gpkg"
    assert record["sources"][0]["simulated"] is True
    fetched = run_cli("fetch", "--city", " SAMPLE", "--offline")
    assert fetched.code == 0, fetched.err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ([], 2, "say what to fetch"),
        (["--city", "!"], 2, "letters or digits"),
        (["--bbox", "1,2,3"], 2, "four numbers"),
        (["--bbox", "24,60,24.1,60.1", "--aoi", "a.gpkg"], 2, "one area only"),
        (["--boundary", "Kamppi"], 2, "--city"),
        (["--city", "lab", "--imagery", "no.tif"], 1, "no.tif"),
        (["--city", "lab", "--osm", "no.osm.pbf"], 1, "no.osm.pbf"),
        (["--city", "lab", "--osm", "no.gpkg"], 2, "--bbox or --aoi"),
        (["--city", "sample", "--bbox", "24,60,24.1,60.1"], 2, "cannot be the name"),
        (["--city", "Helsinki", "--imagery", "sentinel2:2025"], 2, "two dates"),
        (["--bbox", "24,60,24.1,60.1", "--imagery", TILES], 2, "--accept-imagery-terms"),
        (["--verify", "--remove", "a"], 2, "one at a time"),
        (["--city", "Helsinki", "--overwrite", "--offline"], 2, "--offline forbids"),
        (["--model", "hf:nobody"], 2, "hf:owner/repo"),
        (["--city", "Helsinki", "--osm", "overpass", "--imagery", "simulated"], 2, "km2"),
    ],
    ids=str,
)
def test_what_cannot_be_fetched(arguments, code, word):
    outcome = run_cli("fetch", *arguments)
    assert outcome.code == code, outcome.err
    assert word in " ".join(outcome.err.replace("│", " ").split())
    assert "Traceback" not in outcome.err
    assert Cache().entries() == []
