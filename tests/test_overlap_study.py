"""The figure that the default overlap was chosen by still holds."""

import importlib.util
import json
from pathlib import Path

import pytest

from geolink.checkpoint import load_model

STUDY = Path(__file__).resolve().parents[1] / "examples" / "overlap" / "study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("overlap_study", STUDY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded():
    return json.loads(STUDY.with_name("results.json").read_text())


def test_moving_the_tiles_changes_no_more_than_the_study_says(study, recorded):
    model = load_model(study.MODEL).card.sha256
    assert model == recorded["model"]["sha256"], "another bundled model: run study.py again"
    flips = study.check(study.DEFAULT)["flips"]
    # Half a point for processors that round otherwise.
    assert 0 < flips < recorded["check"]["flips"] + 0.005


def test_the_default_is_among_what_was_studied(study, recorded):
    shares = {row["overlap_px"]: row["mean"] for row in recorded["overlaps"]}
    assert shares[study.DEFAULT] < shares[0]
