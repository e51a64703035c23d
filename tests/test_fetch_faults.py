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
    geocoded,
    slow,
)
from synthetic import run_cli
from test_fetch_integration import environment

from geolink.sources.cache import Cache
from geolink.sources.extracts import covering_extract
from geolink.sources.network import Network
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
