"""Files at addresses: copied once, put there whole; with fsspec's memory and a real web server."""

import pytest
from servers import FileServer

from geolink.errors import ConfigError, OutputError, UnavailableError
from geolink.sources.addresses import (
    address_of,
    cached_copy,
    copy_here,
    file_name,
    is_address,
    local_path,
    put_there,
    require_target,
)
from geolink.sources.cache import Cache
from geolink.sources.network import Network, NotFoundError

ONLINE, OFFLINE = Network(retries=0), Network(offline=True)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def names(memory):
    return sorted(path.lstrip("/") for path in memory.find("/"))


# Names


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("s3://bucket/a.tif", True),
        ("file:///a.tif", True),
        ("https://host/a.tif", True),
        ("stac:https://host/v1#naip/image", False),
        ("xyz:https://host/{z}/{x}/{y}.png@17", False),
        ("C:/a.tif", False),
        ("a.tif", False),
        ("hf:owner/repo", False),
        ("", False),
    ],
)
def test_addresses_are_told_from_others(spec, expected):
    assert is_address(spec) is expected


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/maps/a.gpkg", "memory://a.gpkg", "file:///tmp/a b.gpkg", "gs://bucket/a.gpkg"],
)
def test_a_path_remembers_its_address(address, tmp_path):
    assert address_of(type(tmp_path)(address)) == address
    assert address_of(tmp_path / "a.gpkg") is None


def test_names_of_files():
    assert file_name("s3://bucket/maps/a.tif") == "a.tif"
    assert file_name("memory://a.tif") == "a.tif"
    assert file_name("https://host/a%20b.tif?key=1") == "a b.tif"
    assert str(local_path("file:///tmp/a%20b.tif")) == "/tmp/a b.tif"
    assert local_path("s3://bucket/a.tif") is None


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/.hidden", "https://host/%2e%2e", "s3://bucket/a.part", "https://h/a%5Cb"],
)
def test_addresses_without_a_file_are_refused(address):
    with pytest.raises(ConfigError, match="names no file"):
        file_name(address)


# Copies


def test_a_copy_is_made_once(memory, cache):
    memory.pipe_file("/shop/a.tif", b"pixels")
    path = cached_copy("memory://shop/a.tif", "imagery", cache=cache, network=ONLINE)
    assert path.name == "a.tif"
    assert path.read_bytes() == b"pixels"
    memory.rm_file("/shop/a.tif")
    assert cached_copy("memory://shop/a.tif", "imagery", cache=cache, network=OFFLINE) == path


def test_the_web_is_read_by_our_own_network(cache):
    with FileServer({"/a.osm.pbf": b"objects"}) as server:
        url = f"{server.url}/a.osm.pbf"
        path = cached_copy(url, "osm", cache=cache, network=ONLINE)
        assert path.read_bytes() == b"objects"
        with pytest.raises(NotFoundError):
            copy_here(f"{server.url}/b.pbf", path.parent / "b.pbf", network=ONLINE)


def test_a_file_of_this_machine_is_not_copied(tmp_path, cache):
    path = tmp_path / "a.tif"
    assert cached_copy(path.as_uri(), "imagery", cache=cache, network=OFFLINE) == path


@pytest.mark.parametrize(
    ("address", "network", "words"),
    [
        ("memory://shop/none.tif", ONLINE, "there is no memory://shop/none.tif"),
        ("memory://shop/none.tif", OFFLINE, "nothing may be fetched now"),
        ("nosuch://shop/a.tif", ONLINE, "nosuch://shop/a.tif cannot be fetched"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(memory, cache, address, network, words):
    with pytest.raises(UnavailableError, match=words):
        cached_copy(address, "imagery", cache=cache, network=network)
    assert cache.entries() == []


# Outputs


def test_a_file_appears_whole(memory, tmp_path):
    (tmp_path / "a.gpkg").write_bytes(b"map")
    require_target("memory://shop/a.gpkg", overwrite=False)
    assert names(memory) == []  # the probe is gone
    put_there(tmp_path / "a.gpkg", "memory://shop/a.gpkg")
    assert names(memory) == ["shop/a.gpkg"]
    assert memory.cat_file("/shop/a.gpkg") == b"map"


def test_what_exists_is_not_replaced(memory, tmp_path):
    memory.pipe_file("/shop/a.gpkg", b"old")
    with pytest.raises(OutputError, match="exists"):
        require_target("memory://shop/a.gpkg", overwrite=False)
    require_target("memory://shop/a.gpkg", overwrite=True)
    (tmp_path / "a.gpkg").write_bytes(b"new")
    put_there(tmp_path / "a.gpkg", "memory://shop/a.gpkg")
    assert memory.cat_file("/shop/a.gpkg") == b"new"


def test_where_nothing_can_be_put_is_told_before_the_work(memory):
    with pytest.raises(OutputError, match="cannot be written"):
        require_target("nosuch://shop/a.gpkg", overwrite=False)


def test_an_upload_that_fails_leaves_the_file_here(memory, tmp_path, monkeypatch):
    (tmp_path / "a.gpkg").write_bytes(b"map")

    def broken(*_, **__):
        raise OSError("the bucket is full")

    monkeypatch.setattr(type(memory), "mv", broken)
    with pytest.raises(OutputError, match=r"the bucket is full.*copy it from there"):
        put_there(tmp_path / "a.gpkg", "memory://shop/a.gpkg")
    assert names(memory) == []
    assert (tmp_path / "a.gpkg").exists()
