"""What a model answers to labelled samples, and how it encodes them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import HeteroData

from geolink.datasets.base import LabelledData
from geolink.models.geolink import GeoLink
from geolink.models.threads import each_alone_on_cpu
from geolink.samples import Sample, normalise

Change = Callable[[str, Sample], Sample]
Ask = Callable[[Sequence[Sample]], NDArray[np.float32]]


@dataclass(frozen=True)
class Answer:
    """What a model says of one sample.

    Attributes:
        key: name of the sample.
        sample: as the model saw it.
        values: float32 class probabilities (classes, H, W) or (classes,), numbers (k,), or the
            encoding of the scene (width,).
    """

    key: str
    sample: Sample
    values: NDArray[np.float32]


def answers(
    model: GeoLink,
    data: LabelledData,
    keys: Sequence[str],
    *,
    device: torch.device,
    change: Change | None = None,
    batch_size: int = 16,
) -> Iterator[Answer]:
    """The answers of a model to samples, in their order.

    Args:
        model: in evaluation mode, on `device`.
        data: labelled data.
        keys: the samples.
        device: where the model is.
        change: what is done to each sample first, such as hiding objects.
        batch_size: samples at once.
    """
    ask = partial(_answer, model, device)
    return _asked(ask, data, keys, device=device, change=change, batch_size=batch_size)


def encodings(
    model: GeoLink,
    data: LabelledData,
    keys: Sequence[str],
    *,
    device: torch.device,
    change: Change | None = None,
    batch_size: int = 16,
) -> Iterator[Answer]:
    """The scene encodings of samples by a model, in their order; arguments as of `answers`."""
    ask = partial(_encoding, model, device)
    return _asked(ask, data, keys, device=device, change=change, batch_size=batch_size)


def _asked(
    ask: Ask,
    data: LabelledData,
    keys: Sequence[str],
    *,
    device: torch.device,
    change: Change | None,
    batch_size: int,
) -> Iterator[Answer]:
    """What `ask` says of samples.

    It depends neither on the batch nor, on a CPU, on the number of cores: there every sample goes
    through the model alone.
    """

    def read(key: str) -> Sample:
        sample = data.sample(key)
        return sample if change is None else change(key, sample)

    waiting = iter(keys)
    while group := list(islice(waiting, batch_size)):
        samples = [read(key) for key in group]
        values = np.concatenate(each_alone_on_cpu(ask, samples, device))
        yield from map(Answer, group, samples, values)


@torch.inference_mode()
def _answer(model: GeoLink, device: torch.device, samples: Sequence[Sample]) -> NDArray[np.float32]:
    pixels, graphs = _inputs(model, device, samples)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        values = model(pixels, graphs).float()
    if model.config.task != "regress":
        values = values.softmax(dim=1)
    result: NDArray[np.float32] = values.cpu().numpy()
    return result


@torch.inference_mode()
def _encoding(
    model: GeoLink, device: torch.device, samples: Sequence[Sample]
) -> NDArray[np.float32]:
    pixels, graphs = _inputs(model, device, samples)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        values: NDArray[np.float32] = model.encode_scene(pixels, graphs).float().cpu().numpy()
    return values


def _inputs(
    model: GeoLink, device: torch.device, samples: Sequence[Sample]
) -> tuple[Tensor, list[HeteroData | None]]:
    """Pixels and graphs of samples as the model takes them."""
    pixels = normalise(np.stack([s.rgb for s in samples]), model.card.mean, model.card.std)
    graphs = [None if s.graph is None else s.graph.to(device) for s in samples]
    return pixels.to(device), graphs
