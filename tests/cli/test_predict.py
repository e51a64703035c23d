"""What `geolink predict` promises, on a small image with a dozen OSM objects."""

import json
import os
import sqlite3

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from matplotlib.image import imread
from pyproj import Transformer
from shapely import box
from synthetic import CRS_35N, HEIGHT, NORTH, WEST, WIDTH, at, pixels, write_area, write_raster

import geolink
from geolink.errors import InputError
from geolink.gpkg import read_metadata
from geolink.legend import IGNORE, UFZ
from geolink.mosaic import TileStore
from geolink.sources.imagery import RasterImagery

SCENE = box(WEST, NORTH - HEIGHT, WEST + WIDTH, NORTH)
NUMBERS = ["confidence", "area_m2", "osm_objects", "osm_gain"]


def names(folder):
    """Everything in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def degrees(shape):
    """Bounds of a shape of the scene, as `--bbox` takes them."""
    to_degrees = Transformer.from_crs(CRS_35N, 4326, always_xy=True)
    return ",".join(f"{edge:.6f}" for edge in to_degrees.transform_bounds(*shape.bounds))


@pytest.fixture
def zones(mapped):
    return gpd.read_file(mapped[0] / "map.gpkg", layer="zones")


@pytest.fixture
def tiles(mapped):
    return gpd.read_file(mapped[0] / "map.gpkg", layer="tiles")


# The map


def test_the_run_ends_well_and_leaves_its_outputs_only(mapped):
    folder, outcome = mapped
    assert outcome.code == 0, outcome.err
    assert names(folder) == ["classes.tif", "map.gpkg", "preview.png", "probabilities.tif"]


def test_zones_tile_the_area(zones):
    assert zones.crs == CRS_35N
    assert zones.geometry.is_valid.all()
    assert set(zones.geom_type) == {"Polygon"}
    united = shapely.union_all(zones.geometry.to_numpy())
    assert zones.area.sum() == pytest.approx(united.area, abs=1e-3)
    assert shapely.area(shapely.symmetric_difference(united, SCENE)) < 0.01


def test_zones_say_what_they_are(zones):
    assert len(set(zones["class_id"])) > 1
    assert [UFZ.names[i] for i in zones["class_id"]] == zones["class_name"].tolist()
    assert np.isfinite(zones[NUMBERS].to_numpy(dtype=float)).all()
    assert zones["confidence"].between(1 / len(UFZ), 1).all()
    assert zones["osm_gain"].between(-1, 1).all()
    assert zones["osm_gain"].abs().max() > 0
    np.testing.assert_allclose(zones["area_m2"], zones.area, rtol=1e-6)
    assert zones["osm_objects"].sum() >= 12
    assert zones["area_m2"].min() >= 400  # 500 m2 less what simplification may take


def test_tiles_say_what_became_of_them(tiles):
    assert len(tiles) == 4
    assert set(tiles["status"]) == {"ok"}
    first = tiles.iloc[0]
    assert (first["point_nodes"], first["line_nodes"], first["polygon_nodes"]) == (2, 2, 7)
    np.testing.assert_allclose(first.geometry.bounds, (WEST, NORTH - 224, WEST + 224, NORTH))


def test_qgis_finds_a_style_for_each_layer(mapped):
    with sqlite3.connect(mapped[0] / "map.gpkg") as database:
        styles = dict(database.execute("SELECT f_table_name, styleQML FROM layer_styles"))
    assert set(styles) == {"zones", "tiles"}
    assert all(f'label="{name}"' in styles["zones"] for name in UFZ.names)


def test_the_metadata_is_complete(mapped, small_model):
    card = json.loads((small_model / "card.json").read_text())
    record = read_metadata(mapped[0] / "map.gpkg")
    assert record["software"] == f"geolink {geolink.__version__}"
    assert record["model"] == {"name": "untrained", "sha256": card["sha256"]}
    assert record["imagery"]["description"] == "ortho.tif"
    assert record["imagery"]["date"] == "2024-05-31"
    assert record["osm"]["description"] == "osm.gpkg"
    assert record["osm"]["licence"] == "ODbL-1.0"
    assert "date" in record["osm"]
    assert record["simulated_imagery"] is False
    assert record["request"]["imagery"] == "ortho.tif"
    assert record["request"]["overlap"] == 0.25
    assert record["seed"] == 0
    assert "simulated" not in record["title"].lower()
    for layer in ("zones", "tiles"):
        assert (
            "GEOLINK" in pyogrio.read_info(mapped[0] / "map.gpkg", layer=layer)["dataset_metadata"]
        )


def test_rasters_are_cogs_that_agree(mapped):
    with rasterio.open(mapped[0] / "classes.tif") as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.nodata == IGNORE
        assert {i: raster.colormap(1)[i][:3] for i in range(len(UFZ))} == {
            c.id: c.rgb for c in UFZ.classes
        }
        assert raster.bounds == SCENE.bounds
        classes = raster.read(1)
    with rasterio.open(mapped[0] / "probabilities.tif") as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.descriptions == UFZ.names
        chances = raster.read() * raster.scales[0]
    assert len(np.unique(classes)) > 1
    np.testing.assert_allclose(chances.sum(axis=0), 1, atol=0.02)
    own = np.take_along_axis(chances, classes[None].astype(int), axis=0)[0]
    assert (own >= chances.max(axis=0) - 1e-6).all()


def test_the_preview_is_a_picture(mapped):
    picture = imread(mapped[0] / "preview.png", format="png")
    assert min(picture.shape[:2]) > 300


# What the terminal shows


def test_json_is_one_object_and_the_rest_is_elsewhere(mapped, zones):
    outcome = mapped[1]
    assert outcome.out.count("\n") == 1
    record = json.loads(outcome.out)
    assert record["tiles"] == {"ok": 4}
    assert record["simulated"] is False
    assert sum(c["zones"] for c in record["classes"]) == len(zones)
    assert sum(c["area_m2"] for c in record["classes"]) == pytest.approx(SCENE.area, rel=1e-6)
    assert "map.gpkg" in outcome.err
    assert "SIMULATED" not in outcome.err


def test_without_json_stdout_stays_empty_and_quiet_says_nothing(tmp_path, predict):
    area = degrees(box(*at(20, 60), *at(60, 20)))
    loud = predict(tmp_path, "--bbox", area, "--out", "loud.gpkg")
    assert (loud.code, loud.out) == (0, "")
    assert "loud.gpkg" in loud.err
    assert "confidence" in loud.err
    quiet = predict(tmp_path, "--bbox", area, "--out", "quiet.gpkg", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path, predict, all_outputs):
    outcome = predict(tmp_path, *all_outputs, "--dry-run", "--json")
    assert outcome.code == 0
    plan = json.loads(outcome.out)
    assert plan["tiles"] == 4
    assert (plan["height"], plan["width"]) == (HEIGHT, WIDTH)
    assert plan["out"] == "map.gpkg"
    assert [source["description"] for source in plan["sources"]] == ["ortho.tif", "osm.gpkg"]
    assert "nothing written" in outcome.err
    table = predict(tmp_path, "--dry-run")
    assert "ODbL-1.0" in table.err
    assert "tiles" in table.err
    assert names(tmp_path) == []


def test_the_output_is_named_after_the_place(tmp_path, predict):
    assert json.loads(predict(tmp_path, "--dry-run", "--json").out)["out"] == "ortho.gpkg"
    write_area(tmp_path / "Old Town.geojson", box(*at(20, 60), *at(60, 20)))
    named = predict(tmp_path, "--aoi", "Old Town.geojson", "--dry-run", "--json")
    assert json.loads(named.out)["out"] == "Old_Town.gpkg"


# Settings


def test_a_file_sets_defaults_and_the_command_line_wins(tmp_path, predict):
    settings = 'out = "mine.gpkg"\nmin-zone-area = 10.0\ngsd = 0.5\njson = true\n'
    (tmp_path / "run.toml").write_text(settings)
    plan = json.loads(predict(tmp_path, "--config", "run.toml", "--dry-run").out)
    assert (plan["out"], plan["gsd"]) == ("mine.gpkg", 0.5)
    plan = json.loads(predict(tmp_path, "--config", "run.toml", "--gsd", "2", "--dry-run").out)
    assert (plan["out"], plan["gsd"]) == ("mine.gpkg", 2.0)


@pytest.mark.parametrize(
    ("text", "named"),
    [("tile-size = 3", "tile-size"), ("gsd = ", "TOML"), ("gsd = 'fine'", "--gsd"), (None, "TOML")],
)
def test_a_file_with_anything_else_is_refused(tmp_path, predict, text, named):
    if text is not None:
        (tmp_path / "run.toml").write_text(text)
    outcome = predict(tmp_path, "--config", "run.toml", "--dry-run")
    assert outcome.code == 2
    assert named in outcome.err


def test_existing_outputs_are_kept_unless_told_otherwise(tmp_path, predict):
    area = ["--bbox", degrees(box(*at(20, 60), *at(60, 20)))]
    (tmp_path / "map.gpkg").write_text("mine")
    refused = predict(tmp_path, *area, "--out", "map.gpkg")
    assert refused.code == 1
    assert "map.gpkg exists" in refused.err
    assert (tmp_path / "map.gpkg").read_text() == "mine"
    assert names(tmp_path) == ["map.gpkg"]
    assert predict(tmp_path, *area, "--out", "map.gpkg", "--overwrite").code == 0
    assert len(gpd.read_file(tmp_path / "map.gpkg", layer="tiles")) == 1


def test_an_input_is_never_overwritten(tmp_path, predict):
    image = write_raster(tmp_path / "ortho.tif")
    before = image.read_bytes()
    outcome = predict(tmp_path, "--raster", "ortho.tif", "--overwrite", imagery=image)
    assert outcome.code == 1
    assert "is an input" in outcome.err
    assert image.read_bytes() == before
    area = write_area(tmp_path / "area.gpkg", box(*at(20, 60), *at(60, 20)))
    outcome = predict(tmp_path, "--aoi", area, "--overwrite")
    assert outcome.code == 1
    assert "area.gpkg is an input" in outcome.err


# The same inputs give the same bytes


@pytest.mark.parametrize(
    "options",
    [["--batch-size", "1", "--workers", "0"], ["--batch-size", "4", "--no-resume"]],
    ids=" ".join,
)
def test_how_it_is_computed_does_not_show(tmp_path, predict, mapped, all_outputs, options):
    assert predict(tmp_path, *all_outputs, *options).code == 0
    assert_same_files(tmp_path, mapped[0])


def test_neither_the_order_of_tiles_nor_the_threads_show(
    tmp_path, monkeypatch, predict, mapped, all_outputs
):
    pending = TileStore.pending
    monkeypatch.setattr(TileStore, "pending", lambda *given: pending(*given)[::-1])
    before = torch.get_num_threads()
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        assert predict(tmp_path, *all_outputs, "--batch-size", "32").code == 0
    finally:
        torch.set_num_threads(before)
    assert_same_files(tmp_path, mapped[0])


def test_the_library_does_what_the_command_does(
    tmp_path, monkeypatch, mapped, small_scene, small_model
):
    monkeypatch.chdir(tmp_path)
    stages = []
    result = geolink.predict(
        imagery=small_scene / "ortho.tif",
        osm=str(small_scene / "osm.gpkg"),
        model=small_model,
        out="map.gpkg",
        raster="classes.tif",
        probabilities="probabilities.tif",
        preview="preview.png",
        progress=lambda *stage: stages.append(stage),
    )
    assert_same_files(tmp_path, mapped[0])
    assert {name for name, _, _ in stages} == {"tiles", "outputs"}
    assert ("tiles", 4, 4) in stages
    told = json.loads(mapped[1].out)
    own = json.loads(json.dumps(result.to_dict()))
    assert own["stages"]["busy"].keys() == told["stages"]["busy"].keys()
    timed = {"seconds": 0, "stages": None}
    assert own | timed == told | timed


def assert_same_files(one, other):
    """Both folders hold the four outputs, equal to the byte, and no debris."""
    left = [name for name in names(one) if not name.endswith(".aux.xml")]  # made by GDAL's reader
    assert left == ["classes.tif", "map.gpkg", "preview.png", "probabilities.tif"]
    for name in left:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


# Other inputs


def test_without_osm_the_image_alone_is_mapped(tmp_path, predict):
    outcome = predict(tmp_path, "--no-osm", "--json", "--out", "map.gpkg", osm="none")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["tiles"] == {"no_osm": 4}
    zones = gpd.read_file(tmp_path / "map.gpkg", layer="zones")
    assert zones.area.sum() == pytest.approx(SCENE.area, rel=1e-6)
    assert not zones["osm_objects"].any()
    assert not zones["osm_gain"].any()
    assert read_metadata(tmp_path / "map.gpkg")["osm"] is None


def test_simulated_imagery_is_said_everywhere(tmp_path, predict):
    area = degrees(box(*at(100, 140), *at(200, 40)))
    outcome = predict(
        tmp_path,
        *("--bbox", area, "--seed", "3", "--out", "map.gpkg", "--raster", "map.tif", "--json"),
        imagery="simulated",
    )
    assert outcome.code == 0, outcome.err
    assert "SIMULATED" in outcome.err.splitlines()[-1]
    told = json.loads(outcome.out)
    assert told["simulated"] is True
    with rasterio.open(tmp_path / "map.tif") as raster:
        tagged = json.loads(raster.tags()["GEOLINK"])
    for record in (told["metadata"], read_metadata(tmp_path / "map.gpkg"), tagged):
        assert "simulated" in record["title"]
        assert record["simulated_imagery"] is True
        assert record["imagery"]["simulated"] is True
        assert record["seed"] == 3


def test_zones_leave_out_what_has_no_image(tmp_path, predict):
    image = pixels(200, 600)
    image[:, :, 300:] = 0
    path = write_raster(tmp_path / "half.tif", image, nodata=0)
    outcome = predict(tmp_path, "--json", "--out", "map.gpkg", imagery=path)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["tiles"] == {"no_image": 2, "ok": 2}
    zones = gpd.read_file(tmp_path / "map.gpkg", layer="zones")
    seen = box(WEST, NORTH - 200, WEST + 300, NORTH)
    united = shapely.union_all(zones.geometry.to_numpy())
    assert shapely.area(shapely.symmetric_difference(united, seen)) < 2 * 200  # two columns
    tiles = gpd.read_file(tmp_path / "map.gpkg", layer="tiles")
    assert tiles["status"].tolist() == ["ok", "ok", "no_image", "no_image"]


# Tiles that fail


@pytest.fixture
def reads(monkeypatch):
    """West edges of the tiles read so far; the image is unreadable in the second column."""
    seen, read = [], RasterImagery.read

    def unreliable(imagery, grid):
        if grid.shape == (224, 224):
            seen.append(grid.west - WEST)
            if seen.broken and grid.west > WEST:
                raise InputError("ortho.tif cannot be read as a raster here")
        return read(imagery, grid)

    class Reads(list):
        broken = True

    seen = Reads()
    monkeypatch.setattr(RasterImagery, "read", unreliable)
    return seen


def test_failed_tiles_are_told_and_tried_again(tmp_path, predict, mapped, all_outputs, reads):
    outcome = predict(tmp_path, *all_outputs, "--json")
    assert outcome.code == 4
    assert json.loads(outcome.out)["tiles"] == {"failed": 2, "ok": 2}
    assert "2 tiles FAILED" in outcome.err
    tiles = gpd.read_file(tmp_path / "map.gpkg", layer="tiles")
    assert tiles["status"].tolist() == ["ok", "failed", "ok", "failed"]
    assert tiles["message"][1] == "ortho.tif cannot be read as a raster here"
    zones = gpd.read_file(tmp_path / "map.gpkg", layer="zones")
    assert zones.area.sum() == pytest.approx(224 * HEIGHT, rel=0.02)

    reads.clear()
    reads.broken = False
    outcome = predict(tmp_path, *all_outputs, "--workers", "0")
    assert outcome.code == 0, outcome.err
    assert reads == [168.0, 168.0]
    assert_same_files(tmp_path, mapped[0])


def test_a_map_with_failures_that_was_changed_since_is_kept(tmp_path, predict, reads):
    assert predict(tmp_path, "--out", "map.gpkg").code == 4
    with (tmp_path / "map.gpkg").open("ab") as file:
        file.write(b"mine")
    outcome = predict(tmp_path, "--out", "map.gpkg")
    assert outcome.code == 1
    assert "map.gpkg exists" in outcome.err


def test_a_damaged_block_of_a_raster_costs_the_tiles_that_need_it(tmp_path, predict):
    # A smaller raster is read as a whole when it is opened, and refused.
    profile = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    image = write_raster(tmp_path / "a.tif", pixels(2100, 2100), **profile)
    with rasterio.open(image) as raster:
        offset = int(raster.get_tag_item("BLOCK_OFFSET_10_0", "TIFF", bidx=1))
    whole, times = image.read_bytes(), image.stat()
    image.write_bytes(whole[:offset] + b"\xff" * 40 + whole[offset + 40 :])
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    area = degrees(box(*at(10, 210), *at(690, 10)))
    command = ["--bbox", area, "--out", "map.gpkg", "--json"]
    outcome = predict(tmp_path, *command, imagery=image)
    assert outcome.code == 4, outcome.err
    tiles = gpd.read_file(tmp_path / "map.gpkg", layer="tiles")
    assert tiles["status"].iloc[[0, -1]].tolist() == ["ok", "failed"]
    assert "a.tif cannot be read" in tiles["message"].iloc[-1]

    image.write_bytes(whole)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    outcome = predict(tmp_path, *command, imagery=image)
    assert outcome.code == 0, outcome.err
    assert set(json.loads(outcome.out)["tiles"]) <= {"ok", "no_osm"}


def test_a_map_of_failed_tiles_only_is_no_map(tmp_path, predict, reads):
    area = degrees(box(*at(240, 60), *at(280, 20)))
    reads.broken = True
    outcome = predict(tmp_path, "--bbox", area, "--out", "map.gpkg")
    assert outcome.code == 1
    assert "ortho.tif cannot be read" in outcome.err
    assert names(tmp_path) == []
