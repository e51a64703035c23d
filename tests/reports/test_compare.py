import json
import math
from functools import partial

import pytest
from evaluations import condition, report, run

from geolink.errors import InputError
from geolink.legend import UFZ, Legend
from geolink.reports.compare import compare as compare_reports
from geolink.reports.record import Condition

compare = partial(compare_reports, draws=200)
GOOD, BAD = report(0.8, more=False), report(0.6, more=False)


def figure(comparison, name):
    return next(d for d in comparison.differences if d.figure == name)


def test_a_clear_gain_is_better_and_its_mirror_worse():
    gain, loss = compare(BAD, GOOD), compare(GOOD, BAD)
    assert figure(gain, "miou").verdict == "better"
    assert figure(loss, "miou").verdict == "worse"
    assert figure(gain, "miou").change == pytest.approx(-figure(loss, "miou").change)
    assert figure(gain, "misallocated_area").verdict in ("better", "unclear")
    assert figure(gain, "miou").over_places.low > 0
    assert figure(gain, "miou").over_seeds.low > 0


def test_the_same_report_differs_in_nothing():
    found = compare(GOOD, GOOD)
    assert all(d.verdict == "unclear" for d in found.differences)
    assert all(d.change == 0 or math.isnan(d.change) for d in found.differences)
    assert found.paired


def test_other_places_are_said_to_be_others():
    runs = [run(0.8, seed, place="there") for seed in range(3)]
    there = report(conditions=(Condition.of("x", "main", runs, UFZ, draws=10),))
    found = compare(GOOD, there)
    assert not found.paired
    assert "DIFFERENT places" in found.summary
    assert figure(found, "miou").over_places.low < 0 < figure(found, "miou").over_places.high


def test_other_seeds_are_not_paired():
    other = report(0.6, more=False, conditions=(condition("x", "main", 0.6, 2, 10),), seeds=2)
    assert math.isnan(figure(compare(GOOD, other), "miou").over_seeds.low)


def test_reports_of_other_things_are_refused():
    few = Legend("few", UFZ.classes[:2])
    with pytest.raises(InputError, match="other classes"):
        compare(GOOD, report(more=False, legend=few))
    with pytest.raises(InputError, match="cannot be compared"):
        compare(GOOD, report(more=False, measures="regression"))


def test_the_record_is_plain_json():
    record = json.loads(json.dumps(compare(BAD, GOOD).to_dict(), allow_nan=False))
    assert record["differences"][0]["figure"] == "miou"
    assert record["notes"] == ["Made up: no model, no place."]
