"""The whole way from a place's name to its map, through real clients and servers on 127.0.0.1.

Scenes that stand for Sentinel-2 are simulated: rendered at 10 m from the extract, since no real
scene of the place is at hand.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import rasterio
from pyproj import CRS
from servers import FileServer, Geocoder, HubServer, StacServer, TileServer, geocoded
from shapely import box
from synthetic import CRS_35N, NORTH, WEST, run_cli

from geolink.gpkg import read_metadata
from geolink.grid import WGS84, Bounds, GridSpec, reproject_bounds
from geolink.sources.cache import Cache
from geolink.sources.extracts import covering_extract
from geolink.sources.osm import read_osm
from geolink.sources.places import sample_extract
from geolink.sources.simulated import SimulatedImagery

MIRRORED = "/osm/bbbike/Singapore/Singapore.osm.pbf"
CLOSED = "http://127.0.0.1:9"  # nobody listens there


def write_scene(folder, osm, bounds, *, crs):
    """Sentinel-2-like assets of an area, drawn from OSM: colours, and classes, all clear."""
    grid = GridSpec.from_bounds(crs, bounds, 10.0)
    rgb = SimulatedImagery(read_osm(osm, grid.bounds, crs=crs), seed=1).read(grid).rgb
    layers = {"visual": rgb, "scl": np.full((1, *grid.shape), 4, dtype=np.uint8)}
    return {
        name: write_cog(folder / f"{name}.tif", pixels, grid) for name, pixels in layers.items()
    }


def write_cog(path, pixels, grid):
    profile = {"height": grid.height, "width": grid.width, "count": len(pixels), "dtype": "uint8"}
    profile |= {"crs": grid.crs.to_wkt(), "transform": grid.transform, "nodata": 0}
    with rasterio.open(path, "w", driver="COG", blocksize=128, **profile) as raster:
        raster.write(pixels)
    return path


def environment(cache, **urls):
    """Variables that keep a run to the given servers; all others are out of reach."""
    names = {"osm": "GEOLINK_OSM_MIRROR", "stac": "GEOLINK_STAC_URL", "hub": "HF_ENDPOINT"}
    names |= {"geocoder": "GEOLINK_NOMINATIM_URL", "overpass": "GEOLINK_OVERPASS_URL"}
    return {"GEOLINK_CACHE": str(cache)} | {v: urls.get(name, CLOSED) for name, v in names.items()}


def geolink(*arguments, cwd, env):
    """The installed command in a process of its own."""
    command = [Path(sys.executable).with_name("geolink"), *arguments]
    env = {**os.environ, **env, "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow  # two maps of all Singapore, 1,270 km2; the scene covers the bayfront only
@pytest.mark.timeout(1800)
def test_predict_a_city_by_name(tmp_path, shared_data):
    extract = shared_data / "osm" / "singapore_bayfront.osm.pbf"
    utm = CRS.from_epsg(32648)
    bayfront = Bounds(370_800.0, 141_200.0, 373_400.0, 143_800.0)
    with FileServer({MIRRORED: extract}) as mirror, StacServer() as catalogue:
        scene = write_scene(tmp_path, extract, bayfront, crs=utm)
        catalogue.add_scene("S2", scene, date="2026-10-01T03:20:00Z", cloud_cover=2.0)
        env = environment(tmp_path / "cache", osm=mirror.url, stac=catalogue.url)
        online, offline = tmp_path / "online", tmp_path / "offline"
        online.mkdir()
        offline.mkdir()
        first = geolink("predict", "--city", "singapore", cwd=online, env=env)
        assert first.returncode == 0, first.stderr
        assert mirror.paths().count(MIRRORED) == 1
        assert any(request.range for request in catalogue.requests)
        told = " ".join(first.stderr.split())
        assert "fetching the OSM extract Singapore (BBBike): about 61 kB; ODbL-1.0" in told
        assert "Contains modified Copernicus Sentinel data 2026" in told
        assert "10 m per pixel lies outside the 1-3 m" in told
    second = geolink("predict", "--city", "singapore", cwd=offline, env=env)
    assert second.returncode == 0, second.stderr
    assert "fetching" not in second.stderr
    maps = [(folder / "singapore.gpkg").read_bytes() for folder in (online, offline)]
    assert maps[0] == maps[1]
    record = read_metadata(online / "singapore.gpkg")
    assert record["osm"]["licence"] == "ODbL-1.0"
    assert record["osm"]["attribution"] == "© OpenStreetMap contributors"
    assert record["imagery"]["description"] == "Sentinel-2 L2A"
    assert record["imagery"]["date"] == "2026-10-01"
    assert record["imagery"]["attribution"] == "Contains modified Copernicus Sentinel data 2026"
    assert record["imagery_gsd_m"] == 10.0
    assert len(record["warnings"]) == 1


@pytest.fixture
def services(small_scene, small_model):
    """Servers that know Testholm, which is a part of the made-up scene, and a model of the lab."""
    area = box(*degrees(Bounds(WEST + 20, NORTH - 240, WEST + 280, NORTH - 20)))
    weights = {path.name: path.read_bytes() for path in small_model.iterdir()}
    with (
        Geocoder(geocoded("Testholm, Uusimaa, Suomi", area)) as geocoder,
        FileServer({urlsplit(covering_extract(area).url).path: sample_extract()}) as mirror,
        TileServer(small_scene / "ortho.tif") as tiles,
        HubServer({"lab/tiny": weights}) as hub,
    ):
        yield SimpleNamespace(geocoder=geocoder, osm=mirror, tiles=tiles, hub=hub)


def degrees(bounds):
    return reproject_bounds(bounds, CRS.from_user_input(CRS_35N), WGS84)


def test_a_geocoded_place_with_tiles_and_a_model_of_the_hub(tmp_path, services, monkeypatch):
    urls = {name: server.url for name, server in vars(services).items()}
    for name, value in environment(tmp_path / "cache", **urls).items():
        monkeypatch.setenv(name, value)
    asked = ["--city", "Testholm", "--imagery", f"xyz:{services.tiles.template}@16"]
    asked += ["--model", "hf:lab/tiny"]
    maps = []
    for run, options in enumerate([["--accept-imagery-terms", "CC-BY-4.0 of the lab"], []]):
        folder = tmp_path / str(run)
        folder.mkdir()
        outcome = run_cli("predict", *asked, *options, "--preview", "map.png", cwd=folder)
        assert outcome.code == 0, outcome.err
        maps.append((folder / "testholm.gpkg").read_bytes())
        for server in vars(services).values():
            server.stop()
    assert maps[0] == maps[1]
    assert [len(set(server.paths())) > 0 for server in vars(services).values()] == [True] * 4
    record = read_metadata(tmp_path / "0" / "testholm.gpkg")
    assert record["imagery"]["licence"] == "CC-BY-4.0 of the lab"
    assert record["osm"]["attribution"] == "© OpenStreetMap contributors"
    assert record["request"]["model"] == "hf:lab/tiny"
    assert {entry.kind for entry in Cache().entries()} == {"place", "osm", "imagery", "model"}
