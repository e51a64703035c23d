import json
import logging
import os
import pickle
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released_files import official, write_released
from safetensors.torch import load_file, save_file
from servers import FileServer, HubServer

from geolink import checkpoint
from geolink.checkpoint import ModelCard, load_model, save_checkpoint
from geolink.config import ModelConfig
from geolink.errors import CheckpointError, ConfigError, UnavailableError
from geolink.files import sha256_of
from geolink.legend import UFZ, Legend
from geolink.models import released
from geolink.models.geolink import GeoLink
from geolink.sources.model_files import RELEASED_KEY_COUNTS

IMAGES = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GeoLink(ModelConfig(image_size=64)).eval()


@pytest.fixture(scope="module")
def card(model):
    return ModelCard(
        name="test",
        config=model.config,
        legend=UFZ,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        gsd_range=(0.5, 3.0),
        tag_encoder="stub",
        key_counts={"building": 10, "addr street": 3},
        training_data="nothing",
        licence="MIT",
        metrics={"miou": 0.5},
    )


@pytest.fixture
def run(tmp_path, model, card):
    save_checkpoint(tmp_path / "run", model, card)
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def edit_card(run, **changes):
    path = run / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_weights(run, state):
    """Other weights with a card that vouches for them."""
    save_file(state, run / "model.safetensors")
    edit_card(run, sha256=sha256_of(run / "model.safetensors"))


# Our format


def test_round_trip(run, model, card):
    loaded = load_model(run)
    assert torch.equal(loaded(IMAGES), model(IMAGES))
    assert not loaded.training
    assert replace(loaded.card, sha256="") == card
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_half_precision_halves_the_file(run, tmp_path, model, card):
    written = save_checkpoint(tmp_path / "half", model, card, half=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", run)]
    assert sizes[0] < 0.51 * sizes[1]
    assert written.half
    loaded = load_model(tmp_path / "half")
    assert loaded.card == written
    assert next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(loaded(IMAGES), model(IMAGES), rtol=0.02, atol=0.02)


def test_the_same_model_gives_the_same_bytes(run, tmp_path, model, card):
    save_checkpoint(tmp_path / "again", model, card)
    for name in ("model.safetensors", "card.json"):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()
        assert [p.name for p in run.iterdir() if p.name.startswith(".")] == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_others_may_read_a_checkpoint(run):
    modes = [
        stat.S_IMODE((run / name).stat().st_mode) for name in ("model.safetensors", "card.json")
    ]
    assert modes[0] == modes[1]


def test_a_file_with_its_own_card(run):
    weights = run / "model.safetensors"
    (run / "card.json").rename(run / "map.json")
    assert load_model(weights.rename(run / "map.safetensors")).card.name == "test"


def test_a_bundled_name(run, monkeypatch):
    monkeypatch.setattr(checkpoint, "_BUNDLED", run.parent)
    assert checkpoint.bundled_models() == ["run"]
    assert load_model("run").card.name == "test"


def test_a_remote_model_is_fetched_once(run, model, monkeypatch):
    files = {name: (run / name).read_bytes() for name in ("model.safetensors", "card.json")}
    with HubServer({"owner/repo": files}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert torch.equal(load_model("hf:owner/repo")(IMAGES), model(IMAGES))
    assert torch.equal(load_model("hf:owner/repo", offline=True)(IMAGES), model(IMAGES))


def test_a_released_model_is_fetched_with_its_key_counts(tmp_path, multimodal):
    path = write_released(tmp_path / "vit.pth", multimodal)
    counts = b'{"addr:street": 7}'
    with FileServer({"/vit.pth": path, f"/{RELEASED_KEY_COUNTS}": counts}) as server:
        assert load_model(f"{server.url}/vit.pth").card.key_counts == {"addr street": 7}


def test_a_remote_model_that_cannot_be_had():
    with pytest.raises(UnavailableError, match="run `geolink fetch --model gdrive:1` on"):
        load_model("gdrive:1", offline=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_model("hf:owner")


def test_no_such_model(tmp_path):
    with pytest.raises(UnavailableError, match="there is no model nowhere"):
        load_model("nowhere")
    with pytest.raises(UnavailableError, match="there is no model"):
        load_model(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointError, match="is no model file"):
        load_model(tmp_path / "notes.txt")


def test_truncated_weights(run):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged or not the card's"):
        load_model(run)
    edit_card(run, sha256=sha256_of(path))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_model(run)


def test_missing_keys(run):
    state = load_file(run / "model.safetensors")
    del state["image.cls_token"]
    rewrite_weights(run, state)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors, such as 'image\.cls_token'"):
        load_model(run)


def test_unknown_keys(run):
    rewrite_weights(run, load_file(run / "model.safetensors") | {"extra": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="has unknown 1 tensors, such as 'extra'"):
        load_model(run)


def test_wrong_class_count(run):
    state = load_file(run / "model.safetensors")
    for part in ("weight", "bias"):
        state[f"decoder.classify.{part}"] = state[f"decoder.classify.{part}"][:4]
    rewrite_weights(run, {name: tensor.contiguous() for name, tensor in state.items()})
    with pytest.raises(CheckpointError, match="another architecture or number of classes"):
        load_model(run)


def test_another_architecture(run):
    config = ModelConfig("vit_small_patch16_224", image_size=64)
    edit_card(run, config=config.to_dict())
    with pytest.raises(CheckpointError, match="another architecture"):
        load_model(run)


def test_a_card_that_asks_for_much_memory(run):
    edit_card(run, config={"fusion_dim": 999_936})
    with pytest.raises(CheckpointError, match="another architecture"):
        load_model(run)


def test_weights_that_are_no_numbers(run):
    state = load_file(run / "model.safetensors")
    state["image.cls_token"][:] = float("nan")
    rewrite_weights(run, state)
    with pytest.raises(CheckpointError, match="not finite"):
        load_model(run)


def test_no_card(run):
    (run / "card.json").unlink()
    with pytest.raises(CheckpointError, match="has no card"):
        load_model(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not readable as JSON"),
        (b"\xff\xfe\x00", "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"gsd_range": [NaN, 1]}', "not readable as JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b"{}", "'config' is missing"),
        (b" " * (16 * 2**20 + 1), "too large"),
    ],
)
def test_a_card_that_is_no_card(run, text, message):
    (run / "card.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=message):
        load_model(run)


WRONG = [None, 3, -1, True, "x", [], [1], ["a", "b"], {}, {"a": "b"}, {"classes": [1]}, 10**400]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: str(value)[:20])
def test_fields_of_the_wrong_type(run, value):
    original = json.loads((run / "card.json").read_text())
    fitting = {("name", "x"), ("tag_encoder", "x"), ("training_data", "x"), ("licence", "x")}
    for name in original:
        if (name, str(value)) in fitting or (name == "half" and value is True):
            continue
        if value == {} and name in ("key_counts", "metrics", "config"):
            continue
        edit_card(run, **{**original, name: value})
        with pytest.raises(CheckpointError):
            load_model(run)


def test_an_unknown_field(run):
    edit_card(run, colour="red")
    with pytest.raises(CheckpointError, match="cannot be used: 'colour' is unknown"):
        load_model(run)


def test_a_card_agrees_with_its_config(card):
    with pytest.raises(ConfigError, match="the legend has 9 classes, the model 4"):
        replace(card, config=ModelConfig(classes=4))
    with pytest.raises(ConfigError, match="need 5 numbers, one per band"):
        replace(card, config=ModelConfig(bands=5))
    with pytest.raises(ConfigError, match="rising positive"):
        replace(card, gsd_range=(3.0, 1.0))
    assert not replace(card, legend=Legend("none", ())).has_head


# The released format


@pytest.fixture(scope="module")
def trained():
    """A model in the released profile."""
    torch.manual_seed(1)
    return GeoLink(ModelConfig.released("vit_tiny_patch16_224")).eval()


@pytest.fixture(scope="module")
def multimodal(trained):
    state = official(trained.state_dict(), released._MULTIMODAL)
    return state | {"img_encoder.cls_token": torch.zeros(1, 1, 192)}


def test_a_released_model_is_converted_once(tmp_path, cache, trained, multimodal, monkeypatch):
    path = write_released(tmp_path / "geolink_vit.pth", multimodal)
    model = load_model(path)
    images = torch.randn(1, 3, 224, 224)
    for found, expected in zip(model.encode(images), trained.encode(images), strict=True):
        assert torch.equal(found, expected)
    assert model.config == trained.config
    assert not model.card.has_head
    assert model.card.tag_encoder == "clip-openai/clip-vit-base-patch16"
    assert len(list(cache.glob("converted/*/model.safetensors"))) == 1
    monkeypatch.setattr(checkpoint, "convert_released", None)
    assert torch.equal(load_model(path)(images), model(images))


def test_the_published_key_counts_come_along(tmp_path, multimodal, caplog):
    path = write_released(tmp_path / "model.pth", multimodal)
    with caplog.at_level(logging.WARNING):
        assert load_model(path).card.key_counts == {}
    assert "is not beside" in caplog.text
    counts = tmp_path / RELEASED_KEY_COUNTS
    counts.write_text('{"addr:street": 7}')
    assert load_model(path).card.key_counts == {"addr street": 7}
    counts.write_text("7")
    with pytest.raises(CheckpointError, match="holds no JSON object"):
        load_model(path)


def test_a_released_image_only_vit(tmp_path, trained):
    state = official(trained.state_dict(), released._IMAGE_ONLY)
    table = released.embed_grid((14, 14), 192, grid_size=14, device=torch.device("cpu"))
    state |= {"pos_embed": table[None], "head.weight": torch.zeros(4, 192)}
    model = load_model(write_released(tmp_path / "vit.pth", state))
    images = torch.randn(1, 3, 224, 224)
    for found, expected in zip(model.encode(images)[:3], trained.encode(images)[:3], strict=True):
        assert torch.equal(found, expected)


def test_a_released_file_that_lacks_weights(tmp_path, multimodal):
    state = {n: t for n, t in multimodal.items() if n != "osm_norm.line.bias"}
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors.*osm\.layers\.0\.norm\.line\.bias"):
        load_model(write_released(tmp_path / "m.pth", state))


def test_a_released_file_of_other_shapes(tmp_path, multimodal):
    state = {**multimodal, "osm_norm.line.bias": torch.zeros(64)}
    with pytest.raises(CheckpointError, match="another architecture"):
        load_model(write_released(tmp_path / "m.pth", state))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no 'model_state_dict'"),
        ({"state": {}}, "no 'model_state_dict'"),
        ({"model_state_dict": {"a": 1}}, "is no tensor"),
        ({"model_state_dict": {1: torch.zeros(1)}}, "is no tensor"),
        ({"model_state_dict": {}}, "no released GeoLink model"),
    ],
)
def test_pickles_of_something_else(tmp_path, content, message):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "m.pth")


class Intruder:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_pickle_never_runs_code(tmp_path):
    torch.save({"model_state_dict": Intruder(tmp_path / "ran")}, tmp_path / "m.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Intruder(tmp_path / "ran")))
    for name in ("m.pth", "plain.pth"):
        with pytest.raises(CheckpointError, match="holds more than weights, which is not run"):
            load_model(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [0, 10, 1000, -1000])
def test_truncated_pickles(tmp_path, multimodal, keep):
    path = write_released(tmp_path / "m.pth", {"cls_token": multimodal["cls_token"]})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(path)
