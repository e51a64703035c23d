"""Imagery of pretraining pairs: several images, several extracts, and what has to be fetched."""

import shutil

import pytest
import scenes
from affine import Affine
from servers import StacServer, TileServer
from shapely.affinity import translate
from synthetic import NORTH, WEST, entities, write_osm, write_raster

from geolink.errors import ConfigError, InputError, UnavailableError
from geolink.sources.cache import Cache
from geolink.workflows.shard_building import ShardRequest, build_shards

EAST = 20_000  # metres to the second place


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two places with a raster and an OSM file each."""
    folder = tmp_path_factory.mktemp("places")
    write_raster(folder / "west.tif")
    write_osm(folder / "west.gpkg")
    write_raster(folder / "east.tif", transform=Affine(1, 0, WEST + EAST, 0, -1, NORTH))
    moved = [(tags, translate(shape, EAST)) for tags, shape in entities()]
    write_osm(folder / "east.gpkg", moved)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    return Cache()


def built(tmp_path, places, imagery, **changes):
    osm = (places / "west.gpkg", places / "east.gpkg")
    return build_shards(out=tmp_path / "set", imagery=imagery, osm=osm, side=64, **changes).manifest


def test_every_raster_takes_the_osm_that_covers_it(tmp_path, places):
    manifest = built(tmp_path, places, [places / "east.tif", places / "west.tif"])
    found = {source["name"]: source["osm"]["description"] for source in manifest.sources}
    assert found == {"east.tif": "east.gpkg", "west.tif": "west.gpkg"}
    assert manifest.settings["imagery"] == ["east.tif", "west.tif"]


def test_a_raster_that_no_osm_covers_is_named(tmp_path, places):
    far = write_raster(tmp_path / "far.tif", transform=Affine(1, 0, WEST - EAST, 0, -1, NORTH))
    with pytest.raises(InputError, match=r"none of the OSM files covers the raster far\.tif"):
        built(tmp_path, places, far)


def test_map_tiles_are_fetched_for_every_extract_once_and_their_licence_is_kept(
    tmp_path, places, cache
):
    with TileServer(places / "west.tif") as west:
        spec = f"xyz:{west.template}@17"
        settings = {"imagery": [spec, places / "west.tif"], "osm": (places / "west.gpkg",)}
        settings |= {"side": 64, "accept_imagery_terms": "CC-BY-4.0 of the lab"}
        with pytest.raises(ConfigError, match="--accept-imagery-terms"):
            build_shards(out=tmp_path / "set", **settings | {"accept_imagery_terms": None})
        manifest = build_shards(out=tmp_path / "set", **settings).manifest
    (entry,) = cache.entries()
    fetched, local = sorted(manifest.sources, key=lambda source: source["name"] == "west.tif")
    assert fetched["name"] == f"west.gpkg from {spec}"
    assert fetched["imagery"]["licence"] == entry.info.licence == "CC-BY-4.0 of the lab"
    assert local["imagery"]["licence"] is None
    again = build_shards(out=tmp_path / "again", **settings, offline=True)  # nobody listens now
    assert again.manifest.shards == manifest.shards


@pytest.mark.parametrize("spec", ["sentinel2", "stac:{url}#sentinel-2-l2a/visual"])
def test_scenes_of_a_catalogue_are_fetched(tmp_path, places, monkeypatch, spec):
    with StacServer() as server:
        monkeypatch.setenv("GEOLINK_STAC_URL", server.url)
        rgb = scenes.noise(1)
        scenes.add_scene(
            server,
            tmp_path,
            "S2",
            *(rgb, scenes.classes()),
            date="2026-10-01",
            cloud_cover=1.0,
            west=WEST - 1000,
            north=NORTH + 1000,
        )
        osm = (places / "west.gpkg",)
        imagery = spec.format(url=server.url)
        manifest = build_shards(out=tmp_path / "set", imagery=imagery, osm=osm, side=16).manifest
    assert manifest.gsd.keys() == {"10"}
    assert manifest.sources[0]["imagery"]["date"] == "2026-10-01"
    assert manifest.samples > 0


def test_without_the_network_it_is_said_what_is_missing(tmp_path, places):
    with pytest.raises(UnavailableError, match="offline"):
        built(tmp_path, places, "sentinel2", offline=True)


@pytest.mark.parametrize(
    ("imagery", "words"),
    [
        ((), "name the imagery"),
        (("xyz:https://host/{z}/{x}.png@17",), "must contain"),
        (("a/ortho.tif", "b/ortho.tif"), r"two images are called ortho\.tif"),
        (("",), "has no name"),
    ],
)
def test_what_cannot_be_imagery_is_refused(tmp_path, imagery, words):
    with pytest.raises(ConfigError, match=words):
        ShardRequest(out=tmp_path / "set", imagery=imagery)


def test_fetched_imagery_needs_osm(tmp_path):
    with pytest.raises(InputError, match="for the area of OSM files"):
        build_shards(out=tmp_path / "set", imagery="sentinel2")


def test_rasters_of_one_name_in_several_folders_are_told_apart(tmp_path, places):
    for year in ("2020", "2021"):
        (tmp_path / "years" / year).mkdir(parents=True)
        shutil.copy(places / "west.tif", tmp_path / "years" / year / "ortho.tif")
    manifest = built(tmp_path, places, tmp_path / "years")
    assert [s["name"] for s in manifest.sources] == ["2020/ortho.tif", "2021/ortho.tif"]
    assert "the same place twice" not in manifest.dropped
