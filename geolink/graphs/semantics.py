"""Semantic features of tag sets, remembered: most objects share few sets that matter."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from geolink.graphs.tags import TagEncoder, encode_tags, tag_key

_CACHED_TAGS = 20_000  # distinct sets of tags; 31 MB of 384-d vectors

Tags = tuple[tuple[str, str], ...]


class Semantics:
    """Encodes tag sets, as `encode_tags` does, each distinct one once; for many threads.

    Args:
        encoder: turns tag strings into vectors.
        key_counts: corpus count per tag key, the weights of the semantic mean.
    """

    def __init__(self, encoder: TagEncoder, key_counts: Mapping[str, int]) -> None:
        self._encoder = encoder
        self._key_counts = key_counts
        self._weighs: dict[str, bool] = {}
        self._known: dict[Tags, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Semantics"], tuple[TagEncoder, Mapping[str, int]]]:
        return type(self), (self._encoder, self._key_counts)

    def __call__(self, tags: Sequence[Mapping[str, str]]) -> NDArray[np.float32]:
        """(N, D) as `encode_tags` gives them."""
        if not tags:
            return np.zeros((0, self._encoder.dim), dtype=np.float32)
        with self._lock:
            keys = [self._telling(some) for some in tags]
            fresh = [key for key in dict.fromkeys(keys) if key not in self._known]
            if len(self._known) + len(fresh) > _CACHED_TAGS:
                self._known.clear()
                fresh = list(dict.fromkeys(keys))
            if fresh:
                vectors = encode_tags([dict(key) for key in fresh], self._encoder, self._key_counts)
                self._known.update(zip(fresh, vectors, strict=True))
            return np.stack([self._known[key] for key in keys])

    def _telling(self, tags: Mapping[str, str]) -> Tags:
        """The tags that weigh anything; all of them where none does."""
        weighs = self._weighs
        for key in tags.keys() - weighs.keys():
            weighs[key] = self._key_counts.get(tag_key(key), 1) > 1
        telling = tuple(item for item in tags.items() if weighs[item[0]])
        return telling or tuple(tags.items())
