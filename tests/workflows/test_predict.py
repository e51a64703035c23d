import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import pytest
from shapely import box
from synthetic import CRS_35N, build_offline

import geolink
from geolink.checkpoint import load_model
from geolink.errors import CheckpointError
from geolink.legend import UFZ, Legend
from geolink.workflows import mapping
from geolink.workflows import predict as workflow
from geolink.workflows.mapping import file_identity, open_model, open_store, summarise
from geolink.workflows.outputs import credits
from geolink.workflows.predict import output_path, plan
from geolink.workflows.request import PredictRequest
from geolink.workflows.results import PredictResult


def test_the_library_shows_what_it_promises():
    assert geolink.predict is workflow.predict
    assert geolink.PredictRequest is PredictRequest
    assert geolink.load_model is load_model
    assert geolink.build_graph.__name__ == "build_graph"
    with pytest.raises(AttributeError, match="no attribute 'predikt'"):
        geolink.predikt  # noqa: B018


def test_classes_are_summed_up_by_area():
    zones = gpd.GeoDataFrame(
        {
            "class_id": [1, 1, 4],
            "area_m2": [100.0, 300.0, 50.0],
            "confidence": [0.4, 0.8, 0.5],
            "osm_gain": [0.2, -0.2, 0.0],
        },
        geometry=[box(0, 0, 1, 1)] * 3,
        crs=CRS_35N,
    )
    summaries = {s.name: s for s in summarise(zones, UFZ)}
    assert list(summaries) == list(UFZ.names)
    green = summaries["green"]
    assert (green.zones, green.area_m2) == (2, 400.0)
    assert green.confidence == pytest.approx(0.7)
    assert green.osm_gain == pytest.approx(-0.1)
    water = summaries["water"]
    assert (water.zones, water.area_m2, water.confidence, water.osm_gain) == (0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sample", "sample.gpkg"), ("São Paulo / SP", "São_Paulo_SP.gpkg"), ("../x", "x.gpkg")],
)
def test_the_default_output_is_in_the_current_folder(name, expected):
    place = SimpleNamespace(name=name)
    assert output_path(PredictRequest(), place) == Path(expected)
    assert output_path(PredictRequest(out="a/b.gpkg"), place) == Path("a/b.gpkg")


@pytest.fixture
def request_of(small_scene):
    sources = {"imagery": small_scene / "ortho.tif", "osm": small_scene / "osm.gpkg"}
    return lambda **settings: PredictRequest(**{**sources, **settings})


def test_results_of_other_settings_are_not_mixed(tmp_path, request_of, small_model):
    model = load_model(small_model)

    def stored_as(**settings):
        request = request_of(**settings)
        scene = build_offline(request, model.card.gsd_range)
        return open_store(request, scene, model, tmp_path / "map.gpkg", device="cpu")[0].path

    same = stored_as()
    assert stored_as(batch_size=1, workers=0, preview=tmp_path / "map.png") == same
    assert stored_as(min_zone_area_m2=9.0) == same  # zones are made from the scores
    others = [
        stored_as(**s) for s in ({"overlap": 0.5}, {"gsd": 2.0}, {"osm": "none"}, {"seed": 1})
    ]
    assert len({same, *others}) == 5


def test_a_file_that_was_replaced_is_another(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"one")
    before = file_identity(path)
    assert file_identity(path) == before
    os.utime(path, ns=(1, 1))
    assert file_identity(path) != before
    assert file_identity(Path("/vsizip/a.zip/a.tif")) == ["/vsizip/a.zip/a.tif"]


def test_a_model_without_a_head_draws_no_map(monkeypatch, small_model):
    model = load_model(small_model)
    model.card = replace(model.card, legend=Legend("untrained", ()))
    monkeypatch.setattr(mapping, "load_model", lambda spec, **_: model)
    with pytest.raises(CheckpointError, match="head of the model backbone is not trained"):
        open_model("backbone")


def test_the_plan_counts_what_the_run_will_keep(request_of, small_model):
    planned = plan(request_of(model=small_model))
    assert planned.tiles == 4
    assert planned.area_km2 == pytest.approx(0.078, rel=1e-6)
    assert planned.work_bytes > 4 * 2 * 9 * 56 * 56 * 2
    more = plan(request_of(model=small_model, probabilities=Path("p.tif")))
    assert more.work_bytes == planned.work_bytes + 300 * 260 * 9
    assert dict(planned.rows())["tiles"] == "4"
    assert planned.to_dict()["out"] == "ortho.gpkg"


def test_the_plan_knows_how_much_disk_the_run_takes(tmp_path, request_of, small_model):
    request = request_of(
        model=small_model, out=tmp_path / "map.gpkg", raster=tmp_path / "map.tif", workers=0
    )
    taken = []

    def look(*stage):
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        taken.append(sum(path.stat().st_size for path in files))

    geolink.predict(request, look)
    assert plan(request).work_bytes == pytest.approx(max(taken), rel=0.5)


@pytest.fixture
def result():
    return PredictResult(
        out=Path("map.gpkg"),
        title="Functional zones of here",
        classes=[],
        tiles={"ok": 3},
        simulated=False,
        seconds=1.0,
        metadata={"dropped_entities": {}, "warnings": []},
    )


def test_the_summary_says_what_must_be_known(result):
    assert result.summary == "map.gpkg: 0 zones over 0.00 km² in 1 s"
    assert "SIMULATED" in replace(result, simulated=True).summary
    assert "2 tiles FAILED" in replace(result, tiles={"ok": 1, "failed": 2}).summary


def test_the_caption_says_what_was_left_out(result):
    assert result.caption == ""
    dropped = {"broken geometry": 1200, "no tags": 3}
    shown = replace(result, metadata={"dropped_entities": dropped}).caption
    assert shown == "OSM objects left out: 1,200 with broken geometry, 3 with no tags"


def test_credits_say_what_each_source_is_and_whose():
    osm = {
        "description": "a.osm.pbf",
        "date": "2026-01-01",
        "attribution": "© OpenStreetMap contributors",
        "licence": "ODbL-1.0",
    }
    plain = {"description": "b.tif", "date": None, "attribution": None, "licence": None}
    said = "OSM: a.osm.pbf, 2026-01-01, © OpenStreetMap contributors, ODbL-1.0"
    record = {"imagery": plain, "osm": osm, "software": "geolink 1"}
    assert credits(record) == ["Imagery: b.tif", said, "geolink 1"]
    assert credits({**record, "osm": None}) == ["Imagery: b.tif", "geolink 1"]


def test_the_preview_may_be_a_page(tmp_path, request_of, small_model):
    page = tmp_path / "map.html"
    geolink.predict(
        request_of(model=small_model, out=tmp_path / "map.gpkg", preview=page, workers=0)
    )
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.gpkg", "map.html"]
