"""Which samples make up which step: a pure function of the seed, split over processes."""

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from geolink.shards import Draw
from geolink.training.settings import TrainingSettings

Sample = TypeVar("Sample", covariant=True)


class Batch(Protocol):
    """What a task is fed."""

    @property
    def keys(self) -> Sequence[str]:
        """Names of the samples."""
        ...

    @property
    def skipped(self) -> Sequence[str]:
        """Why other samples were skipped in favour of these."""
        ...

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        ...


class OrderedSamples(Protocol[Sample]):
    """Samples that are drawn in an order which follows from seed and epoch."""

    def __len__(self) -> int: ...

    def __getitem__(self, draw: Draw) -> Sample: ...

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """A permutation of all samples."""
        ...


class Steps(Sampler[list[Draw]]):
    """The draws of every part of every step that is still to be done, for one process.

    An epoch is cut into batches of `settings.batch_size`, and what is left over at its end is not
    drawn; a batch is cut into parts, and a part into a share for each process. So a batch is the
    same set of samples however many processes work on it.

    Args:
        samples: what is drawn from.
        settings: batch, parts, epochs and seed.
        start: steps that are done already.
        rank: number of this process.
        world_size: processes.
    """

    def __init__(
        self,
        samples: OrderedSamples[Any],
        settings: TrainingSettings,
        *,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.samples = samples
        self.settings = settings
        self.per_epoch = settings.steps_per_epoch(len(samples))
        self.total = self.per_epoch * settings.epochs
        self.start = start
        self.rank = rank
        self.share = settings.share_of(world_size)
        self.world_size = world_size

    def __len__(self) -> int:
        return (self.total - self.start) * self.settings.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        size = self.settings.batch_size
        for epoch in range(self.start // self.per_epoch, self.settings.epochs):
            order = self.samples.order(self.settings.seed, epoch)
            for step in range(max(self.start - epoch * self.per_epoch, 0), self.per_epoch):
                yield from self._parts(epoch, order[step * size : (step + 1) * size])

    def _parts(self, epoch: int, batch: NDArray[np.int64]) -> Iterator[list[Draw]]:
        parts = batch.reshape(self.settings.accumulate, self.world_size, self.share)
        for mine in parts[:, self.rank].tolist():
            yield [Draw(epoch, index) for index in mine]


def make_loader(
    samples: OrderedSamples[Sample],
    steps: Steps,
    collate: Callable[[list[Sample]], Batch],
    *,
    pin: bool,
) -> DataLoader[Any]:
    """Loads the draws of `steps`, in their order, ahead of the device.

    Args:
        samples: what is drawn from.
        steps: the draws.
        collate: joins the samples of a part.
        pin: put batches into memory that a GPU reads from without a copy.
    """
    workers = steps.settings.workers
    return DataLoader(
        _as_dataset(samples),
        batch_sampler=steps,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals_to_parent,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
    )


def _as_dataset(samples: OrderedSamples[Sample]) -> Dataset[Sample]:
    """The loader asks for items by draw, which is all that it needs of a data set."""
    return samples  # type: ignore[return-value]


def _leave_signals_to_parent(_: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the parent ends its step, then the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
