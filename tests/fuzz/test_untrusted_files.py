"""Damaged files of every kind that people hand on: each is read, or refused in one sentence."""

import json
import shutil
import tempfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import typer
from mutations import bombard, damaged, damaged_at_the_start, odd_json
from osm_elements import elements
from pyproj import CRS
from rasterio.shutil import copy as copy_raster
from synthetic import pixels, tile_sample, write_osm, write_raster, write_shards
from typer.main import get_command

from geolink.errors import ConfigError
from geolink.grid import Bounds, GridSpec
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.entries import MANIFEST as ENTRY
from geolink.sources.imagery import open_imagery
from geolink.sources.manifest import MANIFEST, Manifest
from geolink.sources.osm import read_osm
from geolink.sources.pbf import extract_bounds, extract_timestamp, write_pbf
from geolink.sources.places import place_from_file, sample_extract
from geolink.sources.shard_files import read_sample, shard_index, write_shard
from geolink_cli.app import app
from geolink_cli.options import load_defaults

UTM35 = CRS.from_epsg(32635)
# GDAL warns of damage as it comes, some of it where no caller can hear.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
# pyrosm keeps what it read there, and can be told of no other place.
PYROSM = Path(tempfile.gettempdir()) / "pyrosm"

HELSINKI = Bounds(385_000.0, 6_671_500.0, 385_300.0, 6_671_800.0)


def look(path: Path) -> None:
    imagery = open_imagery(path)
    bounds = imagery.footprint.bounds
    assert len(bounds) == 4
    grid = GridSpec(CRS.from_epsg(32635), 380_000.0, 6_672_000.0, 1.0, 64, 64)
    imagery.read(grid)


def raster_profile(rng: np.random.Generator) -> dict[str, object]:
    """Block sizes, compressions and layouts that GDAL can write."""
    profile: dict[str, object] = {
        "compress": str(rng.choice(["none", "lzw", "deflate", "packbits"])),
        "interleave": str(rng.choice(["band", "pixel"])),
    }
    if rng.random() < 0.5:
        sides = 16 * rng.integers(1, 9, 2)
        profile |= {"tiled": True, "blockxsize": int(sides[0]), "blockysize": int(sides[1])}
    return profile


def test_rasters(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"

    def write(rng: np.random.Generator) -> None:
        path.unlink(missing_ok=True)
        write_raster(path, pixels(seed=int(rng.integers(99))), **raster_profile(rng))
        content = path.read_bytes()
        path.write_bytes((damaged_at_the_start if rng.random() < 0.5 else damaged)(content, rng))

    bombard(write, lambda: look(path), tmp_path)


def test_rasters_that_claim_to_be_huge(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "sparse_ok": True, "tiled": True}

    def write(rng: np.random.Generator) -> None:
        height, width = (2 ** rng.uniform(10, 20, 2)).astype(int).tolist()
        placed = rasterio.Affine(*rng.choice([1e-9, 1.0, -1.0, 1e9, np.nan], 6).tolist())
        shape = {"height": height, "width": width, "transform": placed, "crs": UTM35.to_wkt()}
        path.unlink(missing_ok=True)
        with rasterio.open(path, "w", **profile, **shape, bigtiff="yes"):
            pass

    bombard(write, lambda: look(path), tmp_path)


def test_virtual_rasters(tmp_path: Path) -> None:
    image, path = tmp_path / "image.tif", tmp_path / "image.vrt"
    write_raster(image)
    copy_raster(image, path, driver="VRT")
    content = path.read_bytes()
    bombard(lambda rng: path.write_bytes(damaged(content, rng)), lambda: look(path), tmp_path)


def test_extracts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Large extracts are read through temporary files.
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    whole, path = tmp_path / "whole.osm.pbf", tmp_path / "city.osm.pbf"
    some = [e for e, _ in zip(elements(sample_extract()), range(600), strict=False)]
    write_pbf(whole, some, timestamp=1_700_000_000)
    content = whole.read_bytes()

    def read() -> None:
        extract_timestamp(path)
        extract_bounds(path)
        read_osm(path, HELSINKI, crs=UTM35)

    def write(rng: np.random.Generator) -> None:
        change = damaged_at_the_start if rng.random() < 0.5 else damaged
        path.write_bytes(change(content, rng))

    bombard(write, read, tmp_path, PYROSM)


@pytest.mark.parametrize("suffix", ["geojson", "gpkg", "fgb"])
def test_vector_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"objects.{suffix}"
    gpd.read_file(write_osm(tmp_path / "made.gpkg")).to_crs(4326).to_file(path)
    content = path.read_bytes()

    def read() -> None:
        read_osm(path, HELSINKI, crs=UTM35)

    bombard(lambda rng: path.write_bytes(damaged(content, rng)), read, tmp_path)


def test_geojson_of_odd_values(tmp_path: Path) -> None:
    path = tmp_path / "area.geojson"
    square = [[24.94, 60.16], [24.95, 60.16], [24.95, 60.17], [24.94, 60.16]]
    feature = {"type": "Feature", "properties": {"building": "yes"}}
    feature["geometry"] = {"type": "Polygon", "coordinates": [square]}
    plain = {"type": "FeatureCollection", "features": [feature]}

    def read() -> None:
        read_osm(path, HELSINKI, crs=UTM35)
        place_from_file(path)

    bombard(lambda rng: path.write_text(json.dumps(odd_json(plain, rng))), read, tmp_path)


def test_shards(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.tar", tmp_path / "shard-000000.tar"
    write_shard(whole, [tile_sample(number) for number in range(3)])
    content = whole.read_bytes()

    def read() -> None:
        for entry in shard_index(path):
            read_sample(path, entry)

    bombard(lambda rng: path.write_bytes(damaged(content, rng)), read, tmp_path)


def test_manifests_of_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, n=4)
    path = tmp_path / MANIFEST
    content = path.read_bytes()

    def write(rng: np.random.Generator) -> None:
        if rng.random() < 0.5:
            path.write_text(json.dumps(odd_json(json.loads(content), rng)))
        else:
            path.write_bytes(damaged(content, rng))

    bombard(write, lambda: Manifest.load(tmp_path), tmp_path)


def test_manifests_of_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with cache.staging("osm", "Åbo") as staging:
        (staging / "city.osm.pbf").write_bytes(b"not looked at")
        info = SourceInfo("made", licence="ODbL-1.0")
        entry = cache.publish("osm", "Åbo", staging, source="https://x.org/a", info=info)
    path = entry.folder / ENTRY
    content = path.read_bytes()

    def write(rng: np.random.Generator) -> None:
        if rng.random() < 0.5:
            path.write_text(json.dumps(odd_json(json.loads(content), rng)))
        else:
            path.write_bytes(damaged(content, rng))

    def read() -> None:
        for found in (cache.find("osm", "Åbo"), *cache.entries()):
            if found is not None and not found.problem:
                inside = found.path.resolve().is_relative_to(cache.root)
                assert inside or found.registered, found.path
                cache.verify(found)

    bombard(write, read, tmp_path)


def test_configuration_files(tmp_path: Path) -> None:
    path = tmp_path / "predict.toml"
    command = get_command(app).commands["predict"]
    content = b'city = "sample"\ngsd = 0.6\noverlap = 0.25\nbatch_size = 4\nraster = "a.tif"\n'
    content += b"min_zone_area = 100\nno_osm = false\nresume = true\n"

    def read() -> None:
        context = typer.Context(command, info_name="predict")
        try:
            load_defaults(context, path)
        except typer.BadParameter as error:
            raise ConfigError(error.message) from error

    bombard(lambda rng: path.write_bytes(damaged(content, rng)), read, tmp_path)


def test_models(tmp_path: Path, small_model: Path) -> None:
    from geolink.checkpoint import load_model
    from geolink.files import sha256_of

    folder = tmp_path / "run"
    shutil.copytree(small_model.parent if small_model.is_file() else small_model, folder)
    (weights,) = folder.glob("*.safetensors")
    (card,) = folder.glob("*.json")
    tensors, plain = weights.read_bytes(), json.loads(card.read_text())

    def write(rng: np.random.Generator) -> None:
        odd, content = dict(plain), tensors
        if rng.random() < 0.5:
            odd = odd_json(plain, rng)
        else:
            content = damaged_at_the_start(tensors, rng, 2000)
        weights.write_bytes(content)
        if isinstance(odd, dict) and "sha256" in odd and content is not tensors:
            odd["sha256"] = sha256_of(weights)  # the attacker can compute it too
        card.write_text(json.dumps(odd))

    bombard(write, lambda: load_model(folder, offline=True), tmp_path)
