import hashlib
import json
import subprocess
import sys

import pytest
from filelock import FileLock
from synthetic import StubEncoder, write_osm, write_picture, write_raster

from geolink.errors import ConfigError, InputError, OutputError
from geolink.shards import Draw, ShardDataset
from geolink.sources import shard_parts
from geolink.sources.candidates import Filters
from geolink.sources.manifest import Manifest
from geolink.sources.pairs import find_pairs
from geolink.workflows.shard_building import ShardRequest, build_shards


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_raster(folder / "ortho.tif")
    write_osm(folder / "osm.gpkg")
    return {"imagery": folder / "ortho.tif", "osm": (folder / "osm.gpkg",)}


@pytest.fixture(scope="module")
def settings(inputs):
    """25 tiles of 64 px in shards of at most seven."""
    return {**inputs, "side": 64, "shard_size": 7}


@pytest.fixture(scope="module")
def built(settings, tmp_path_factory):
    return build_shards(out=tmp_path_factory.mktemp("built") / "set", **settings)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_manifest_accounts_for_every_candidate(built):
    manifest = Manifest.load(built.out)
    assert manifest == built.manifest
    assert manifest.samples + sum(manifest.dropped.values()) == 25
    assert [shard.name for shard in manifest.shards] == [f"shard-00000{i}.tar" for i in range(4)]
    for shard in manifest.shards:
        content = (built.out / shard.name).read_bytes()
        assert len(content) == shard.bytes
        assert hashlib.sha256(content).hexdigest() == shard.sha256
    assert manifest.gsd == {"1": manifest.samples}
    assert manifest.sources[0]["osm"]["attribution"] == "© OpenStreetMap contributors"
    assert not manifest.simulated


def test_counts_are_those_of_the_samples(built):
    data = ShardDataset(built.out, encoder=StubEncoder(), side=32)
    stored = [data._read(s, i) for s, n in enumerate(data._counts) for i in range(n)]
    keys = [key.replace(":", " ") for s in stored for tags in s.objects.tags for key in tags]
    telling = {key for key in keys if keys.count(key) > 1} - {"name", "opening_hours"}
    assert built.manifest.key_counts == {key: keys.count(key) for key in sorted(telling)}
    assert sum(built.manifest.objects.values()) == sum(len(s.objects) for s in stored)
    means = built.manifest.mean_objects
    assert means["polygon"] == built.manifest.objects["polygon"] / len(data)
    assert len({sample.key for sample in stored}) == len(data) == built.manifest.samples


def test_the_result_tells_what_was_built(built):
    assert f"{built.manifest.samples} samples in 4 shards, 1 m per pixel" in built.summary
    assert json.loads(json.dumps(built.to_dict()))["built"] == 4
    assert "SIMULATED" not in built.summary


def test_any_number_of_processes_gives_the_same_bytes(built, settings, tmp_path):
    calls = []
    progress = lambda *call: calls.append(call)  # noqa: E731
    build_shards(out=tmp_path / "set", workers=2, progress=progress, **settings)
    assert contents(tmp_path / "set") == contents(built.out)
    assert calls == [("shards", done, 4) for done in range(5)]


def test_a_finished_set_is_not_built_again(built, settings):
    before = {path: path.stat().st_mtime_ns for path in built.out.glob("*.tar")}
    again = build_shards(out=built.out, **settings)
    assert again.built == 0
    assert again.manifest == built.manifest
    assert before == {path: path.stat().st_mtime_ns for path in built.out.glob("*.tar")}


def test_an_interrupted_build_goes_on(built, settings, tmp_path, monkeypatch):
    out, write = tmp_path / "set", shard_parts.write_shard

    def interrupted(path, samples):
        write(path, samples)
        if "000002" in path.name:
            raise KeyboardInterrupt

    monkeypatch.setattr(shard_parts, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_shards(out=out, **settings)
    assert sorted(contents(out)) == ["shard-000000.tar", "shard-000001.tar"]
    monkeypatch.undo()
    assert build_shards(out=out, **settings).built == 2
    assert contents(out) == contents(built.out)


_KILLED = """
import os, sys
from geolink.sources import shard_parts
from geolink.workflows.shard_building import build_shards
write = shard_parts.write_shard
def killed(path, samples):
    write(path, samples)
    if "000001" in path.name:
        os._exit(9)
shard_parts.write_shard = killed
build_shards(out=__import__("pathlib").Path(sys.argv[1]), imagery=sys.argv[2],
             osm=(__import__("pathlib").Path(sys.argv[3]),), side=64, shard_size=7)
"""


def test_a_killed_build_goes_on_and_leaves_nothing_behind(built, settings, tmp_path):
    out = tmp_path / "set"
    inputs = [str(settings["imagery"]), str(settings["osm"][0])]
    run = subprocess.run([sys.executable, "-c", _KILLED, str(out), *inputs], check=False)
    assert run.returncode == 9
    assert list(out.glob(".shard-*.part"))
    assert build_shards(out=out, **settings).built == 3
    assert contents(out) == contents(built.out)
    assert not list(out.glob(".shard-*.part"))


def test_a_shard_that_was_lost_or_cut_is_built_again(built, settings, tmp_path):
    out = tmp_path / "set"
    build_shards(out=out, **settings)
    (out / "shard-000000.tar").unlink()
    (out / "shard-000003.tar").write_bytes(b"cut")
    assert build_shards(out=out, **settings).built == 2
    assert contents(out) == contents(built.out)


def test_another_set_is_refused_or_replaced(settings, tmp_path):
    out = tmp_path / "set"
    build_shards(out=out, **settings)
    other = {**settings, "shard_size": 100}
    with pytest.raises(OutputError, match="shards of other data or settings"):
        build_shards(out=out, **other)
    assert len(list(out.glob("*.tar"))) == 4
    assert build_shards(out=out, overwrite=True, **other).built == 1
    assert [path.name for path in out.glob("*.tar")] == ["shard-000000.tar"]


def test_two_builds_do_not_share_a_folder(settings, tmp_path):
    work = tmp_path / "set" / ".build"
    work.mkdir(parents=True)
    with FileLock(work / "lock"), pytest.raises(OutputError, match="by another process"):
        build_shards(out=tmp_path / "set", **settings)


def test_a_damaged_image_is_counted_and_the_rest_is_built(tmp_path):
    paths = [write_picture(tmp_path / "pictures", name) for name in "abc"]
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    result = build_shards(out=tmp_path / "set", imagery=tmp_path / "pictures")
    assert result.manifest.dropped == {"unreadable image or OSM": 1}
    assert result.manifest.samples == 2
    assert result.caption == "left out: 1 unreadable image or OSM"


def test_a_set_without_a_sample_is_an_error(settings, tmp_path):
    with pytest.raises(InputError, match="not one of 25 candidates is a sample: 25 less than 99"):
        build_shards(out=tmp_path / "set", min_objects=99, **settings)
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_licence_and_credit_of_the_imagery_can_be_given(settings, tmp_path):
    result = build_shards(out=tmp_path / "set", licence="CC-BY-4.0", attribution="Us", **settings)
    imagery = result.manifest.sources[0]["imagery"]
    assert (imagery["licence"], imagery["attribution"]) == ("CC-BY-4.0", "Us")


def test_a_set_is_read_as_it_was_built(built):
    data = ShardDataset(built.out, encoder=StubEncoder(), side=64)
    assert len(data) == built.manifest.samples
    sample = data[Draw(0, 0)]
    assert sample.image.shape == (3, 64, 64)
    assert sample.skipped == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": 8},
        {"shard_size": 0},
        {"workers": -1},
        {"gsd": (0.0,)},
        {"gsd": (float("nan"),)},
        {"gsd": (1.0, 1e-9)},
    ],
)
def test_impossible_requests_are_refused(wrong, inputs, tmp_path):
    with pytest.raises(ConfigError):
        ShardRequest(out=tmp_path / "set", **{**inputs, **wrong})


def test_an_osm_file_that_cannot_be_read_ends_the_build_at_once(inputs, tmp_path):
    broken = tmp_path / "broken.osm.pbf"
    broken.write_bytes(b"no extract" * 50)
    for imagery in (inputs["imagery"], "simulated"):
        with pytest.raises(InputError, match=r"broken\.osm\.pbf is not a readable OSM PBF file"):
            build_shards(out=tmp_path / "set", imagery=imagery, osm=(broken,))


def test_paths_may_be_given_as_text(settings, built, tmp_path):
    texts = {"imagery": str(settings["imagery"]), "osm": [str(settings["osm"][0])]}
    again = build_shards(out=str(tmp_path / "set"), **{**settings, **texts})
    assert contents(again.out) == contents(built.out)


def test_wrong_outputs_are_refused(settings, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        build_shards(out=tmp_path / "file", **settings)
    with pytest.raises(OutputError, match="does not exist"):
        build_shards(out=tmp_path / "gone" / "set", **settings)


def test_parts_cut_the_candidates_of_all_sources(inputs):
    sources = find_pairs(inputs["imagery"], inputs["osm"][0], side=64, gsd=(1.0, 2.0))
    parts = shard_parts.plan_parts(sources, 10, Filters())
    lengths = [[len(numbers) for _, numbers in part.runs] for part in parts]
    assert lengths == [[10], [10], [5, 5], [4]]
    together = [(s.gsd, n) for part in parts for s, numbers in part.runs for n in numbers]
    assert together == [(1.0, n) for n in range(25)] + [(2.0, n) for n in range(9)]
