"""Servers that fail in every way: one clear sentence, exit code 3, a sound cache, and a way on."""

import hashlib
import json
from functools import partial
from itertools import product
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import scenes
from servers import (
    BROKEN,
    BUSY,
    CUT,
    HTML,
    NOT_FOUND,
    WRONG_BYTES,
    FileServer,
    Geocoder,
    HubServer,
    StacServer,
    TileServer,
    black_hole,
    geocoded,
    slow,
)
from synthetic import run_cli
from test_fetch_integration import environment

from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.extracts import covering_extract
from geolink.sources.network import Network
from geolink.sources.osm_fetch import osm_details
from geolink.sources.places import sample_extract

AREA = scenes.area_of(100, 100, 60, 60)  # in the middle of Helsinki
BBOX = ",".join(f"{edge:.6f}" for edge in AREA.bounds)
EXTRACT = urlsplit(covering_extract(AREA).url).path
TERMS = ("--accept-imagery-terms", "CC-BY-4.0 of the test")

FAULTS = {
    "cut at half": CUT,
    "404": NOT_FOUND,
    "429": BUSY,
    "500": BROKEN,
    "HTML": HTML,
    "wrong bytes": WRONG_BYTES,
    "silent": slow(3.0),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Everything that can be fetched of a small area, on servers of this machine."""
    extract = sample_extract().read_bytes()
    checksum = f"{hashlib.md5(extract).hexdigest()}  {EXTRACT.rpartition('/')[2]}\n".encode()
    listed = {EXTRACT.rpartition("/")[0] + "/CHECKSUM.txt": checksum, EXTRACT + ".md5": checksum}
    weights = bytes(range(256)) * 400  # of no use, which is not looked at when they are fetched
    card = {"sha256": hashlib.sha256(weights).hexdigest(), "licence": "MIT"}
    files = {"card.json": json.dumps(card).encode(), "model.safetensors": weights}
    with (
        FileServer({EXTRACT: extract, **listed}) as osm,
        StacServer() as stac,
        TileServer(lambda zoom, col, row: np.full((256, 256, 3), 99, np.uint8)) as tiles,
        HubServer({"lab/tiny": files}) as hub,
        Geocoder(geocoded("Testholm, Uusimaa, Suomi", AREA)) as geocoder,
    ):
        folder, noise = tmp_path_factory.mktemp("scenes"), scenes.noise(1)
        clear = scenes.classes()
        scenes.add_scene(stac, folder, "S2", noise, clear, date="2026-10-01", cloud_cover=1.0)
        yield SimpleNamespace(osm=osm, stac=stac, tiles=tiles, hub=hub, geocoder=geocoder)


@pytest.fixture(autouse=True)
def quick(tmp_path, world, monkeypatch):
    """A fresh cache, and a network that loses its patience soon."""
    urls = {name: server.url for name, server in vars(world).items()}
    for name, value in environment(tmp_path / "cache", **urls).items():
        monkeypatch.setenv(name, value)
    network = partial(Network, timeout_s=1.0, retries=1)
    monkeypatch.setattr("geolink.workflows.fetch.Network", network)
    yield
    for server in vars(world).values():
        server.heal()


def commands(world):
    """What fails, on which server and path, and the command that needs it."""
    tiles = f"xyz:{world.tiles.template}@14"
    return {
        "extract": (world.osm, EXTRACT, ["--bbox", BBOX, "--imagery", "simulated"]),
        "catalogue": (world.stac, "/search", ["--bbox", BBOX, "--osm", "none"]),
        "scene": (world.stac, "/assets/*", ["--bbox", BBOX, "--osm", "none"]),
        "tiles": (world.tiles, "*", ["--bbox", BBOX, "--osm", "none", "--imagery", tiles, *TERMS]),
        "model": (world.hub, "*/model.safetensors", ["--model", "hf:lab/tiny"]),
        "geocoder": (world.geocoder, "/search", ["--city", "Testholm", "--imagery", "simulated"]),
    }


SOURCES = ("extract", "catalogue", "scene", "tiles", "model", "geocoder")
# The hub's client has a patience of its own, longer than a test should last.
LEFT_OUT = {("model", fault) for fault in ("silent", "429", "500")}


@pytest.mark.parametrize(
    ("source", "fault"), [pair for pair in product(SOURCES, FAULTS) if pair not in LEFT_OUT]
)
def test_a_server_that_fails(world, source, fault):
    server, path, arguments = commands(world)[source]
    server.fail(path, FAULTS[fault])
    failed = run_cli("fetch", *arguments)
    assert failed.code == 3, failed.err
    assert failed.out == ""
    errors = [line for line in failed.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, failed.err
    assert urlsplit(server.url).netloc in errors[0] or "checksum" in errors[0]
    assert "Traceback" not in failed.err
    assert [entry.kind for entry in Cache().entries() if entry.problem] == []
    server.heal()
    again = run_cli("fetch", *arguments)
    assert again.code == 0, again.err
    assert Cache().entries()
    assert run_cli("fetch", "--verify").code == 0


def test_no_network_is_told_by_the_first_server(monkeypatch):
    """Each one that is asked takes seconds where packets are dropped."""
    with black_hole() as nowhere:
        for name in ("GEOLINK_OSM_MIRROR", "GEOLINK_STAC_URL"):
            monkeypatch.setenv(name, nowhere)
        outcome = run_cli("fetch", "--city", "singapore", "-v")
    assert outcome.code == 3
    assert "Singapore (BBBike) cannot be fetched" in outcome.err
    assert "or run `geolink fetch --city singapore" in outcome.err
    assert outcome.err.count("INFO") == 1, outcome.err


def test_overwriting_keeps_what_is_here_until_the_new_is_whole(world):
    asked = ["--bbox", BBOX, "--model", "hf:lab/tiny"]
    assert run_cli("fetch", *asked).code == 0
    before = {entry.name: entry.folder.stat().st_ino for entry in Cache().entries()}
    for failing, path in ((world.hub, "*/model.safetensors"), (world.stac, "/assets/*")):
        failing.fail(path, NOT_FOUND)
        failed = run_cli("fetch", *asked, "--overwrite")
        assert failed.code == 3
        failing.heal()
        assert {entry.name for entry in Cache().entries()} == before.keys()
        assert run_cli("fetch", *asked, "--offline").code == 0
        assert run_cli("fetch", "--verify").code == 0
    again = run_cli("fetch", *asked, "--overwrite")
    assert again.code == 0, again.err
    after = {entry.name: entry.folder.stat().st_ino for entry in Cache().entries()}
    assert after.keys() == before.keys()
    assert not before.items() & after.items()


def test_older_data_of_a_place_does_not_outlive_what_replaces_it(world):
    """A crop is smaller than the extract, and would be preferred."""
    helsinki = covering_extract(AREA)
    cache, details = Cache(), osm_details("crop", helsinki.area)
    with cache.staging("osm", "old") as staging:
        (staging / "old.osm.pbf").write_bytes(sample_extract().read_bytes()[:1000])
        info = SourceInfo("an older crop")
        cache.publish("osm", "old", staging, source="", info=info, details=details)
    outcome = run_cli("fetch", "--bbox", BBOX, "--imagery", "simulated", "--overwrite")
    assert outcome.code == 0, outcome.err
    assert [entry.info.description for entry in Cache().entries()] == ["Helsinki (BBBike)"]


def test_imagery_serves_every_place_that_it_covers(world):
    assert run_cli("fetch", "--bbox", BBOX, "--osm", "none").code == 0
    world.stac.requests.clear()
    inner = ",".join(f"{edge:.6f}" for edge in scenes.area_of(110, 110, 40, 40).bounds)
    outcome = run_cli("fetch", "--bbox", inner, "--osm", "none", "--offline", "--json")
    assert outcome.code == 0, outcome.err
    (entry,) = json.loads(outcome.out)["entries"]
    assert entry["name"].startswith(f"bbox_{AREA.bounds[0]:.6g}"[:9])
    assert world.stac.requests == []
    beyond = ",".join(f"{edge:.6f}" for edge in scenes.area_of(110, 110, 80, 40).bounds)
    assert run_cli("fetch", "--bbox", beyond, "--osm", "none", "--offline").code == 3
