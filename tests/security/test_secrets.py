"""Passwords, tokens and keys reach their servers, and nothing that is kept or shown."""

import pytest
from servers import NOT_FOUND, FileServer
from synthetic import run_cli

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def closed_network(tmp_path, monkeypatch):
    """A fresh cache, no server but those of the test, and a token in the environment."""
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", f"hf_{SECRET}")
    for name in ("OSM_MIRROR", "STAC_URL", "NOMINATIM_URL", "OVERPASS_URL"):
        monkeypatch.setenv(f"GEOLINK_{name}", "http://127.0.0.1:9")


@pytest.fixture
def server(small_model):
    with FileServer({f"/m/{path.name}": path for path in small_model.iterdir()}) as server:
        yield server


def private(server, path):
    """An address with a password and a key."""
    return server.url.replace("//", f"//me:{SECRET}@") + f"{path}?token={SECRET}&q=1"


def assert_kept(outcome, folder):
    """Nothing that was said or written tells the secret."""
    assert SECRET not in outcome.out + outcome.err
    for path in folder.rglob("*"):
        assert SECRET not in path.name
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_of_a_model_at_an_address(tmp_path, server, small_scene):
    spec = private(server, "/m/model.safetensors")
    sources = ["--imagery", small_scene / "ortho.tif", "--osm", small_scene / "osm.gpkg"]
    outputs = ["--out", "map.gpkg", "--raster", "map.tif", "--preview", "map.html"]
    outcome = run_cli(
        *("predict", *sources, "--model", spec, *outputs, "-vv", "--json"), cwd=tmp_path
    )
    assert outcome.code == 0, outcome.err
    assert "q=1" in outcome.err  # the address was logged
    assert any(SECRET in request.query.get("token", "") for request in server.requests)
    assert (tmp_path / "map.html").exists()
    assert_kept(outcome, tmp_path)


@pytest.mark.parametrize(
    ("option", "spec"),
    [
        ("--model", "{host}/m/model.safetensors?token=s3cret"),
        ("--imagery", "xyz:{host}/{{z}}/{{x}}/{{y}}.png?key=s3cret@17"),
        ("--imagery", "stac:{host}/v1?token=s3cret#scenes/visual"),
    ],
    ids=["model", "xyz", "stac"],
)
def test_of_what_cannot_be_fetched(tmp_path, server, small_scene, option, spec):
    server.fail("*", NOT_FOUND)
    spec = spec.format(host=server.url.replace("//", f"//me:{SECRET}@"))
    place = ["--bbox", "24.94,60.17,24.942,60.171", "--accept-imagery-terms", "mine"]
    sources = {"--osm": small_scene / "osm.gpkg", "--imagery": small_scene / "ortho.tif"}
    sources[option] = spec
    named = [part for pair in sources.items() for part in pair]
    outcome = run_cli(
        *("fetch", "--city", "helsinki", *place, *named, "-vv", "--json"), cwd=tmp_path
    )
    assert outcome.code == 3, outcome.err
    assert server.requests
    assert_kept(outcome, tmp_path)
