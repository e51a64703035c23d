"""Stored samples together with what a frozen image encoder sees in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geolink.files import atomic_path
from geolink.legend import IGNORE, UFZ
from geolink.models.geolink import GeoLink
from geolink.models.image_encoder import ImageFeatures
from geolink.samples import Sample, from_arrays, hide_givers, normalise

ALL_HIDDEN_SHARE = 0.6  # samples whose label-giving objects are all hidden; the rest hide a share


@dataclass(frozen=True)
class Tile:
    """A sample, and the (B = 1) features of its picture in half precision."""

    sample: Sample
    features: ImageFeatures

    @property
    def nodes(self) -> int:
        """Nodes of the graph."""
        graph = self.sample.graph
        return 0 if graph is None else sum(map(len, graph.x_dict.values()))


def read_sample(file: Path) -> Sample:
    """A sample that `make_samples.py` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return from_arrays(arrays)


def load_tiles(folder: Path, model: GeoLink, cache: Path) -> list[Tile]:
    """All samples of a folder, with features that are computed once and then kept in `cache`."""
    kept = cache / f"{folder.name}-{model.card.sha256[:12]}"
    kept.mkdir(parents=True, exist_ok=True)
    tiles = []
    for file in sorted(folder.glob("*/*.npz")):
        sample = read_sample(file)
        features = kept / f"{file.parent.name}-{file.stem}.npz"
        if not features.exists():
            _write_features(features, model, sample)
        with np.load(features, allow_pickle=False) as arrays:
            maps = [torch.from_numpy(m[None]) for m in arrays["maps"]]
            tokens = torch.from_numpy(arrays["tokens"][None])
        grid = maps[0].shape[-2], maps[0].shape[-1]
        tiles.append(Tile(sample, ImageFeatures(maps, tokens, grid)))
    return tiles


@torch.inference_mode()
def _write_features(target: Path, model: GeoLink, sample: Sample) -> None:
    features = model.image(normalise(sample.rgb)[None])
    maps = torch.cat(features.maps).half().numpy()  # (3, C, h, w)
    with atomic_path(target, overwrite=True) as temporary:
        np.savez(temporary, maps=maps, tokens=features.tokens[0].half().numpy())


def joined(tiles: Sequence[Tile]) -> ImageFeatures:
    """The features of a batch in float32."""
    features = [tile.features for tile in tiles]
    maps = [torch.cat(level).float() for level in zip(*(f.maps for f in features), strict=True)]
    return ImageFeatures(maps, torch.cat([f.tokens for f in features]).float(), features[0].grid)


def labels(tiles: Sequence[Tile]) -> Tensor:
    """(B, H, W) class ids of a batch."""
    return torch.from_numpy(np.stack([tile.sample.label for tile in tiles])).long()


def class_weights(tiles: Sequence[Tile]) -> Tensor:
    """(classes,) weights, the inverse square root of the share of labelled pixels, mean 1."""
    ids = [np.bincount(tile.sample.label.ravel(), minlength=IGNORE + 1) for tile in tiles]
    counts = np.sum(ids, axis=0)[: len(UFZ)]
    weights = 1 / np.sqrt(np.maximum(counts / counts.sum(), 1e-3))
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def hidden(sample: Sample, rng: np.random.Generator) -> Sample:
    """Hides all, or a random share, of the objects that gave the labels."""
    share = 1.0 if rng.random() < ALL_HIDDEN_SHARE else rng.random()
    return hide_givers(sample, share, rng)


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Indices of each step's tiles, epoch by epoch in an order of its own."""
    rng = np.random.default_rng([seed, 1])
    queue: list[int] = []
    for _ in range(steps):
        while len(queue) < size:
            queue += rng.permutation(count).tolist()
        yield queue[:size]
        queue = queue[size:]
