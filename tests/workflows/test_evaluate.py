import numpy as np
import pytest
import rasterio
from shapely import box
from synthetic import CRS_35N, at, entities, write_area, write_model, write_osm

import geolink
from geolink.checkpoint import load_model, save_checkpoint
from geolink.errors import ConfigError, CoverageError, InputError, OutputError
from geolink.legend import IGNORE, UFZ, Legend
from geolink.metrics.confusion import ConfusionMatrix
from geolink.reports.files import load_report, report_record
from geolink.sources.cache import Cache
from geolink.sources.entities import ENTITY_TYPES
from geolink.sources.labels import label_mask
from geolink.sources.network import Network
from geolink.workflows import evaluate_maps
from geolink.workflows.evaluate import SIMULATED, WEAK, compare_reports, evaluate
from geolink.workflows.evaluation_request import EvaluateRequest
from geolink.workflows.site import Supply
from geolink.workflows.trials import Trial, trials_of

BLOCK = {
    "gsd": 2.0,
    "draws": 20,
    "block_m": 100.0,
    "min_zone_area_m2": 100.0,
    "device": "cpu",
    "offline": True,
}


@pytest.fixture(scope="module")
def scene(small_scene, small_model):
    """Settings of an evaluation on the small scene."""
    return {
        "imagery": small_scene / "ortho.tif",
        "osm": small_scene / "osm.gpkg",
        "model": small_model,
        **BLOCK,
    }


@pytest.fixture(scope="module")
def zones(tmp_path_factory):
    """Reference polygons of three classes, which leave a strip without any."""
    import geopandas as gpd

    target = tmp_path_factory.mktemp("zones") / "zones.gpkg"
    shapes = [box(*at(0, 120), *at(140, 0)), box(*at(150, 120), *at(300, 0))]
    shapes.append(box(*at(0, 260), *at(300, 140)))
    names = ["residential", "green", "industrial"]
    gpd.GeoDataFrame({"class": names}, geometry=shapes, crs=CRS_35N).to_file(target)
    return target


@pytest.fixture(scope="module")
def weak(tmp_path_factory, scene):
    """(folder, result) of an evaluation with OSM's zones as reference, and two dropouts."""
    folder = tmp_path_factory.mktemp("weak") / "report"
    return folder, evaluate(**scene, labels="osm", osm_dropout=("0.5", "1"), report=folder)


def kinds(report):
    return [(c.kind, c.level) for c in report.conditions]


def figures(condition):
    return {name: figure.value for name, figure in condition.figures.items()}


def test_the_library_shows_it():
    assert geolink.evaluate is evaluate
    assert geolink.EvaluateRequest is EvaluateRequest


def test_every_condition_is_measured_on_the_same_blocks(weak):
    report = weak[1].report
    assert kinds(report) == [
        ("main", None),
        ("no_osm", None),
        ("osm_dropout", 0.5),
        ("osm_dropout", 1.0),
        ("baseline", None),
    ]
    names = [list(c.blocks) for c in report.conditions]
    assert all(blocks == names[0] for blocks in names)
    assert len(names[0]) > 6
    pixels = [c.whole.confusion.referenced.tolist() for c in report.conditions]
    assert all(counts == pixels[0] for counts in pixels)


def test_without_any_object_it_is_the_image_alone(weak):
    report = weak[1].report
    by_kind = {(c.kind, c.level): figures(c) for c in report.conditions}
    np.testing.assert_equal(by_kind["osm_dropout", 1.0], by_kind["no_osm", None])
    assert by_kind["main", None]["ece"] != by_kind["no_osm", None]["ece"]


def test_the_report_is_written_and_says_what_it_is(weak):
    folder, result = weak
    assert result.page == folder / "report.html"
    assert report_record(load_report(folder)) == report_record(result.report)
    assert result.report.notes[0] == WEAK
    assert SIMULATED not in result.report.notes
    assert (folder / "map_ortho.png").is_file()
    assert not list(folder.parent.glob(".*work"))
    record = result.to_dict()
    assert record["conditions"][0]["figures"]["miou"]["value"] == pytest.approx(
        result.report.main.figures["miou"].value
    )
    assert "blocks" not in record["conditions"][0]
    assert result.report.settings["labels"] == "osm"
    assert "/" not in str(result.report.settings["imagery"])


def test_neither_batches_nor_threads_change_the_figures(weak, scene):
    again = evaluate(**scene, labels="osm", osm_dropout=("0.5", "1"), batch_size=1, workers=0)
    assert report_record(again.report) == report_record(weak[1].report)
    assert again.page is None


def test_objects_that_gave_labels_are_hidden(scene):
    request = EvaluateRequest(**scene, labels="osm")
    supply = Supply(Cache(), Network(offline=True))
    (ground,) = evaluate_maps.survey(request, load_model(scene["model"]), supply)
    assert not any(mask.any() for mask in label_mask(ground.visible).values())
    assert 0 < len(ground.visible) < len(ground.scene.entities)
    assert len(ground.scene.entities) == len(entities())


def test_it_measures_the_map_that_predict_draws(tmp_path, scene, zones):
    found = evaluate(**scene, labels=zones).report
    raster = tmp_path / "classes.tif"
    sources = {name: scene[name] for name in ("imagery", "osm", "model", "gsd", "offline")}
    geolink.predict(**sources, out=tmp_path / "map.gpkg", raster=raster)
    with rasterio.open(raster) as drawn:
        classes, transform = drawn.read(1), drawn.transform
    rows, cols = np.indices(classes.shape)
    xy = np.dstack(transform * (cols + 0.5, rows + 0.5)) - at(0, 0)
    x, y = xy[..., 0], -xy[..., 1]
    reference = np.full(classes.shape, IGNORE, np.uint8)
    reference[(x < 140) & (y < 120)] = UFZ.id_of("residential")
    reference[(x > 150) & (y < 120)] = UFZ.id_of("green")
    reference[y > 140] = UFZ.id_of("industrial")
    expected = ConfusionMatrix.of(reference, classes, classes=9)
    np.testing.assert_array_equal(found.main.whole.confusion.counts, expected.counts)
    assert WEAK not in found.notes


def test_seeds_are_appearances_of_simulated_imagery(scene, tmp_path):
    area = write_area(tmp_path / "aoi.gpkg", box(*at(0, 200), *at(200, 0)))
    settings = {**scene, "imagery": "simulated", "aoi": area}
    report = evaluate(**settings, labels="osm", seeds=2).report
    assert report.title.endswith("(simulated imagery)")
    assert SIMULATED in report.notes
    assert report.seeds == (0, 1)
    runs = report.main.figures["ece"].runs
    assert len(set(runs)) == 2
    assert report.main.figures["ece"].over_seeds.low < min(runs)


def test_where_no_seed_matters_there_is_one_run(scene, zones):
    report = evaluate(**scene, labels=zones, seeds=3, osm_shift=(5.0,), blur=(1.0,)).report
    runs = {c.kind: len(c.figures["miou"].runs) for c in report.conditions}
    assert runs == {"main": 1, "no_osm": 1, "osm_shift": 3, "blur": 1, "baseline": 1}


def test_a_cut_run_goes_on_where_it_stopped(tmp_path, scene, zones, caplog):
    folder = tmp_path / "report"
    settings = {
        **scene,
        "labels": zones,
        "report": folder,
        "batch_size": 1,
        "workers": 0,
        "gsd": 1.0,
    }
    done = []

    def stop(stage, count, total):
        done.append(count)
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(**settings, progress=stop)
    assert not folder.exists()
    seen = []
    result = evaluate(**settings, progress=lambda stage, count, total: seen.append(count))
    assert seen[0] >= 2  # what was done is not done again
    assert result.page.is_file()
    whole = evaluate(**{**settings, "report": None})
    assert report_record(whole.report)["conditions"] == report_record(result.report)["conditions"]


def test_reports_can_be_compared(weak, scene, tmp_path):
    other = evaluate(**{**scene, "gsd": 2.5}, labels="osm", report=tmp_path / "b")
    found = compare_reports(weak[0] / "report.json", other.page.parent)
    assert found.paired  # squares of ground have the same names at any resolution
    assert {d.figure for d in found.differences} >= {"miou", "accuracy", "ece"}


def test_figures_below_what_was_asked_for_are_told(scene, zones):
    result = evaluate(**scene, labels=zones, fail_under=("miou=1", "accuracy=0"))
    assert [shortfall.figure for shortfall in result.missed] == ["miou"]
    assert "FAILED: miou is 0." in result.summary


def test_a_reference_of_one_class_is_told(scene, tmp_path):
    import geopandas as gpd

    one = gpd.GeoDataFrame({"class": ["green"]}, geometry=[box(*at(0, 260), *at(300, 0))])
    one.set_crs(CRS_35N).to_crs(4326).to_file(tmp_path / "one.geojson")  # and in another CRS
    report = evaluate(**scene, labels=tmp_path / "one.geojson").report
    assert any("the class green only" in note for note in report.notes)
    assert report.main.whole.confusion.pixels == 150 * 130


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"labels": "osm", "protocol": "guess"}, ConfigError, "no protocol 'guess'"),
        ({}, ConfigError, "say where the labels are"),
        ({"labels": "osm", "seeds": 0}, ConfigError, "seeds"),
        ({"labels": "osm", "block_m": 0.0}, ConfigError, "positive side"),
        ({"labels": "osm", "overlap": 0.6}, ConfigError, "overlap"),
        ({"labels": "osm", "distances_m": (-1.0,)}, ConfigError, "boundary distances"),
        ({"labels": "osm", "fraction": 0.5}, ConfigError, "where something is learned"),
        ({"labels": "osm", "data": "folder"}, ConfigError, "not both"),
        ({"labels": "osm", "osm": "none"}, ConfigError, "labels from OSM need OSM"),
        ({"labels": "osm", "osm_dropout": ("1.5",)}, ConfigError, "'1.5' is no dropout"),
        ({"labels": "osm", "osm_dropout": ("trees",)}, ConfigError, "'trees' is no dropout"),
        ({"labels": "osm", "osm_dropout": ("line:x",)}, ConfigError, "'line:x' is no dropout"),
        ({"labels": "osm", "fail_under": ("mIoU=1",)}, ConfigError, "knows miou"),
        ({"labels": "osm", "cloud": (1.5,)}, ConfigError, "the level of cloud"),
        ({"labels": "none.gpkg"}, InputError, "does not exist"),
    ],
)
def test_settings_that_cannot_be_are_refused(scene, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        evaluate(**{**scene, **settings})
    assert "\n" not in str(caught.value)


def test_labels_elsewhere_or_all_ignored_are_refused(scene, zones, tmp_path):
    import geopandas as gpd

    shifted = gpd.read_file(zones)
    shifted.geometry = shifted.translate(5000, 0)
    shifted.to_file(tmp_path / "away.gpkg")
    with pytest.raises(CoverageError, match="does not meet the imagery"):
        evaluate(**scene, labels=tmp_path / "away.gpkg")
    ignored = ("residential", "green", "industrial")
    with pytest.raises(InputError, match="ignored"):
        evaluate(**scene, labels=zones, ignore=ignored)


def test_a_place_without_any_zone_is_refused(scene, tmp_path):
    lonely = [({"natural": "tree"}, box(*at(10, 20), *at(12, 10)).centroid)]
    osm = write_osm(tmp_path / "tree.gpkg", lonely)
    with pytest.raises(CoverageError, match="no pixel of ortho has a label"):
        evaluate(**{**scene, "osm": osm}, labels="osm")


def test_unknown_classes_are_named(scene, zones, tmp_path):
    import geopandas as gpd

    frame = gpd.read_file(zones)
    frame["class"] = ["residential", "lava", "green"]
    frame.to_file(tmp_path / "lava.gpkg")
    with pytest.raises(InputError, match="lava"):
        evaluate(**scene, labels=tmp_path / "lava.gpkg")


def test_a_model_of_other_classes_is_refused(scene, tmp_path):
    from dataclasses import replace

    folder = write_model(tmp_path / "model")
    model = load_model(folder)
    other = tuple(replace(c, name=f"kind {c.id}") for c in UFZ.classes)
    save_checkpoint(folder, model, replace(model.card, legend=Legend("kinds", other)))
    with pytest.raises(ConfigError, match="labels from OSM have the classes water"):
        evaluate(**{**scene, "model": folder}, labels="osm")


def test_osm_cannot_be_disturbed_where_there_is_none(scene, zones):
    with pytest.raises(ConfigError, match="without OSM"):
        evaluate(**{**scene, "osm": "none"}, labels=zones, osm_shift=(5.0,))


def test_an_existing_report_is_kept(weak, scene):
    with pytest.raises(OutputError, match="holds a report"):
        evaluate(**scene, labels="osm", report=weak[0])


def test_the_image_alone_can_be_measured(scene, zones):
    report = evaluate(**{**scene, "osm": "none"}, labels=zones).report
    assert [c.kind for c in report.conditions] == ["main", "baseline"]
    assert report.main.name == "image alone"


def test_the_place_can_be_smaller_than_the_image(scene, zones, tmp_path):
    area = write_area(tmp_path / "aoi.gpkg", box(*at(20, 100), *at(120, 10)))
    report = evaluate(**scene, aoi=area, labels=zones).report
    assert report.main.whole.confusion.pixels == 50 * 45


@pytest.mark.parametrize(
    ("text", "types", "tag", "share"),
    [
        ("0.5", ENTITY_TYPES, "", 0.5),
        ("polygon", ("polygon",), "", 1.0),
        ("line:0.25", ("line",), "", 0.25),
        ("building=*", ENTITY_TYPES, "building=*", 1.0),
        ("building:levels=3:0.5", ENTITY_TYPES, "building:levels=3", 0.5),
        ("wikipedia=en:Town", ENTITY_TYPES, "wikipedia=en:Town", 1.0),
    ],
)
def test_dropouts_are_read(text, types, tag, share):
    request = EvaluateRequest(city="sample", labels="osm", osm_dropout=(text,))
    assert request.dropouts() == [(types, tag, share)]


def test_trials_start_with_the_data_as_they_are_and_leave_out_nought():
    request = EvaluateRequest(
        city="sample", labels="osm", osm_dropout=("0", "0.2", "0.2"), cloud=(0.0, 0.3)
    )
    assert trials_of(request, with_osm=True) == [
        Trial("with OSM"),
        Trial("20% of objects missing", "osm_dropout", 0.2),
        Trial("30% under cloud", "cloud", 0.3),
    ]
