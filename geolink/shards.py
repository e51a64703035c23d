"""Pretraining data: views of image + OSM graph, by the thousand, in a known order.

A draw names an epoch and a sample; what comes back depends on nothing else, so that any number of
workers and processes sees the same batches, and a run that was cut goes on with the same ones.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import HeteroData

from geolink.augment import Augmentation, View, open_picture
from geolink.errors import InputError
from geolink.graphs.tags import TagEncoder
from geolink.sources.candidates import Filters, PairSource
from geolink.sources.shard_files import TileSample, read_sample, shard_index
from geolink.sources.shard_parts import collect
from geolink.sources.shard_stores import open_store
from geolink.tile_graphs import TileGraphs

logger = logging.getLogger(__name__)

SIDE = 224
WINDOW_SHARDS = 8
_REPLACEMENTS = 63  # so many in a row fail only where nearly all of a set is lost


@dataclass(frozen=True)
class Draw:
    """One sample in one epoch: the index that a pretraining data set is asked by."""

    epoch: int
    index: int


@dataclass(frozen=True)
class PretrainSample:
    """A view of one tile.

    Attributes:
        image: (3, side, side) uint8.
        graph: the graph of the objects in the view, maybe without a node; `graph[type].object`
            (N,) int64 numbers the objects, which all parts of one have in common.
        key: name of the sample in its set.
        skipped: why other samples were skipped in favour of this one; empty as a rule.
    """

    image: Tensor
    graph: HeteroData
    key: str
    skipped: tuple[str, ...] = ()


class ViewOptions(TypedDict, total=False):
    """What every pretraining data set may be asked for.

    Attributes:
        augmentation: which views are drawn; None, the default, shows tiles whole and as they are.
        seed: decides the views; 0 by default.
        side: height and width of the images, pixels; 224 by default.
        coverage_side: as for `geolink.build_graph`.
        on_skip: called with the reason for each sample that is skipped.
    """

    augmentation: Augmentation | None
    seed: int
    side: int
    coverage_side: int | None
    on_skip: Callable[[str], None] | None


class PretrainDataset(Dataset[PretrainSample], ABC):
    """What all pretraining data have in common: order, views, graphs, and what is skipped.

    A sample that cannot be read is replaced by another, which follows from seed, epoch and index
    like everything else; all others stay as they are. Reasons are logged once, counted in
    `skipped`, and handed to `on_skip`; as workers count for themselves, they also come with the
    sample.

    Args:
        counts: number of samples of each shard.
        encoder: turns tag strings into vectors.
        key_counts: corpus count per tag key, the weights of the semantic mean.
        **options: see `ViewOptions`.

    Attributes:
        skipped: how often each reason led to a replacement, in this process.
    """

    def __init__(
        self,
        counts: Sequence[int],
        *,
        encoder: TagEncoder,
        key_counts: Mapping[str, int],
        **options: Unpack[ViewOptions],
    ) -> None:
        self.augmentation = options.get("augmentation")
        self.seed = options.get("seed", 0)
        self.side = options.get("side", SIDE)
        self.skipped: Counter[str] = Counter()
        self._counts = tuple(counts)
        self._starts = [0, *accumulate(counts)]
        self._graphs = TileGraphs(encoder, key_counts, coverage_side=options.get("coverage_side"))
        self._on_skip = options.get("on_skip")

    @abstractmethod
    def _read(self, shard: int, row: int) -> TileSample:
        """One stored sample.

        Raises:
            InputError: it cannot be read.
        """

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, draw: Draw) -> PretrainSample:
        """The view of one sample in one epoch.

        Raises:
            IndexError: there is no such sample.
            InputError: the sample and many others cannot be read.
        """
        if not 0 <= draw.index < len(self):
            raise IndexError(f"sample {draw.index} of {len(self)}")
        rng = np.random.default_rng([self.seed, draw.epoch, draw.index])
        others = rng.integers(len(self), size=_REPLACEMENTS)
        reasons: list[str] = []
        for step, index in enumerate([draw.index, *others.tolist()]):
            try:
                image, graph, key = self._view(index, draw.epoch, step)
            except InputError as error:
                reasons.append(str(error))
                self._note(str(error))
            else:
                return PretrainSample(image, graph, key, tuple(reasons))
        raise InputError(f"{len(reasons)} samples in a row cannot be read; the last: {reasons[-1]}")

    def stored(self, index: int) -> TileSample:
        """A sample as it is stored.

        Raises:
            InputError: it cannot be read.
        """
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._read(shard, index - self._starts[shard])

    def order(self, seed: int, epoch: int, *, window: int = WINDOW_SHARDS) -> NDArray[np.int64]:
        """A permutation of all samples, for one epoch.

        Shards are shuffled, and samples are shuffled among those of `window` shards, so that a
        reader has few shards open at a time.

        Returns:
            (len(self),) sample numbers; batch k of B samples is `order[k * B : (k + 1) * B]`.
        """
        rng = np.random.default_rng([seed, epoch])
        shards = rng.permutation(len(self._counts))
        rows = [np.arange(self._starts[s], self._starts[s + 1], dtype=np.int64) for s in shards]
        windows = [
            rng.permutation(np.concatenate(rows[start : start + window]))
            for start in range(0, len(rows), window)
        ]
        return np.concatenate(windows) if windows else np.empty(0, dtype=np.int64)

    def _view(self, index: int, epoch: int, step: int) -> tuple[Tensor, HeteroData, str]:
        """Image, graph and key of a sample that is drawn, or the `step`-th to replace one."""
        sample = self.stored(index)
        picture = open_picture(sample.image)
        view = View()
        if self.augmentation is not None:
            # A replacement has a view of its own, so that it is no copy.
            rng = sample_rng(sample.key, self.seed, epoch, step)
            view = self.augmentation.draw(rng, picture.width / picture.height)
        image = torch.from_numpy(view.image(picture, self.side))
        return image, self._graphs.build(sample.objects, view), sample.key

    def _note(self, reason: str) -> None:
        if reason not in self.skipped:
            logger.warning("skipped: %s", reason)
        self.skipped[reason] += 1
        if self._on_skip is not None:
            self._on_skip(reason)


def sample_rng(key: str, seed: int, epoch: int, *numbers: int) -> np.random.Generator:
    """Randomness of one sample in one epoch, and of whatever numbers tell apart beside."""
    name = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng([seed, epoch, name, *numbers])


class ShardDataset(PretrainDataset):
    """The samples of a set of shards, as `build_shards` makes it.

    Args:
        place: folder or address that holds `manifest.json` and the shards.
        encoder: turns tag strings into vectors.
        key_counts: corpus count per tag key; by default those of the manifest.
        offline: use no shards but those that are here.
        **options: see `ViewOptions`.

    Attributes:
        manifest: what is in the set, and where it comes from.

    Raises:
        InputError: the manifest is missing or damaged, or names no sample.
        UnavailableError: it cannot be had.
    """

    def __init__(
        self,
        place: str | Path,
        *,
        encoder: TagEncoder,
        key_counts: Mapping[str, int] | None = None,
        offline: bool = False,
        **options: Unpack[ViewOptions],
    ) -> None:
        self._store = open_store(place, offline=offline)
        self.manifest = self._store.manifest
        super().__init__(
            [shard.samples for shard in self.manifest.shards],
            encoder=encoder,
            key_counts=self.manifest.key_counts if key_counts is None else key_counts,
            **options,
        )

    def _read(self, shard: int, row: int) -> TileSample:
        path = self._store.path(shard)
        entries = shard_index(path)
        if row >= len(entries):
            raise InputError(
                f"the shard {path.name} is damaged after {len(entries)} of "
                f"{self._counts[shard]} samples"
            )
        return read_sample(path, entries[row])


class PairDataset(PretrainDataset):
    """The samples of a few sources without shards, all kept in memory; for small sets.

    Args:
        sources: as `geolink.sources.pairs.find_pairs` finds them.
        filters: what a candidate must offer to become a sample.
        encoder: turns tag strings into vectors.
        key_counts: corpus count per tag key; by default those of the samples.
        **options: see `ViewOptions`.

    Attributes:
        tally: what became of the candidates.

    Raises:
        InputError: not one candidate is a sample.
    """

    def __init__(
        self,
        sources: Iterable[PairSource],
        filters: Filters | None = None,
        *,
        encoder: TagEncoder,
        key_counts: Mapping[str, int] | None = None,
        **options: Unpack[ViewOptions],
    ) -> None:
        runs = [(source, range(len(source))) for source in sources]
        self._samples, self.tally = collect(runs, filters or Filters())
        if not self._samples:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.tally.dropped.items())
            raise InputError(f"not one pair of image and OSM can be used ({reasons or 'no image'})")
        super().__init__(
            [len(self._samples)],
            encoder=encoder,
            key_counts=self.tally.semantic_keys if key_counts is None else key_counts,
            **options,
        )

    def _read(self, shard: int, row: int) -> TileSample:
        return self._samples[row]
