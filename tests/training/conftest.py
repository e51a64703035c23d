"""A small task for the loop, and processes that share it as torchrun would have them."""

import multiprocessing
import os
import socket
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geolink.shards import Draw
from geolink.training.loop import Watchers, train
from geolink.training.settings import TrainingSettings

SAMPLES = 20


@dataclass(frozen=True)
class Vectors:
    """A batch of the small task."""

    x: Tensor
    keys: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Vectors":
        return Vectors(self.x.to(device), self.keys, self.skipped)


class VectorSamples:
    """Samples of the small task; some can be broken, or end the process."""

    def __init__(self, bad=(), deadly=()):
        self.bad, self.deadly = set(bad), set(deadly)

    def __len__(self) -> int:
        return SAMPLES

    def order(self, seed, epoch):
        return np.random.default_rng([seed, epoch]).permutation(SAMPLES)

    def __getitem__(self, draw: Draw):
        if draw.index in self.deadly:
            os.kill(os.getpid(), 9)
        rng = np.random.default_rng([draw.epoch, draw.index])
        x = torch.from_numpy(rng.standard_normal(6)).float()
        return draw.index, x * float("nan") if draw.index in self.bad else x

    @staticmethod
    def join(parts):
        return Vectors(torch.stack([x for _, x in parts]), tuple(f"tile-{i}" for i, _ in parts))


class VectorTask(nn.Module):
    """Rebuilds vectors; its dropout asks for the same random numbers again after a cut."""

    def __init__(self, dropout=0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.GELU(), nn.Dropout(dropout), nn.LayerNorm(8), nn.Linear(8, 6)
        )
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, batch: Vectors) -> dict[str, Tensor]:
        error = (self.layers(batch.x) - batch.x).square().mean()
        return {"loss": error, "error": error}


@dataclass
class Run:
    """One call of `train` on the small task."""

    folder: Path
    settings: TrainingSettings
    samples: VectorSamples = field(default_factory=VectorSamples)
    dropout: float = 0.0
    record: dict = field(default_factory=dict)

    def __call__(self, **watchers):
        self.folder.mkdir(exist_ok=True)
        return train(
            VectorTask(self.dropout),
            self.samples,
            VectorSamples.join,
            settings=self.settings,
            record=self.record,
            folder=self.folder,
            watchers=Watchers(**watchers),
        )


def settings_of(**changes) -> TrainingSettings:
    """Three epochs of five steps."""
    usual = {"epochs": 3, "batch_size": 4, "workers": 0, "save_every": 1, "log_every": 1}
    return TrainingSettings(**usual | {"base_rate": 0.1, "warmup_epochs": 1.0} | changes)


@pytest.fixture(scope="session")
def make_run():
    """`make_run(folder, ...)`: a run on samples of which some are `bad` or `deadly`."""

    def make(folder, *, dropout=0.0, bad=(), deadly=(), record=None, **changes):
        samples = VectorSamples(bad, deadly)
        return Run(folder, settings_of(**changes), samples, dropout, record or {})

    return make


def in_processes(work, count=1, timeout=120):
    """Exit codes of forked processes that call `work`; several see each other as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def enter(rank):
        if count > 1:
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
            sizes = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
            os.environ |= {name: str(value) for name, value in (ranks | sizes | place).items()}
        torch.set_num_threads(1)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=enter, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
        process.kill()
    return [process.exitcode for process in processes]


@pytest.fixture(scope="session")
def processes():
    return in_processes
