"""The pretraining task: masked samples, their batches, and what the loop asks of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geolink.config import ModelConfig
from geolink.graphs.schema import NODE_TYPES
from geolink.models.geolink import GeoLink
from geolink.models.graph_batch import GraphBatch, collate
from geolink.models.objectives import Masks, ObjectiveConfig, Objectives, SampleMask
from geolink.samples import IMAGE_MEAN, IMAGE_STD
from geolink.shards import Draw, PretrainDataset, PretrainSample, sample_rng
from geolink.training.distributed import gather


@dataclass(frozen=True)
class MaskedSample:
    """A sample and what of it is masked."""

    sample: PretrainSample
    mask: SampleMask


@dataclass(frozen=True)
class PretrainBatch:
    """B samples as tensors.

    Attributes:
        images: (B, 3, H, W) uint8.
        graphs: their OSM objects.
        masks: what of both is masked.
        keys: names of the samples.
        skipped: why other samples were skipped in favour of these.
    """

    images: Tensor
    graphs: GraphBatch
    masks: Masks
    keys: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "PretrainBatch":
        """The same batch on another device."""
        return PretrainBatch(
            self.images.to(device, non_blocking=True),
            self.graphs.to(device),
            self.masks.to(device),
            self.keys,
            self.skipped,
        )

    def pin_memory(self) -> "PretrainBatch":
        """The same batch with its images, by far its largest part, where a GPU reads directly."""
        images = self.images.pin_memory()
        return PretrainBatch(images, self.graphs, self.masks, self.keys, self.skipped)


class MaskedSamples:
    """Samples with masks that follow from seed, epoch and the sample's name alone.

    Args:
        samples: what is masked.
        model: says how many patches an image has.
        objectives: shares to mask.
        seed: decides the masks.
    """

    def __init__(
        self,
        samples: PretrainDataset,
        model: ModelConfig,
        *,
        objectives: ObjectiveConfig,
        seed: int,
    ) -> None:
        self.samples = samples
        self.model = model
        self.objectives = objectives
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of all samples."""
        return self.samples.order(seed, epoch)

    def __getitem__(self, draw: Draw) -> MaskedSample:
        """A view of a sample, and its masks."""
        sample = self.samples[draw]
        mask = SampleMask.draw(
            sample_rng(sample.key, self.seed, draw.epoch),
            self.objectives,
            patches=self.model.grid_size**2,
            nodes={kind: len(sample.graph[kind].x) for kind in NODE_TYPES},
        )
        return MaskedSample(sample, mask)

    def join(self, parts: Sequence[MaskedSample]) -> PretrainBatch:
        """Samples as a batch; done in the workers, so that the device does not wait for it."""
        samples = [part.sample for part in parts]
        graphs = collate(
            [sample.graph for sample in samples],
            len(samples),
            semantic_dim=self.model.semantic_dim,
            coverage_cells=(self.model.coverage_side or 0) ** 2,
        )
        return PretrainBatch(
            torch.stack([sample.image for sample in samples]),
            graphs,
            Masks.join([part.mask for part in parts]),
            tuple(sample.key for sample in samples),
            tuple(chain.from_iterable(sample.skipped for sample in samples)),
        )


class PretrainTask(nn.Module):
    """The losses of a batch, among them their weighted sum `loss`.

    Weights that no objective uses are frozen, so that every process and every batch has gradients
    for the same ones.

    Args:
        model: a model with its pretraining modules.
        objectives: weights and masks.
    """

    def __init__(self, model: GeoLink, objectives: ObjectiveConfig) -> None:
        super().__init__()
        self.objectives = Objectives(model, objectives, gather)
        for table in ("mean", "std"):
            values = {"mean": IMAGE_MEAN, "std": IMAGE_STD}[table]
            self.register_buffer(table, 255 * torch.tensor(values).view(-1, 1, 1), persistent=False)
        model.requires_grad_(False)
        for part in self.objectives.parts_in_use():
            part.requires_grad_(True)

    def forward(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """`loss`, and each objective's own loss before its weight."""
        objectives = self.objectives
        losses = objectives(self.normalise(batch.images), batch.graphs, batch.masks)
        loss = objectives.config.total(losses)
        if objectives.config.uses_osm:
            # The weights of a relation that no objects of the batch have get a gradient of zero,
            # not none: processes must agree on which weights have one.
            weights = objectives.model.osm.parameters()
            loss = loss + 0 * torch.stack([weight.sum() for weight in weights]).sum()
        return {"loss": loss, **losses}

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to what the model takes; on the device, a quarter of the transfer."""
        return (images - self.get_buffer("mean")) / self.get_buffer("std")
