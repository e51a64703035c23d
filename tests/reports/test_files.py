import json

import numpy as np
import pytest
from evaluations import report

from geolink.errors import InputError
from geolink.legend import UFZ, Legend, MapClass
from geolink.metrics.classification import tally_classes
from geolink.metrics.regression import RegressionSums
from geolink.reports.files import load_report, report_record
from geolink.reports.record import Condition

REPORT = report(seeds=2, draws=10)


@pytest.fixture
def record():
    """The record of a report, free to be spoiled."""
    return json.loads(json.dumps(report_record(REPORT), allow_nan=False))


def written(path, record):
    path.write_text(json.dumps(record))
    return path


def test_a_report_comes_back_as_it_was(tmp_path, record):
    found = load_report(written(tmp_path / "report.json", record))
    assert report_record(found) == record
    assert load_report(tmp_path).title == REPORT.title
    for before, after in zip(REPORT.conditions, found.conditions, strict=True):
        np.testing.assert_equal(after.whole.figures(UFZ), before.whole.figures(UFZ))


@pytest.mark.parametrize("measures", ["classification", "regression"])
def test_every_kind_of_tally_comes_back(tmp_path, measures):
    rng = np.random.default_rng(0)
    legend = Legend("two", (MapClass(0, "a", "#000000"), MapClass(1, "b", "#ffffff")))
    if measures == "classification":
        truth = rng.integers(0, 2, 20).astype(np.uint8)
        tallies = tally_classes(truth, rng.dirichlet([1, 1], 20), np.arange(20) % 2, count=2)
    else:
        tallies = [RegressionSums.of(rng.random(9), rng.random(9)) for _ in range(2)]
    runs = [dict(zip("ab", tallies, strict=True))]
    main = Condition.of("x", "main", runs, legend, draws=5)
    whole = report(conditions=(main,), measures=measures, legend=legend, seeds=1)
    found = load_report(written(tmp_path / "r.json", report_record(whole)))
    assert report_record(found) == report_record(whole)


def test_what_is_not_known_is_null():
    single = report(seeds=1, more=False)
    figure = report_record(single)["conditions"][0]["figures"]["miou"]
    assert figure["over_seeds"] == [None, None]
    json.dumps(report_record(single), allow_nan=False)


def test_the_schema_names_its_version(record):
    assert (record["schema"], record["version"]) == ("geolink-evaluation", 1)
    assert set(record["conditions"][0]) == {
        "name",
        "kind",
        "level",
        "trained_on",
        "place",
        "figures",
        "blocks",
    }


def spoil(**changes):
    return lambda record: {**record, **changes}


def spoil_condition(**changes):
    return lambda record: {**record, "conditions": [{**record["conditions"][0], **changes}]}


def drop_counts(record):
    block = next(iter(record["conditions"][0]["blocks"].values()))
    block["confusion"]["counts"].pop()
    return record


def text_in_counts(record):
    block = next(iter(record["conditions"][0]["blocks"].values()))
    block["confusion"]["counts"] = [["x"] * 9] * 9
    return record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil(schema="other"), "no report of an evaluation"),
        (lambda record: [record], "no report of an evaluation"),
        (spoil(version=2), "version 2"),
        (spoil(legend=None), "cannot be used"),
        (spoil(measures="colours"), "damaged"),
        (spoil(protocol="guess"), "none of segment"),
        (spoil(title=3), "wrong type"),
        (spoil(conditions=[]), "main condition"),
        (spoil(conditions=7), "damaged"),
        (spoil_condition(kind="main", blocks={}), "damaged"),
        (spoil_condition(figures={"miou": 3}), "damaged"),
        (spoil_condition(kind="no_osm"), "main condition"),
        (drop_counts, "damaged"),
        (text_in_counts, "no finite number"),
    ],
)
def test_a_spoilt_record_is_refused_in_one_sentence(tmp_path, record, change, message):
    with pytest.raises(InputError, match=message) as caught:
        load_report(written(tmp_path / "r.json", change(record)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 5000, '{"version": NaN}'])
def test_what_is_no_json_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match="not readable as JSON"):
        load_report(tmp_path / "r.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json is not readable"):
        load_report(tmp_path / "none.json")
