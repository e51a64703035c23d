"""One run as a lightning module: rates, gradients, random numbers, and the count of steps."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from geolink.errors import GeolinkError
from geolink.training.data import Batch
from geolink.training.settings import TrainingSettings
from geolink.training.sharding import restore_optimizer, spread, whole_weights
from geolink.training.state import TrainingState

_NAMES_SHOWN = 8


class DivergedError(GeolinkError):
    """The loss or its gradient is no finite number."""


class TrainingRun(LightningModule):
    """Trains a task: a module whose forward gives the losses of a batch, among them `loss`.

    Args:
        task: what is trained; weights that need no gradient stay as they are.
        settings: how.
        steps: steps of the whole run.
        steps_per_epoch: steps of one pass over the data.
        state: where to go on from; None starts anew.

    Attributes:
        step: steps that are done.
        average: running average of the task, None where it is not asked for.
    """

    def __init__(
        self,
        task: nn.Module,
        settings: TrainingSettings,
        *,
        steps: int,
        steps_per_epoch: int,
        state: TrainingState | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.settings = settings
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.step = state.step if state else 0
        self._state = state
        self._parts: deque[tuple[Tensor, tuple[str, ...]]] = deque(maxlen=settings.accumulate)
        if state:
            task.load_state_dict(state.model)
        self.average = _average(task, settings.average_decay, state)
        self._whole: list[nn.Module] = []  # listed, so that it is no part of this module

    @property
    def result(self) -> nn.Module:
        """What the run is for: the task, or its running average."""
        return self.task if self.average is None else self.average.module

    def configure_model(self) -> None:
        """Spreads the weights over the processes where the settings say so."""
        if self.settings.strategy != "fsdp":
            return
        assert self.device_mesh is not None
        if self.global_rank == 0:
            self._whole = [deepcopy(self.task)]
        for part in (self.task,) if self.average is None else (self.task, self.average.module):
            spread(part, self.device_mesh["data_parallel"])

    @contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """The result with all its weights, in process 0; others get the part that they hold.

        All processes have to ask for it together.
        """
        if self.settings.strategy != "fsdp":
            yield self.result
            return
        weights = whole_weights(self.result)
        if not self._whole:
            yield self.result
            return
        (whole,) = self._whole
        whole.load_state_dict(weights)
        yield whole.to(self.device)
        whole.cpu()

    def configure_optimizers(self) -> AdamW:
        """AdamW without decay on biases, norms and single vectors, at the state's moments."""
        settings = self.settings
        groups = _groups(self.task, settings.weight_decay)
        optimizer = AdamW(groups, lr=settings.peak_rate, betas=settings.betas)
        if self._state:
            restore_optimizer(self.task, optimizer, self._state)
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Sets the rate and the random numbers of a part, which follow from seed and step."""
        part = batch_idx % self.settings.accumulate
        place = (self.step * self.settings.accumulate + part) * self.trainer.world_size
        torch.manual_seed(_mixed(self.settings.seed, place + self.trainer.global_rank))
        rate = self.settings.rate(self.step, steps=self.steps, steps_per_epoch=self.steps_per_epoch)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["scale"]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The losses of a part of a step."""
        losses: dict[str, Tensor] = self.task(batch)
        self._parts.append((losses["loss"].detach(), tuple(batch.keys)))
        return losses

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Clips the gradient; where it is no number, stops before it reaches the weights.

        Raises:
            DivergedError: with the names of the samples whose loss is no number.
        """
        trained = [weight for weight in self.task.parameters() if weight.requires_grad]
        norm = clip_grad_norm_(trained, self.settings.clip)
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not whole.isfinite():
            raise DivergedError(self._divergence())

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - lightning's own
        """Counts the steps, of which each may take several batches."""
        super().optimizer_step(*args, **kwargs)
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(self.task)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Moves a batch as it knows best."""
        return batch.to(device)

    def _divergence(self) -> str:
        """What diverged at this step, and in which samples."""
        bad = [keys for loss, keys in self._parts if not loss.isfinite()]
        what = "the loss" if bad else "the gradient"
        keys = [key for part in bad or [keys for _, keys in self._parts] for key in part]
        names = ", ".join(keys[:_NAMES_SHOWN])
        more = f" and {len(keys) - _NAMES_SHOWN} more" if len(keys) > _NAMES_SHOWN else ""
        return (
            f"{what} of step {self.step + 1} is not a finite number, in the batch of the samples "
            f"{names}{more}; look at them, or start anew with a lower learning rate"
        )


def _groups(task: nn.Module, decay: float) -> list[dict[str, Any]]:
    """The weights that learn, by their rate and decay.

    Biases, norms and single vectors have no decay. A task with a method `rate_scale(name)` says
    which weights learn at another rate.
    """
    scale_of = getattr(task, "rate_scale", lambda name: 1.0)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in task.named_parameters():
        if weight.requires_grad:
            key = float(scale_of(name)), decay if weight.ndim > 1 else 0.0
            groups.setdefault(key, []).append(weight)
    return [
        {"params": weights, "scale": scale, "weight_decay": decay}
        for (scale, decay), weights in groups.items()
    ]


def _mixed(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _average(task: nn.Module, decay: float, state: TrainingState | None) -> AveragedModel | None:
    """A running average of all weights, where it is asked for."""
    if not decay:
        return None
    update = get_ema_multi_avg_fn(decay)
    average = AveragedModel(task, multi_avg_fn=update).requires_grad_(False)
    if state:
        average.load_state_dict(state.average)
    return average
