import json

import pytest
from evaluations import report as made_up
from shapely import box
from synthetic import CRS_35N, at, run_cli

from geolink.reports.write import write_report


@pytest.fixture(scope="module")
def zones(tmp_path_factory):
    """Reference polygons of two classes."""
    import geopandas as gpd

    target = tmp_path_factory.mktemp("zones") / "zones.gpkg"
    shapes = [box(*at(0, 260), *at(150, 0)), box(*at(150, 260), *at(300, 0))]
    gpd.GeoDataFrame({"class": ["residential", "green"]}, geometry=shapes, crs=CRS_35N).to_file(
        target
    )
    return target


@pytest.fixture(scope="module")
def evaluate(small_scene, small_model, zones):
    """`evaluate(*options)` on the small scene, coarse and so quick."""

    def run(*options):
        sources = ["--imagery", small_scene / "ortho.tif", "--osm", small_scene / "osm.gpkg"]
        settings = ["--model", small_model, "--labels", zones, "--gsd", 2, "--offline"]
        return run_cli("evaluate", *sources, *settings, "--block-side", 100, *options)

    return run


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Folders of two made-up reports."""
    folder = tmp_path_factory.mktemp("reports")
    for name, share in (("a", 0.6), ("b", 0.8)):
        made = made_up(share, more=False)
        write_report(folder / name, made, overwrite=False)
    return folder


def test_a_table_a_report_and_a_line(evaluate, tmp_path):
    outcome = evaluate("--report", tmp_path / "report", "--osm-dropout", "0.5")
    assert outcome.code == 0, outcome.err
    assert outcome.out == ""
    for words in ("mean IoU", "95 % over places", "50% of objects missing", "majority class"):
        assert words in outcome.err
    assert "report.html" in outcome.err
    assert {"report.json", "report.html", "robustness.png"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }


def test_json_goes_to_stdout_alone_and_a_miss_exits_with_5(evaluate):
    outcome = evaluate("--json", "--fail-under", "miou=1", "--fail-under", "accuracy=0")
    assert outcome.code == 5
    record = json.loads(outcome.out)
    assert record["schema"] == "geolink-evaluation"
    assert [missed["figure"] for missed in record["missed"]] == ["miou"]
    assert "FAILED: miou is" in outcome.err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--fail-under", "iou=0.5"), 2, "is no figure of this protocol"),
        (("--fail-under", "miou"), 2, "takes METRIC=VALUE"),
        (("--protocol", "guess"), 2, "guess"),
        (("--osm-dropout", "much"), 2, "is no dropout"),
        (("--osm-shift", "far"), 2, "is not a list of numbers"),
        (("--boundary-distances", "-1"), 2, "metres from 0 on"),
        (("--seeds", "0"), 2, "seeds"),
        (("--report", "missing/folder"), 1, "does not exist"),
        (("--model", "nobody"), 3, "there is no model nobody"),
    ],
)
def test_bad_options_are_one_sentence(evaluate, options, code, words):
    outcome = evaluate(*options)
    assert outcome.code == code
    assert words in " ".join(outcome.err.replace("│", " ").split())
    assert "Traceback" not in outcome.err


def test_without_labels_it_says_what_is_missing(small_scene):
    outcome = run_cli("evaluate", "--imagery", small_scene / "ortho.tif", "--offline")
    assert outcome.code == 2
    assert "say where the labels are" in outcome.err


def test_two_reports_are_compared(reports):
    outcome = run_cli("evaluate", "--compare", reports / "a", reports / "b" / "report.json")
    assert outcome.code == 0, outcome.err
    assert "better" in outcome.err
    assert "on the same places" in outcome.err
    assert "IoU, water" not in outcome.err
    more = run_cli("evaluate", "--compare", reports / "a", reports / "b", "-v", "--json")
    rows = {row["figure"]: row for row in json.loads(more.out)["differences"]}
    assert rows["miou"]["verdict"] == "better"
    assert rows["miou"]["over_places"][0] > 0


def test_what_is_no_report_is_refused(reports, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    outcome = run_cli("evaluate", "--compare", reports / "a", tmp_path / "x.json")
    assert outcome.code == 1
    assert "no report of an evaluation" in outcome.err
