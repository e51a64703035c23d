"""Runs of `predict` that are killed, or find the disk full: the same command completes them.

GEOLINK_KILLS=20 kills at that many moments in place of six.
"""

import os
import random
import signal
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")

KILLS = int(os.environ.get("GEOLINK_KILLS", "6"))
OUTPUTS = ["classes.tif", "map.gpkg", "preview.png"]
TILES = 4
# Scoring, zones, rasters, the GeoPackage, the renaming of all, and the clearing up.
CHIEF = ("tiles", "outputs 1", "outputs 3", "outputs 5", "publishing", "outputs 6")


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    from cut_runs import Runner

    with pytest.MonkeyPatch.context() as patch, Runner() as runner:
        patch.setenv("GEOLINK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield runner


@pytest.fixture(scope="module")
def settings_of(small_scene, small_model):
    """What to draw, by the folder that it goes to."""

    def settings(folder):
        sources = {"imagery": small_scene / "ortho.tif", "osm": small_scene / "osm.gpkg"}
        outputs = dict(zip(("raster", "out", "preview"), OUTPUTS, strict=True))
        paths = {**sources, "model": small_model} | {k: folder / v for k, v in outputs.items()}
        return {k: str(v) for k, v in paths.items()} | {"batch_size": 1, "workers": 1}

    return settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory, runner, settings_of):
    """Folder and notes of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    run = runner.run(folder, settings_of(folder))
    assert run.code == 0, run.error
    assert names(folder) == OUTPUTS
    assert len(run.kept) == TILES
    return folder, run


@pytest.fixture(scope="module")
def moments(whole):
    """(stage, number) of the moments to kill at: one of each chief stage, then any."""
    stages = {}
    for stage, number, _ in whole[1].notes:
        stages.setdefault(stage, []).append((stage, number))
    rng = random.Random(KILLS)
    # The last acts of a stage may be one fewer in another run, where a file is there already.
    some = {stage: rng.choice(found[:-1] or found) for stage, found in stages.items()}
    others = [moment for found in stages.values() for moment in found[:-1]]
    rng.shuffle(others)
    chief = [some.pop(stage) for stage in CHIEF]
    return list(dict.fromkeys([*chief, *some.values(), *others]))[:KILLS]


def names(folder):
    """Everything in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def assert_whole(folder, whole):
    """A folder holds the outputs of an undisturbed run to the byte, and nothing else."""
    assert names(folder) == OUTPUTS
    for name in OUTPUTS:
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes(), name


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_is_completed_by_the_same_command(
    tmp_path, runner, settings_of, whole, moments, number
):
    folder = tmp_path / "cut"
    folder.mkdir()
    run = runner.run(folder, settings_of(folder), moment=moments[number])
    assert run.code == -signal.SIGKILL, (moments[number], run.error)
    work = folder / ".map.gpkg.work"
    if (folder / "map.gpkg").exists() and not work.exists():  # complete but for its debris
        refused = runner.run(folder, settings_of(folder))
        assert "map.gpkg exists" in refused.error
        again = runner.run(folder, settings_of(folder) | {"overwrite": True})
    else:
        kept = {path.name for path in work.glob("*/*/[0-9]*.npz")}
        assert len(kept) >= run.tiles_done
        again = runner.run(folder, settings_of(folder))
        assert kept.isdisjoint(again.kept)
        assert len(kept) + len(again.kept) == TILES
    assert again.code == 0, (moments[number], again.error)
    assert_whole(folder, whole)


@pytest.mark.parametrize("limit", [40_000, 130_000])
def test_a_run_that_finds_the_disk_full_is_completed_when_there_is_space(
    tmp_path, runner, settings_of, whole, limit
):
    folder = tmp_path / "full"
    folder.mkdir()
    run = runner.run(folder, settings_of(folder), file_limit=limit)
    assert (run.code, "disk is full" in run.error) == (1, True), run.error
    assert names(folder) == [".map.gpkg.work"]
    kept = {path.name for path in folder.glob(".map.gpkg.work/*/*/[0-9]*.npz")}
    assert len(kept) == (0 if limit < 50_000 else TILES)
    again = runner.run(folder, settings_of(folder))
    assert again.code == 0, again.error
    assert kept.isdisjoint(again.kept)
    assert_whole(folder, whole)
