import math
from dataclasses import replace

import pytest
from evaluations import report

from geolink.errors import ConfigError
from geolink.legend import UFZ
from geolink.metrics.intervals import UNKNOWN
from geolink.reports.record import Figure, figure_names
from geolink.reports.thresholds import parse_thresholds, shortfalls

KNOWN = figure_names("segmentation", UFZ, (3.0,))
REPORT = report(0.7, seeds=1, draws=5, more=False)


def test_thresholds_are_read():
    found = parse_thresholds(["miou=0.5", "iou.water=0.25", "boundary_f1_3m=.1"], KNOWN)
    assert found == {"miou": 0.5, "iou.water": 0.25, "boundary_f1_3m": 0.1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("miou", "takes METRIC=VALUE"),
        ("miou=", "takes METRIC=VALUE"),
        ("miou=high", "takes METRIC=VALUE"),
        ("miou=nan", "takes METRIC=VALUE"),
        ("mIoU=0.5", "'mIoU' is no figure of this protocol; --fail-under knows miou, mean_f1"),
        ("iou.lava=0.5", r"knows .*iou\.CLASS"),
        ("ece=0.1", "'ece' is better when lower"),
        ("area_error.water=0", "area_error.water"),
    ],
)
def test_what_cannot_be_checked_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_thresholds([text], KNOWN)


def test_only_what_is_below_falls_short():
    value = REPORT.main.figures["miou"].value
    assert shortfalls(REPORT, {"miou": value}) == []
    (found,) = shortfalls(REPORT, {"miou": value + 1e-6, "accuracy": 0.0})
    assert found.figure == "miou"
    assert found.sentence.startswith(f"miou is {value:.4f}, below")


def test_what_is_not_known_falls_short():
    figures = {**REPORT.main.figures, "miou": Figure(math.nan, (math.nan,), UNKNOWN, UNKNOWN)}
    blank = replace(REPORT, conditions=(replace(REPORT.main, figures=figures),))
    (found,) = shortfalls(blank, {"miou": 0.0})
    assert found.sentence == "miou is unknown, below 0"
