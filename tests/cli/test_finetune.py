"""`geolink finetune` on every kind of labels, and on input that cannot be used."""

import json
import signal
import subprocess
import sys
import time

import geopandas as gpd
import numpy as np
import pytest
import torch
from labelled_folders import (
    SIDE,
    noise,
    write_changes,
    write_classes,
    write_picture,
    write_segments,
    write_values,
)
from shapely import Point, box
from synthetic import at, run_cli, start_cli, write_model, write_raster

from geolink.checkpoint import load_model
from geolink.legend import UFZ
from geolink_cli.app import __file__ as app_file

FAST = ("--epochs", "2", "--workers", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model for small pictures."""
    folder = tmp_path_factory.mktemp("base") / "small"
    return write_model(folder, image_size=SIDE, dropout=0.0)  # which processes would draw apart


@pytest.fixture(scope="module")
def finetune(base):
    """`finetune(folder, *options)`: two epochs, with the run in `folder`/run."""

    def run(folder, *options, model=base):
        given = ["--model", model, *FAST, *options]
        return run_cli(
            "finetune", *given, *([] if "--out" in options else ["--out", "run"]), cwd=folder
        )

    return run


@pytest.fixture(scope="module")
def scene(small_scene):
    """Options that name the made-up scene of four tiles."""
    return ["--imagery", small_scene / "ortho.tif", "--osm", small_scene / "osm.gpkg"]


def record(outcome):
    """What a run said on stdout."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def refused(outcome, code, *words):
    assert outcome.code == code, (outcome.err, outcome.out)
    assert "Traceback" not in outcome.err
    said = " ".join(outcome.err.replace("│", " ").split())
    assert all(word in said for word in words), said
    if code != 2:
        assert outcome.err.count("error: ") == 1, outcome.err


def polygons(path, classes=("homes", "park"), column="class", **columns):
    """The west of the scene is of the first class, the east of the second."""
    boxes = [box(*at(0, 260), *at(150, 0)), box(*at(150, 260), *at(300, 0))][: len(classes)]
    frame = gpd.GeoDataFrame({column: list(classes), **columns}, geometry=boxes, crs=32635)
    (frame if path.suffix == ".gpkg" else frame.to_crs(4326)).to_file(path)
    return path


class TestPictures:
    def test_scenes_are_classified(self, tmp_path, finetune):
        data = write_classes(tmp_path / "scenes")
        options = ["--task", "classify", "--data", data, "--epochs", "8", "--rates", "0.003"]
        found = record(finetune(tmp_path, *options, "--json"))
        assert found["classes"] == ["dark", "light"]
        assert found["samples"] == {"train": 10, "validation": 2, "test": 8}
        assert found["test"]["accuracy"] > 0.8
        assert json.loads((tmp_path / "run" / "finetune.json").read_text())["test"] == found["test"]
        card = load_model(tmp_path / "run").card
        assert card.config.task == "classify"
        assert card.metrics["test_accuracy"] == found["test"]["accuracy"]
        assert (
            "fine-tuning (full) to classify on 10 images with labels: scenes" in card.training_data
        )
        assert card.licence == "MIT"

    @pytest.mark.parametrize("mode", ["frozen", "lora"])
    def test_modes_end_in_plain_weights(self, tmp_path, base, finetune, mode):
        data = write_segments(tmp_path / "set")
        outcome = finetune(tmp_path, "--data", data, "--mode", mode, "--class-weights", "sqrt")
        assert outcome.code == 0, outcome.err
        assert "miou" in outcome.err
        before, after = load_model(base).state_dict(), load_model(tmp_path / "run").state_dict()
        assert before.keys() == after.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        encoders = {name for name in changed if not name.startswith("decoder.")}
        assert changed - encoders
        assert bool(encoders) == (mode == "lora")
        assert all(".blocks." in name for name in encoders)

    def test_numbers_are_predicted(self, tmp_path, finetune):
        data = write_values(tmp_path / "set")
        found = record(finetune(tmp_path, "--task", "regress", "--data", data, "--json"))
        assert found["classes"] == ["brightness"]
        assert set(found["test"]) == {"r2", "rmse", "mae"}
        assert found["validation"]["r2"] is None  # one sample

    def test_changes_are_found(self, tmp_path, finetune):
        data = write_changes(tmp_path / "set")
        found = record(finetune(tmp_path, "--task", "change", "--data", data, "--json"))
        assert found["classes"] == ["unchanged", "changed"]
        assert {"miou", "iou.changed"} <= set(found["test"])

    def test_of_several_rates_the_best_is_kept(self, tmp_path, finetune):
        data = write_classes(tmp_path / "scenes")
        options = ["--task", "classify", "--data", data, "--rates", "1e-7,0.003", "--json"]
        found = record(finetune(tmp_path, *options, "--epochs", "5"))
        assert found["trials"].keys() == {"1e-07", "0.003"}
        assert found["trials"]["0.003"] == max(found["trials"].values())
        assert found["rate"] == (0.003 if len(set(found["trials"].values())) > 1 else 1e-7)
        refused(finetune(tmp_path, *options), 1, "holds a run", "--resume")
        again = record(finetune(tmp_path, *options, "--epochs", "5", "--resume"))
        assert again["test"] == found["test"]

    def test_a_mapping_names_the_numbers(self, tmp_path, finetune):
        data = write_segments(tmp_path / "set", numbers=(3, 7))
        (tmp_path / "names.csv").write_text("value,class\n3,Field\n7,Town\n")
        options = ["--data", data, "--label-mapping", tmp_path / "names.csv", "--json"]
        assert record(finetune(tmp_path, *options))["classes"] == ["Field", "Town"]

    def test_few_labels_are_balanced(self, tmp_path, finetune):
        data = write_classes(tmp_path / "scenes")
        options = ["--task", "classify", "--data", data, "--fraction", "0.4", "--json"]
        record(finetune(tmp_path, *options))
        split = json.loads((tmp_path / "run" / "split.json").read_text())
        assert sorted(key.split("/")[0] for key in split["train"]) == ["dark"] * 2 + ["light"] * 2


class TestPlaces:
    def test_polygons_of_own_classes_make_a_map(self, tmp_path, small_model, finetune, scene):
        labels = polygons(tmp_path / "zones.geojson")  # in degrees
        options = [*scene, "--labels", labels, "--split", "random", "--mode", "frozen"]
        found = record(finetune(tmp_path, *options, "--json", model=small_model))
        assert found["classes"] == ["homes", "park"]
        assert not found["simulated"]
        outcome = run_cli("predict", *scene, "--model", "run", "--out", "map.gpkg", cwd=tmp_path)
        assert outcome.code == 0, outcome.err
        zones = gpd.read_file(tmp_path / "map.gpkg", layer="zones")
        assert set(zones["class_name"]) <= {"homes", "park"}
        # Our own maps are labels in turn; here one that has both classes.
        drawn = gpd.read_file(labels).rename(columns={"class": "class_name"}).to_crs(zones.crs)
        drawn.to_file(tmp_path / "map.gpkg", layer="zones")
        options = ["--labels", "map.gpkg", "--split", "random", "--out", "again"]
        again = record(finetune(tmp_path, *scene, *options, "--json", model=tmp_path / "run"))
        assert set(again["classes"]) == {"homes", "park"}

    def test_objects_are_painted_from_then_on(self, tmp_path, small_model, finetune, scene):
        labels = polygons(tmp_path / "zones.gpkg")
        options = [*scene, "--labels", labels, "--split", "random", "--mode", "frozen"]
        record(finetune(tmp_path, *options, "--paint-objects", "--json", model=small_model))
        painting = load_model(tmp_path / "run")
        assert painting.config.paint_objects
        assert painting.fusion.painting.mix.weight.abs().max() > 0
        outcome = run_cli("predict", *scene, "--model", "run", "--out", "map.gpkg", cwd=tmp_path)
        assert outcome.code == 0, outcome.err
        options += ["--epochs", "1", "--out", "again", "--json"]
        record(finetune(tmp_path, *options, model=tmp_path / "run"))
        assert load_model(tmp_path / "again").config.paint_objects

    def test_osm_labels_are_weak_and_simulated_images_are_named(self, tmp_path, small_model):
        options = ["--bbox", "24.93,60.165,24.945,60.173", "--imagery", "simulated"]
        options += ["--osm", _helsinki(), "--gsd", "1.5", "--labels", "osm", "--split", "random"]
        options += ["--mode", "frozen", "--epochs", "1", "--workers", "0", "--model", small_model]
        outcome = run_cli("finetune", *options, "--out", "run", cwd=tmp_path)
        assert outcome.code == 0, outcome.err
        assert "SIMULATED" in outcome.err
        card = load_model(tmp_path / "run").card
        assert card.legend == UFZ
        assert "simulated orthophotos with OSM's own zones" in card.training_data
        assert "ODbL" in card.training_data

    def test_cities_at_several_scales_are_learned_tried_and_tested(self, tmp_path, small_model):
        cuts = ["--extract", _helsinki(), "--cities", "sample", "--gsd", "4", "--gsd", "8"]
        cuts += ["--tiles", "2", "--tile-side", "64", "--keep-samples"]
        options = ["--labels", "osm", "--model", small_model, "--out", "run", *FAST]
        options += ["--test-cities", "sample", "--batch-size", "2", "--mode", "frozen"]
        options += ["--appearance", "strong", "--drop-image", "0.2", "--half", "--json"]
        found = record(run_cli("finetune", *cuts, *options, cwd=tmp_path))
        assert found["samples"]["test"] == 4
        assert found["temperature"] > 0
        assert load_model(tmp_path / "run").card.half
        assert len(list((tmp_path / "run" / "samples").glob("*.npz"))) > 4

    def test_class_rasters(self, tmp_path, small_model, finetune, scene):
        classes = np.repeat([[[1] * 150 + [2] * 150]], 260, axis=1).astype(np.uint8)
        write_raster(tmp_path / "classes.tif", classes)
        (tmp_path / "names.csv").write_text("value,class\n1,Residential\n2,green\n")
        options = [*scene, "--labels", "classes.tif", "--label-mapping", "names.csv"]
        options += ["--split", "random", "--mode", "frozen", "--epochs", "1"]
        found = record(finetune(tmp_path, *options, "--json", model=small_model))
        assert found["classes"] == list(UFZ.names)  # the model knows both

    @pytest.mark.parametrize("suffix", [".csv", ".gpkg"])
    def test_cells_have_numbers(self, tmp_path, small_model, finetune, scene, suffix):
        centres = [at(150 + 5 * i, 130) for i in range(-6, 7)]
        frame = gpd.GeoDataFrame(
            {"pop": np.arange(13.0) ** 2}, geometry=[Point(c) for c in centres], crs=32635
        )
        path = tmp_path / f"cells{suffix}"
        if suffix == ".csv":
            degrees = frame.to_crs(4326)
            frame["lon"], frame["lat"] = degrees.geometry.x, degrees.geometry.y
            frame.drop(columns="geometry").to_csv(path)
        else:
            frame.to_file(path)
        options = [*scene, "--task", "regress", "--labels", path, "--label-column", "pop"]
        options += ["--split", "random", "--mode", "frozen", "--epochs", "1", "--json"]
        found = record(finetune(tmp_path, *options, model=small_model))
        assert found["samples"] == {"train": 6, "validation": 2, "test": 5}
        outcome = run_cli("predict", *scene, "--model", "run", "--out", "map.gpkg", cwd=tmp_path)
        refused(outcome, 1, "regress", "no map")


def _helsinki():
    from geolink.sources.places import sample_extract

    return sample_extract()


class TestBadInput:
    def test_nothing_is_left_of_a_request_that_is_refused(self, tmp_path, finetune):
        write_classes(tmp_path / "scenes", count=1)
        outcome = finetune(tmp_path, "--task", "classify", "--data", "scenes", "--labels", "x")
        outcome = finetune(tmp_path, "--data", "scenes")
        refused(outcome, 1, "no folder img", "it has dark, light")
        assert [path.name for path in tmp_path.iterdir()] == ["scenes"]

    @pytest.mark.parametrize(
        ("options", "code", "words"),
        [
            ([], 2, ["folder of pictures"]),
            (["--data", "nowhere"], 1, ["nowhere does not exist"]),
            (["--data", "set", "--city", "sample"], 2, ["not both"]),
            (["--data", "set", "--split", "blocks"], 1, ["no place on the ground"]),
            (["--data", "set", "--split", "none.json"], 1, ["none.json"]),
            (["--data", "set/img", "--task", "classify"], 1, ["0 folders of pictures"]),
            (["--data", "set", "--task", "regress"], 1, ["values.csv"]),
            (["--data", "set", "--task", "change"], 1, ["no folder A", "img, label"]),
            (["--data", "set", "--rates", "0"], 2, ["positive"]),
            (["--data", "set", "--rates", "fast"], 2, ["not a list of numbers"]),
            (["--data", "set", "--fraction", "1.5"], 2, ["0..1"]),
            (["--data", "set", "--batch-size", "99"], 2, ["fewer than a batch of 99"]),
            (["--data", "set", "--out", "no/run"], 1, ["no does not exist"]),
            (["--data", "set", "--resume", "--overwrite"], 2, ["choose one"]),
            (["--data", "set", "--model", "geolink-giant"], 3, ["geolink-giant"]),
            (["--data", "set", "--test-cities", "Rome"], 1, ["no city 'Rome'"]),
            (["--city", "sample"], 2, ["--labels"]),
            (["--city", "sample", "--labels", "none.gpkg"], 1, ["none.gpkg does not exist"]),
            (["--city", "sample", "--labels", "osm", "--osm", "none"], 2, ["need OSM"]),
            (["--city", "sample", "--labels", "osm", "--task", "regress"], 2, ["--label-column"]),
            (["--city", "sample", "--labels", "x", "--task", "change"], 2, ["--data"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else None,
    )
    def test_options_that_cannot_be_met(self, tmp_path, finetune, options, code, words):
        write_segments(tmp_path / "set", count=4)
        refused(finetune(tmp_path, *options), code, *words)

    def test_numbers_without_a_class(self, tmp_path, finetune):
        write_segments(tmp_path / "set", numbers=(1, 12))
        outcome = finetune(tmp_path, "--data", "set")
        refused(outcome, 1, "set/label/", "'12'", "mapping file")
        outcome = finetune(tmp_path, "--data", "set", "--ignore", "12")
        refused(outcome, 1, "'green' only", "two or more")
        outcome = finetune(tmp_path, "--data", "set", "--ignore", "1,12")
        refused(outcome, 1, "no labels", "ignored")

    def test_pictures_that_are_none(self, tmp_path, finetune):
        write_segments(tmp_path / "set", count=6)
        (tmp_path / "set" / "img" / "3.png").write_bytes(b"no picture")
        refused(finetune(tmp_path, "--data", "set"), 1, "3.png", "not a readable picture")
        write_picture(tmp_path / "set" / "img" / "3.png", noise(3, 90))
        write_picture(tmp_path / "set" / "label" / "3.png", noise(3, 90))
        outcome = finetune(tmp_path, "--data", "set", "--overwrite")
        refused(outcome, 1, "3.png", "has colours")

    @pytest.mark.parametrize(
        ("classes", "options", "words"),
        [
            (["a", "b"], ["--label-column", "use"], ["no column 'use'", "class"]),
            (["a", "b"], ["--label-mapping", "names.csv"], ["not known: 'b'", "mapping names.csv"]),
            (["a"], [], ["'a' only"]),
            (["a", "b"], ["--ignore", "a,b"], ["no class but ignored"]),
            (["a", "b"], ["--split", "blocks"], ["blocks", "at least three"]),
        ],
    )
    def test_polygons_that_cannot_be_learned(
        self, tmp_path, small_model, finetune, scene, classes, options, words
    ):
        polygons(tmp_path / "zones.gpkg", classes)
        (tmp_path / "names.csv").write_text("value,class\na,one\n")
        split = [] if "--split" in options else ["--split", "random"]
        outcome = finetune(
            tmp_path, *scene, "--labels", "zones.gpkg", *options, *split, model=small_model
        )
        refused(outcome, 1, *words)
        assert not (tmp_path / "run").exists()

    def test_labels_elsewhere(self, tmp_path, small_model, finetune, scene):
        far = gpd.GeoDataFrame({"class": ["a"]}, geometry=[box(10, 10, 11, 11)], crs=4326)
        far.to_file(tmp_path / "far.gpkg")
        outcome = finetune(tmp_path, *scene, "--labels", "far.gpkg", model=small_model)
        refused(outcome, 1, "far.gpkg does not meet the imagery")
        with pytest.warns(UserWarning, match="crs"):
            far.set_crs(None, allow_override=True).to_file(tmp_path / "bare.gpkg")
        outcome = finetune(tmp_path, *scene, "--labels", "bare.gpkg", model=small_model)
        refused(outcome, 1, "bare.gpkg has no coordinate reference system")

    @pytest.mark.parametrize(
        ("rows", "words"),
        [
            ("lon,lat,pop\n24.94,60.17,\n", ["1 of 1 cells", "no number in 'pop'"]),
            ("lon,lat,pop\n24.94,60.17,nan\n", ["no number"]),
            ("lon,lat,people\n24.94,60.17,1\n", ["no column 'pop'"]),
            ("x,y,pop\n24.94,60.17,1\n", ["no column 'lon'"]),
            ("lon,lat,pop\n385600,6671900,1\n", ["not degrees"]),
            ("lon,lat,pop\n0,0,1\n", ["lies within"]),
        ],
    )
    def test_cells_that_cannot_be_learned(
        self, tmp_path, small_model, finetune, scene, rows, words
    ):
        (tmp_path / "cells.csv").write_text(rows)
        options = ["--task", "regress", "--labels", "cells.csv", "--label-column", "pop"]
        refused(finetune(tmp_path, *scene, *options, model=small_model), 1, *words)

    def test_lora_without_peft(self, tmp_path, finetune, monkeypatch):
        write_segments(tmp_path / "set")
        monkeypatch.setitem(sys.modules, "peft", None)
        outcome = finetune(tmp_path, "--data", "set", "--mode", "lora")
        refused(outcome, 3, "pip install geolink[lora]")

    def test_a_run_goes_on_with_its_own_settings_only(self, tmp_path, finetune):
        write_segments(tmp_path / "set")
        assert finetune(tmp_path, "--data", "set").code == 0
        refused(finetune(tmp_path, "--data", "set"), 1, "holds a run", "--overwrite")
        outcome = finetune(tmp_path, "--data", "set", "--resume", "--focal", "2")
        refused(outcome, 2, "focal 0.0, not 2.0")
        (tmp_path / "run" / "best.pt").write_bytes(b"broken")
        refused(finetune(tmp_path, "--data", "set", "--resume"), 1, "best.pt cannot be read")
        assert finetune(tmp_path, "--data", "set", "--overwrite", "--focal", "2").code == 0


class TestLongRuns:
    options = ("--task", "classify", "--data", "scenes", "--split", "random", "--epochs", "9")

    def weights(self, run):
        return (run / "model.safetensors").read_bytes()

    def test_a_killed_run_ends_with_the_same_weights(self, tmp_path, base, finetune):
        write_classes(tmp_path / "scenes")
        options = [*self.options, "--patience", "0"]
        common = ["--model", base, "--workers", "0", "--device", "cpu", "--save-every", "3"]
        process = start_cli("finetune", *options, *common, "--out", "cut", cwd=tmp_path)
        while not (tmp_path / "cut" / "state.pt").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "cut" / "model.safetensors").exists()
        outcome = finetune(tmp_path, *options, "--out", "cut", "--resume", "--save-every", "3")
        assert outcome.code == 0, outcome.err
        assert finetune(tmp_path, *options, "--out", "whole").code == 0
        assert self.weights(tmp_path / "cut") == self.weights(tmp_path / "whole")

    def test_patience_ends_a_run_that_gets_no_better(self, tmp_path, finetune):
        write_classes(tmp_path / "scenes")
        options = [*self.options, "--epochs", "40", "--patience", "2", "--json"]
        found = record(finetune(tmp_path, *options))
        known = json.loads((tmp_path / "run" / "validation.json").read_text())
        assert known["epoch"] == found["epoch"] + 2 < 40
        assert record(finetune(tmp_path, *options, "--resume"))["test"] == found["test"]

    def test_two_processes_do_what_one_does(self, tmp_path, base, finetune):
        write_segments(tmp_path / "set", count=16)
        options = ["--data", "set", "--mode", "lora", "--epochs", "2", "--batch-size", "4"]
        given = ["finetune", *options, "--model", base, "--workers", "0", "--device", "cpu"]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command += ["--standalone", app_file, *map(str, given), "--out", "two", "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        two = json.loads(done.stdout)
        one = record(finetune(tmp_path, *options, "--out", "one", "--json"))
        assert one["test"]["miou"] == pytest.approx(two["test"]["miou"], abs=2e-3)
        first, second = (
            load_model(tmp_path / name).decoder.classify.weight for name in ("one", "two")
        )
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
