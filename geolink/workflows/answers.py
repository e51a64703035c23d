"""What a model answers to labelled samples."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from geolink.datasets.base import LabelledData
from geolink.models.geolink import GeoLink
from geolink.samples import Sample, normalise
from geolink.workflows.inference import one_thread_each

Change = Callable[[str, Sample], Sample]


@dataclass(frozen=True)
class Answer:
    """What a model says of one sample.

    Attributes:
        key: name of the sample.
        sample: as the model saw it.
        values: float32 class probabilities (classes, H, W) or (classes,), or numbers (k,).
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

    They depend neither on the batch nor, on a CPU, on the number of cores: there every sample goes
    through the model alone.

    Args:
        model: in evaluation mode, on `device`.
        data: labelled data.
        keys: the samples.
        device: where the model is.
        change: what is done to each sample first, such as hiding objects.
        batch_size: samples at once.
    """

    def read(key: str) -> Sample:
        sample = data.sample(key)
        return sample if change is None else change(key, sample)

    def answer(samples: Sequence[Sample]) -> NDArray[np.float32]:
        return _answer(model, samples, device)

    waiting = iter(keys)
    while group := list(islice(waiting, batch_size)):
        samples = [read(key) for key in group]
        if device.type == "cpu":
            with one_thread_each() as cores, ThreadPoolExecutor(cores) as pool:
                values = np.concatenate(list(pool.map(answer, ([s] for s in samples))))
        else:
            values = answer(samples)
        yield from map(Answer, group, samples, values)


@torch.inference_mode()
def _answer(model: GeoLink, samples: Sequence[Sample], device: torch.device) -> NDArray[np.float32]:
    pixels = normalise(np.stack([s.rgb for s in samples]), model.card.mean, model.card.std)
    graphs = [None if s.graph is None else s.graph.to(device) for s in samples]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        values = model(pixels.to(device), graphs).float()
    if model.config.task != "regress":
        values = values.softmax(dim=1)
    result: NDArray[np.float32] = values.cpu().numpy()
    return result
