"""What a model becomes by fine-tuning, measured where it learned and elsewhere."""

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from shapely import box
from synthetic import CRS_35N, write_model

from geolink.errors import ConfigError, CoverageError, InputError
from geolink.metrics.tally import vector
from geolink.reports.files import load_report, report_record
from geolink.sources.cache import Cache
from geolink.workflows.evaluate import evaluate
from geolink.workflows.fetch import fetch

SIDE = 64
QUICK = {"device": "cpu", "offline": True, "draws": 20, "workers": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model for pictures of 64 pixels."""
    return write_model(tmp_path_factory.mktemp("small") / "model", image_size=SIDE)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Dark and bright pictures in folders."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("bright", 210)):
        (folder / name).mkdir()
        for i in range(10):
            pixels = level + rng.integers(-25, 25, (SIDE, SIDE, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def cities(small_scene, tmp_path, monkeypatch):
    """Names of two places that the cache has; they have the same ground."""
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    for name in ("east", "west"):
        files = {"imagery": small_scene / "ortho.tif", "osm": small_scene / "osm.gpkg"}
        fetch(city=name, offline=True, **files)
    assert Cache().entries()
    return "east", "west"


def test_a_head_learns_and_is_asked_about_what_it_has_not_seen(scenes, model, tmp_path):
    settings = {"data": scenes, "model": model, "protocol": "finetune", "task": "classify", **QUICK}
    settings |= {"mode": "frozen", "epochs": 3, "seeds": 2}
    report = evaluate(**settings, report=tmp_path / "report").report
    assert report.measures == "classification"
    assert report.legend.names == ("bright", "dark")
    accuracy = report.main.figures["accuracy"]
    assert len(accuracy.runs) == 2
    assert accuracy.value > 0.9
    assert report.main.whole.confusion.counts.sum() == 2 * 8  # 40 % of 20 pictures, twice
    assert report.settings["mode"] == "frozen"
    assert report_record(load_report(tmp_path / "report")) == report_record(report)
    assert not list(tmp_path.glob(".*work"))


def test_a_run_that_was_cut_goes_on_to_the_same_figures(scenes, model, tmp_path):
    settings = {"data": scenes, "model": model, "protocol": "finetune", "task": "classify", **QUICK}
    settings |= {"mode": "frozen", "epochs": 1}
    stages = []

    def stop(stage, done, total):
        stages.append(stage)
        if stage == "samples":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(**settings, report=tmp_path / "report", progress=stop)
    assert set(stages) > {"samples"}
    stages.clear()
    again = evaluate(
        **settings, report=tmp_path / "report", progress=lambda *told: stages.append(told[0])
    )
    assert set(stages) == {"samples"}  # nothing is learned a second time
    whole = evaluate(**settings)
    assert report_record(whole.report)["conditions"] == report_record(again.report)["conditions"]


def test_numbers_are_learned_whatever_their_unit(model, tmp_path):
    rng = np.random.default_rng(0)
    lines = ["file,light"]
    for i, level in enumerate(rng.uniform(40, 200, 50)):
        pixels = level + rng.integers(-25, 25, (SIDE, SIDE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{1e6 + 1e4 * level:.0f}")
    (tmp_path / "values.csv").write_text("\n".join(lines))
    settings = {"data": tmp_path, "model": model, "protocol": "finetune", "task": "regress"}
    report = evaluate(**settings, mode="frozen", epochs=5, **QUICK).report
    assert report.main.whole.count == 20
    assert report.main.figures["r2"].value > 0.8


def test_every_model_is_measured_in_every_city(cities, small_model):
    settings = {"cities": cities, "labels": "osm", "model": small_model, **QUICK}
    settings |= {"protocol": "finetune", "split": "random", "mode": "frozen", "epochs": 1}
    report = evaluate(**settings, gsd=0.7, osm_dropout=("building=*",), block_m=60.0).report
    cells = {(c.trained_on, c.place): c for c in report.of_kind("transfer")}
    assert set(cells) == {(a, b) for a in cities for b in cities}
    # The places are the same ground and split alike, so that they are as hard for a model.
    ece = {cell: c.figures["ece"].value for cell, c in cells.items()}
    east, west = cities
    assert ece[east, east] == ece[east, west] != ece[west, east] == ece[west, west]
    for place in cities:
        own = cells[place, place].blocks
        assert own
        assert all(name.startswith(place) for name in own)
        for name, tally in own.items():
            np.testing.assert_array_equal(vector(report.main.blocks[name]), vector(tally))
    assert [c.kind for c in report.conditions[:3]] == ["main", "no_osm", "osm_dropout"]
    assert report.title.endswith("on east, west")


@pytest.mark.parametrize("protocol", ["segment", "finetune"])
def test_of_several_cities_the_one_with_bad_labels_is_named(
    cities, small_model, tmp_path, protocol
):
    zones = gpd.GeoDataFrame({"class": ["green"]}, geometry=[box(0, 0, 9, 9)], crs=CRS_35N)
    zones.to_file(tmp_path / "away.gpkg")
    settings = {"cities": cities, "labels": tmp_path / "away.gpkg", "model": small_model, **QUICK}
    with pytest.raises(CoverageError, match=r"^in east: away\.gpkg does not meet the imagery"):
        evaluate(**settings, protocol=protocol)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"protocol": "knn", "epochs": 3}, ConfigError, "belong to the protocol finetune"),
        ({"protocol": "knn", "mode": "lora"}, ConfigError, "belong to the protocol finetune"),
        ({"protocol": "finetune", "mode": "none"}, ConfigError, "mode must be one of"),
        ({"protocol": "finetune", "epochs": 0}, ConfigError, "epochs"),
        ({"protocol": "finetune", "split": "blocks"}, InputError, "no place on the ground"),
        ({"protocol": "finetune", "osm_shift": (3.0,)}, ConfigError, "without OSM"),
    ],
)
def test_settings_that_cannot_be_are_refused(scenes, model, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        evaluate(data=scenes, model=model, **{"task": "classify", **settings}, **QUICK)
    assert "\n" not in str(caught.value)
