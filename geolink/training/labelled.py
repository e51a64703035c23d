"""Labelled samples as the training loop draws them: changed alike in image, graph and label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geolink.config import ModelConfig, Task
from geolink.datasets.base import LabelledData
from geolink.errors import ConfigError
from geolink.models.graph_batch import GraphBatch, collate
from geolink.samples import IMAGE_MEAN, Sample, flip, hide_givers
from geolink.shards import Draw, sample_rng
from geolink.training.appearance import seen_anew

Appearance: TypeAlias = Literal["mild", "mixed", "strong"]


@dataclass(frozen=True)
class Variation:
    """How samples differ from one time that they are drawn to the next.

    Attributes:
        symmetries: one of the eight symmetries of the square.
        brightness: greatest relative change of the image's brightness, contrast and colour balance.
        appearance: `mild` changes no more than this; `strong` shows the image as another season,
            light, air and camera would, as far as colours that tell nothing; `mixed` does either to
            half of the images.
        no_image: share of samples whose image is blank, so that OSM alone has to do.
        no_osm: share of samples that are shown without OSM, so that the model does without, too.
        all_hidden: share of samples without any object that gave a label.
        none_hidden: share of samples with all of them. Of the rest, a random share is hidden. Only
            labels from OSM have such objects.
    """

    symmetries: bool = True
    brightness: float = 0.2
    appearance: Appearance = "mild"
    no_image: float = 0.0
    no_osm: float = 0.15
    all_hidden: float = 0.45
    none_hidden: float = 0.15

    def __post_init__(self) -> None:
        if self.appearance not in get_args(Appearance):
            known = ", ".join(get_args(Appearance))
            raise ConfigError(f"the appearance is one of {known}, not {self.appearance!r}")
        shares = (self.no_osm, self.all_hidden, self.none_hidden)
        if min(shares) < 0 or sum(shares) > 1 or not 0 <= self.no_image + self.no_osm <= 1:
            raise ConfigError(
                "the shares of samples without an image, without OSM, and with hidden objects lie "
                "in 0..1 together"
            )

    def apply(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """One variant of a sample."""
        if self.symmetries:
            transpose, mirror_x, mirror_y = rng.random(3) < 0.5
            sample = flip(sample, transpose=transpose, mirror_x=mirror_x, mirror_y=mirror_y)
        sample = self._hide(sample, rng)
        return replace(sample, rgb=self._picture(sample, rng))

    def _picture(self, sample: Sample, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The image in other colours, or blank; of a sample without OSM it is never blank."""
        has_osm = sample.graph is not None and sample.graph.num_nodes
        if has_osm and rng.random() * (1 - self.no_osm) < self.no_image:
            return blank(sample.rgb)
        if self.appearance == "strong" or (self.appearance == "mixed" and rng.random() < 0.5):
            return seen_anew(sample.rgb, rng)
        return self._colour(sample.rgb, rng) if self.brightness else sample.rgb

    def _hide(self, sample: Sample, rng: np.random.Generator) -> Sample:
        chance = rng.random()
        if chance < self.no_osm:
            return replace(sample, graph=None, givers={})
        if not any(giver.any() for giver in sample.givers.values()):
            return sample
        if chance < self.no_osm + self.all_hidden:
            return hide_givers(sample, 1.0, rng)
        if chance < self.no_osm + self.all_hidden + self.none_hidden:
            return sample
        return hide_givers(sample, rng.random(), rng)

    def _colour(self, rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """(..., 3, H, W) pixels with another exposure, contrast and balance of the bands."""
        most = self.brightness
        exposure, contrast = rng.uniform(1 - most, 1 + most, 2)
        balance = rng.uniform(1 - most / 2, 1 + most / 2, (3, 1, 1))
        pixels = rgb.astype(np.float32)
        middle = pixels.mean()
        changed = ((pixels - middle) * contrast + middle) * exposure * balance
        coloured: NDArray[np.uint8] = np.rint(changed).clip(0, 255).astype(np.uint8)
        return coloured


def blank(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image of the same shape that tells nothing: the mean colour everywhere."""
    colour = np.rint(255 * np.array(IMAGE_MEAN)).astype(np.uint8)
    return np.broadcast_to(colour[:, None, None], rgb.shape).copy()


@dataclass(frozen=True)
class Example:
    """A sample by its name."""

    key: str
    sample: Sample


@dataclass(frozen=True)
class LabelledBatch:
    """B samples as tensors.

    Attributes:
        images: (B, 3, H, W) uint8, or (B, 2, 3, H, W) of pairs of dates.
        graphs: their OSM objects.
        labels: (B, H, W) or (B,) int64 class ids, or (B, k) float32 numbers.
        keys: names of the samples.
        skipped: always empty; labelled data that cannot be read stops the run.
    """

    images: Tensor
    graphs: GraphBatch
    labels: Tensor
    keys: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "LabelledBatch":
        """The same batch on another device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            graphs=self.graphs.to(device),
            labels=self.labels.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "LabelledBatch":
        """The same batch with its images where a GPU reads directly."""
        return replace(self, images=self.images.pin_memory())


class LabelledSamples:
    """The samples of some keys, varied by what follows from seed, epoch and name alone.

    Args:
        data: labelled data.
        keys: those to draw from.
        seed: decides the variants.
        variation: how they differ; None shows samples as they are.
    """

    def __init__(
        self,
        data: LabelledData,
        keys: Sequence[str],
        *,
        seed: int = 0,
        variation: Variation | None = None,
    ) -> None:
        self.data = data
        self.keys = tuple(keys)
        self.seed = seed
        self.variation = variation

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, draw: Draw) -> Example:
        key = self.keys[draw.index]
        sample = self.data.sample(key)
        if self.variation is not None:
            sample = self.variation.apply(sample, sample_rng(key, self.seed, draw.epoch))
        return Example(key, sample)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of the samples."""
        return np.random.default_rng([seed, epoch]).permutation(len(self.keys))


class Collate:
    """Joins examples into batches for one model; done by the workers.

    Args:
        config: of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def __call__(self, examples: Sequence[Example]) -> LabelledBatch:
        """The batch of some examples."""
        samples = [example.sample for example in examples]
        graphs = collate(
            [sample.graph for sample in samples],
            len(samples),
            semantic_dim=self.config.semantic_dim,
            coverage_cells=(self.config.coverage_side or 0) ** 2,
        )
        images = torch.from_numpy(np.stack([sample.rgb for sample in samples]))
        keys = tuple(example.key for example in examples)
        return LabelledBatch(images, graphs, label_tensor(samples, self.config.task), keys)


def label_tensor(samples: Sequence[Sample], task: Task) -> Tensor:
    """Labels of samples: int64 class ids, or float32 numbers."""
    labels = torch.from_numpy(np.stack([sample.label for sample in samples]))
    return labels.float() if task == "regress" else labels.long()
