"""One complete run of `predict`, and a way to make others like it."""

import pytest
from synthetic import run_cli

CLOSED = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture(autouse=True)
def closed_network(tmp_path_factory, monkeypatch):
    """No server is reached, and the cache is fresh."""
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("OSM_MIRROR", "STAC_URL", "NOMINATIM_URL", "OVERPASS_URL", "GDRIVE_URL"):
        monkeypatch.setenv(f"GEOLINK_{name}", CLOSED)
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)


OUTPUTS = {
    "--out": "map.gpkg",
    "--raster": "classes.tif",
    "--probabilities": "probabilities.tif",
    "--preview": "preview.png",
}


@pytest.fixture(scope="session")
def predict(small_scene, small_model):
    """`predict(folder, *options)`: maps the small scene, with outputs in `folder`."""

    def run(folder, *options, imagery=None, osm=None):
        sources = ["--imagery", imagery or small_scene / "ortho.tif"]
        if osm != "none":
            sources += ["--osm", osm or small_scene / "osm.gpkg"]
        return run_cli("predict", *sources, "--model", small_model, *options, cwd=folder)

    return run


@pytest.fixture(scope="session")
def all_outputs():
    """Options that ask for every kind of output."""
    return [part for option in OUTPUTS.items() for part in option]


@pytest.fixture(scope="session")
def mapped(tmp_path_factory, predict, all_outputs):
    """(folder, outcome) of an undisturbed run with every output."""
    folder = tmp_path_factory.mktemp("mapped")
    return folder, predict(folder, *all_outputs, "--json")
