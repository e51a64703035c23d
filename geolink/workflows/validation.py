"""Figures of a model on labelled samples, and the best state of a run by one of them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
BEST = "best.pt"


def hide_all_givers(key: str, sample: Sample) -> Sample:
    """The sample without the objects that gave its labels, so that none can be read off them."""
    return hide_givers(sample, 1.0, np.random.default_rng(0))


def figures(
    model: GeoLink, data: LabelledData, keys: Sequence[str], device: torch.device
) -> dict[str, float]:
    """What is measured of a model on samples, the decisive figure first.

    Args:
        model: in evaluation mode, on `device`.
        data: labelled data.
        keys: samples to measure.
        device: where the model is.
    """
    found = answers(model, data, keys, device=device, change=hide_all_givers)
    if data.task == "regress":
        pairs = [(answer.sample.label, answer.values) for answer in found]
        labels, values = (np.stack(column).ravel() for column in zip(*pairs, strict=True))
        sums = RegressionSums.of(labels, values, origin=float(labels.mean()))
        return sums.figures(data.legend)
    matrix = _no_pixels(len(data.legend))
    for answer in found:
        matrix += ConfusionMatrix.of(
            answer.sample.label,
            np.asarray(answer.values.argmax(axis=0), np.uint8),
            classes=len(data.legend),
        )
    if data.task == "classify":
        return {"accuracy": matrix.accuracy, "mean_f1": matrix.mean_f1, "kappa": matrix.kappa}
    return {"miou": matrix.mean_iou, "mean_f1": matrix.mean_f1, "accuracy": matrix.accuracy}


def _no_pixels(classes: int) -> ConfusionMatrix:
    return ConfusionMatrix(np.zeros((classes, classes), np.int64))


class Validator:
    """Measures a run at the end of epochs, keeps its best state, and tells when it got no better.

    What it knows lies in the run folder, so that a resumed run goes on with it.

    Args:
        data: labelled data.
        keys: the validation samples; without any, the last state counts as the best.
        folder: the run folder.
        patience: epochs without a better figure that are waited for; 0 waits to the end.
        device: where the model is trained.
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
        self._path = folder / BEST
        self._patience = patience
        self._device = device
        self.history: dict[int, float] = {}
        self.best_epoch = 0
        if self._path.is_file():
            content = self._load()
            self.history, self.best_epoch = dict(content["history"]), content["epoch"]

    @property
    def best(self) -> float:
        """The best figure so far; NaN before the first and without validation samples."""
        return self.history.get(self.best_epoch, float("nan"))

    def exhausted(self) -> bool:
        """True where waiting for a better figure has an end."""
        waited = max(self.history, default=0) - self.best_epoch
        return bool(self._patience) and bool(self._keys) and waited >= self._patience

    def __call__(self, task: nn.Module, epoch: int) -> Mapping[str, float]:
        """Measures the task after an epoch; keeps its state where it is the best so far."""
        assert isinstance(task, FinetuneTask)
        found: dict[str, float] = {}
        figure = float(epoch)  # without validation samples, later is better
        if self._keys:
            found = figures(task.model, self._data, self._keys, self._device)
            figure = found[DECISIVE[self._data.task]]
        earlier = [value for at, value in self.history.items() if at < epoch]
        self.history = {at: v for at, v in self.history.items() if at < epoch} | {epoch: figure}
        state = task.state_dict()
        if not any(value >= figure for value in earlier):
            self.best_epoch = epoch
        else:
            state = self._load()["model"]
        self._save({"epoch": self.best_epoch, "history": self.history, "model": state})
        return {f"validation_{name}": value for name, value in found.items()}

    def restore(self, task: nn.Module) -> None:
        """Gives a task its best state.

        Raises:
            CheckpointError: the state is damaged.
        """
        task.load_state_dict(self._load()["model"])

    def _save(self, content: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        replace_bytes(self._path, buffer.getvalue())

    def _load(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
            return {name: content[name] for name in ("epoch", "history", "model")}
        except Exception as error:  # a damaged pickle can fail in any way
            raise CheckpointError(
                f"the state {self._path} cannot be read ({error}); start anew with --overwrite"
            ) from None
