"""Shards at an address: fetched once, checked, and told apart from what is damaged or away."""

import json
from pathlib import Path

import pytest
from servers import CUT, NOT_FOUND, WRONG_BYTES, FileServer
from synthetic import StubEncoder, write_shards

from geolink.errors import InputError, OutputError, UnavailableError
from geolink.shards import Draw, ShardDataset
from geolink.sources.shard_stores import FetchedStore, open_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("set") / "shards", 8, per_shard=4, side=32)


@pytest.fixture
def server(folder):
    with FileServer({f"/set/{path.name}": path for path in folder.iterdir()}) as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def samples(place, **options):
    """Every sample in the order of the set, and why some were replaced."""
    data = ShardDataset(place, encoder=StubEncoder(), side=32, **options)
    found = [data[Draw(0, index)] for index in range(len(data))]
    return [sample.key for sample in found], dict(data.skipped)


def test_shards_at_an_address_are_those_of_the_folder(folder, server):
    url = f"{server.url}/set"
    assert samples(url) == samples(folder)
    assert server.paths() == [
        f"/set/{name}" for name in ("manifest.json", "shard-000000.tar", "shard-000001.tar")
    ]
    samples(f"{url}/")
    assert server.paths().count("/set/shard-000000.tar") == 1  # once for all runs


def test_what_was_cut_goes_on(folder, server):
    server.fail("/set/*.tar", CUT, times=1)
    assert samples(f"{server.url}/set") == samples(folder)
    assert sum(request.range is not None for request in server.requests) == 1


def test_a_shard_with_another_checksum_is_skipped_named_and_not_kept(server, cache):
    server.fail("/set/shard-000001.tar", WRONG_BYTES)
    keys, skipped = samples(f"{server.url}/set")
    assert set(keys) == {f"made-up_{number:05d}" for number in range(4)}
    (reason,) = skipped
    assert "shard-000001.tar" in reason
    assert "another checksum" in reason
    assert server.paths().count("/set/shard-000001.tar") == 1  # not for every sample anew
    server.heal()
    assert samples(f"{server.url}/set")[1] == {}


def test_a_server_that_is_away_ends_the_run_and_is_no_damage(server):
    data = ShardDataset(f"{server.url}/set", encoder=StubEncoder(), side=32)
    server.fail("/set/shard-000000.tar", NOT_FOUND)
    with pytest.raises(UnavailableError, match=r"shard-000000\.tar"):
        data[Draw(0, 0)]
    assert data.skipped == {}


def test_what_is_here_needs_no_network(folder, server):
    url = f"{server.url}/set"
    with pytest.raises(UnavailableError, match="--offline"):
        samples(url, offline=True)
    samples(url)
    server.stop()
    assert samples(url, offline=True) == samples(folder)
    server.start()


def test_another_set_at_the_same_address_is_fetched_anew(server, tmp_path):
    url = f"{server.url}/set"
    samples(url)
    other = write_shards(tmp_path / "other", 12, per_shard=6, side=32)
    server.files = {f"/set/{path.name}": path for path in other.iterdir()}
    assert samples(url) == samples(other)


def test_other_addresses_are_opened_by_fsspec(folder):
    assert samples(folder.as_uri()) == samples(folder)
    assert isinstance(open_store(folder.as_uri()), FetchedStore)
    with pytest.raises(UnavailableError, match="nowhere"):
        open_store(f"{folder.as_uri()}/nowhere")
    with pytest.raises(UnavailableError, match="Protocol not known"):
        open_store("ftps9://host/set")


def test_a_damaged_manifest_is_not_kept(folder, server, cache):
    good = json.loads((folder / "manifest.json").read_text())
    good["shards"][0]["sha256"] = "../../up"
    server.files["/set/manifest.json"] = json.dumps(good).encode()
    with pytest.raises(InputError, match=r"set/manifest\.json is damaged .*no SHA-256"):
        open_store(f"{server.url}/set")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_secrets_of_an_address_are_not_told(server):
    url = server.url.replace("http://", "http://me:secret@")
    with pytest.raises(UnavailableError) as caught:
        open_store(f"{url}/nothing")
    assert "secret" not in str(caught.value)


def test_a_full_disk_is_named(server, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputError, match="disk is full"):
        open_store(f"{server.url}/set")
