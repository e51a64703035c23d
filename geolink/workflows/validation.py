"""Figures of a model on labelled samples, and the best state of a run by one of them."""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geolink.config import Task
from geolink.datasets.base import LabelledData
from geolink.errors import CheckpointError
from geolink.files import replace_bytes
from geolink.metrics.confusion import ConfusionMatrix
from geolink.metrics.regression import RegressionSums
from geolink.models.geolink import GeoLink
from geolink.samples import Sample, hide_givers
from geolink.training.finetuning import FinetuneTask
from geolink.workflows.answers import answers

# The figure that decides, per task; more of it is better.
DECISIVE: dict[Task, str] = {
    "segment": "miou",
    "change": "miou",
    "classify": "accuracy",
    "regress": "r2",
}
BEST, HISTORY = "best.pt", "validation.json"


def hide_all_givers(key: str, sample: Sample) -> Sample:
    """The sample without the objects that gave its labels, so that none can be read off them."""
    return hide_givers(sample, 1.0, np.random.default_rng(0))


def figures(
    model: GeoLink, data: LabelledData, keys: Sequence[str], device: torch.device
) -> dict[str, float]:
    """What is measured of a model on samples, the decisive figure first.

    Of segmentation, the figures end with the IoU of each class, as `iou.CLASS`. A figure that is
    not defined, such as the IoU of a class that is nowhere, is NaN.

    Args:
        model: in evaluation mode, on `device`.
        data: labelled data.
        keys: samples to measure.
        device: where the model is.
    """
    found = answers(model, data, keys, device=device, change=hide_all_givers)
    names = data.legend.names
    if data.task == "regress":
        pairs = [(answer.sample.label, answer.values) for answer in found]
        labels, values = (np.stack(column) for column in zip(*pairs, strict=True))
        return _of_numbers(labels, values, data)
    matrix = ConfusionMatrix(np.zeros((len(names), len(names)), np.int64))
    for answer in found:
        chosen = np.asarray(answer.values.argmax(axis=0), np.uint8)
        matrix += ConfusionMatrix.of(answer.sample.label, chosen, classes=len(names))
    if data.task == "classify":
        return {"accuracy": matrix.accuracy, "mean_f1": matrix.mean_f1, "kappa": matrix.kappa}
    per_class = {f"iou.{name}": float(iou) for name, iou in zip(names, matrix.iou, strict=True)}
    overall = {"miou": matrix.mean_iou, "mean_f1": matrix.mean_f1, "accuracy": matrix.accuracy}
    return {**overall, **per_class}


def _of_numbers(
    labels: NDArray[np.float32], values: NDArray[np.float32], data: LabelledData
) -> dict[str, float]:
    """r2, RMSE and MAE of (n, k) numbers; of several, the mean r2 and then each one's own."""
    each = {
        name: RegressionSums.of(label, value, origin=float(label.mean())).figures(data.legend)
        for name, label, value in zip(data.legend.names, labels.T, values.T, strict=True)
    }
    if len(each) == 1:
        return next(iter(each.values()))
    mean = float(np.mean([found["r2"] for found in each.values()]))
    named = {f"{figure}.{name}": v for name, found in each.items() for figure, v in found.items()}
    return {"r2": mean, **named}


class Validator:
    """Measures a run at the end of epochs, keeps its best state, and tells when it got no better.

    What it knows lies in the run folder, so that a resumed run goes on with it.

    Args:
        data: labelled data.
        keys: the validation samples; without any, the last state counts as the best.
        folder: the run folder.
        patience: epochs without a better figure that are waited for; 0 waits to the end.
        device: where the model is trained.

    Attributes:
        best: figures of the best epoch.
        best_epoch: its number; 0 before the first.
    """

    def __init__(
        self,
        data: LabelledData,
        keys: Sequence[str],
        *,
        folder: Path,
        patience: int,
        device: torch.device,
    ) -> None:
        self._data = data
        self._keys = keys
        self._folder = folder
        self._patience = patience
        self._device = device
        self.reload()

    @property
    def score(self) -> float:
        """How good the best epoch is; minus infinity where that is not defined."""
        return self._score_of(self.best)

    def reload(self) -> None:
        """Takes up what lies in the run folder: that of process 0, or of the run to go on with.

        Raises:
            CheckpointError: it is damaged.
        """
        self.best: dict[str, float] = {}
        self.best_epoch = self._epoch = 0
        path = self._folder / HISTORY
        if path.is_file():
            with _damage_named(path):
                known = json.loads(path.read_text(encoding="utf-8"))
                self.best = {name: _or_nan(value) for name, value in known["best"].items()}
                self.best_epoch, self._epoch = int(known["best_epoch"]), int(known["epoch"])

    def exhausted(self) -> bool:
        """True where waiting for a better figure has an end."""
        return bool(self._patience) and self._epoch - self.best_epoch >= self._patience

    def __call__(self, task: nn.Module, epoch: int) -> Mapping[str, float]:
        """Measures the task after an epoch; keeps its state where it is the best so far."""
        assert isinstance(task, FinetuneTask)
        found: dict[str, float] = {}
        if self._keys:
            found = figures(task.model, self._data, self._keys, self._device)
        # Where nothing can be compared, later is better.
        if self._score_of(found) > self.score or self.score == -math.inf:
            self._keep(task)
            self.best, self.best_epoch = found, epoch
        self._epoch = epoch
        known = {"epoch": epoch, "best_epoch": self.best_epoch, "best": plain(self.best)}
        replace_bytes(self._folder / HISTORY, json.dumps(known).encode())
        return {f"validation_{name}": found[name] for name in found if "." not in name}

    def restore(self, task: nn.Module) -> None:
        """Gives a task its best state.

        Raises:
            CheckpointError: the state is damaged.
        """
        path = self._folder / BEST
        with _damage_named(path):
            task.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def _keep(self, task: nn.Module) -> None:
        buffer = io.BytesIO()
        torch.save(task.state_dict(), buffer)
        replace_bytes(self._folder / BEST, buffer.getvalue())

    def _score_of(self, found: Mapping[str, float]) -> float:
        score = found.get(DECISIVE[self._data.task], math.nan)
        return score if math.isfinite(score) else -math.inf


def plain(found: Mapping[str, float]) -> dict[str, float | None]:
    """Figures for a JSON file, which knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns whatever a damaged file provokes into one sentence."""
    try:
        yield
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}); start anew with --overwrite"
        ) from None
