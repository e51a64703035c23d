import json

import pytest
from synthetic import write_shards

from geolink.errors import InputError
from geolink.sources.manifest import MANIFEST, Manifest


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "set", 5, per_shard=2)


def test_a_manifest_comes_back_as_it_was(folder):
    manifest = Manifest.load(folder)
    assert manifest.samples == 5
    assert [shard.samples for shard in manifest.shards] == [2, 2, 1]
    assert manifest.mean_objects == {"point": 4.0, "line": 4.0, "polygon": 12.0}
    assert manifest.simulated
    before = (folder / MANIFEST).read_bytes()
    manifest.save(folder)
    assert (folder / MANIFEST).read_bytes() == before


def changed(folder, change):
    plain = json.loads((folder / MANIFEST).read_text())
    change(plain)
    (folder / MANIFEST).write_text(json.dumps(plain))


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain.update(format=2),
        lambda plain: plain.pop("shards"),
        lambda plain: plain.update(shards=3),
        lambda plain: plain["shards"][0].update(name="../shard.tar"),
        lambda plain: plain["shards"][0].update(name="..\\shard.tar"),
        lambda plain: plain["shards"][0].update(name=""),
        lambda plain: plain["shards"][0].update(samples=-1),
        lambda plain: plain["shards"][0].update(samples="two"),
        lambda plain: plain.update(key_counts={"building": 1.5}),
        lambda plain: plain.update(sources=["me"]),
    ],
)
def test_a_damaged_manifest_is_refused(folder, change):
    changed(folder, change)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        Manifest.load(folder)


def test_a_manifest_that_is_no_json_is_refused(folder):
    (folder / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Manifest.load(folder)
    (folder / MANIFEST).write_text("[]")
    with pytest.raises(InputError, match="damaged"):
        Manifest.load(folder)


def test_a_missing_or_empty_set_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"no manifest\.json"):
        Manifest.load(tmp_path)
    changed(folder, lambda plain: plain.update(shards=[]))
    with pytest.raises(InputError, match="no sample"):
        Manifest.load(folder)
