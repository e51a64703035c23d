"""`geolink pretrain` as a command."""

import json

import pytest
from synthetic import run_cli, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", 4, side=32)


def run(folder, shards, *arguments):
    quick = ("--image-size", 32, "--epochs", 1, "--batch-size", 4, "--workers", 0)
    return run_cli("pretrain", "--images", shards, "--out", "run", *quick, *arguments, cwd=folder)


def test_it_makes_a_model_and_says_so(tmp_path, shards):
    outcome = run(tmp_path, shards, "--json")
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    assert (record["step"], record["samples"], record["simulated"]) == (1, 4, True)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "SIMULATED" in outcome.err
    again = run(tmp_path, shards)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith("error: run holds a run; go on with --resume")
    resumed = run(tmp_path, shards, "--resume")
    assert resumed.code == 0
    assert "finished before" in resumed.err


def test_settings_come_from_a_file(tmp_path, shards):
    (tmp_path / "run.toml").write_text("temperature = 0.0\nmask_patches = 0.5\n")
    outcome = run(tmp_path, shards, "--config", "run.toml")
    assert outcome.code == 2
    assert "temperature is a positive number" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch-size", 64), "fewer than a batch of 64"),
        (("--mask-patches", 1.5), "patch_share lies between 0 and 1"),
        (("--imagery", "simulated"), "either a folder of images, or imagery"),
        (("--accumulate", 3), "cannot be split"),
        (("--image-size", 40), "multiple of 16"),
    ],
)
def test_wrong_use_exits_with_two(tmp_path, shards, arguments, words):
    outcome = run(tmp_path, shards, *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
