"""The state of a run on disk: everything that going on from it takes, and nothing executable."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geolink.errors import CheckpointError, ConfigError
from geolink.files import atomic_path

STATE = "state.pt"
_FORMAT = 2


@dataclass(frozen=True)
class TrainingState:
    """A run between two steps.

    The order of the data, the masks and every other draw follow from the seed and the step, so that
    no state of a generator is needed to repeat them.

    Attributes:
        step: steps that are done.
        settings: plain data of everything that decides the weights.
        model: state dict of what is trained.
        optimizer: state dict of the optimiser.
        average: state dict of the running average, empty without one.
        threads: CPU threads of an operation; sums round differently with their number.
    """

    step: int
    settings: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any]
    threads: int

    def save(self, path: Path) -> None:
        """Writes the state in one step; the one before stays until then.

        Raises:
            OutputError: the file cannot be written, or the disk is full.
        """
        buffer = io.BytesIO()
        torch.save({"format": _FORMAT, **vars(self)}, buffer)
        with atomic_path(path, overwrite=True) as target:
            target.write_bytes(buffer.getbuffer())

    @classmethod
    def load(cls, path: Path) -> "TrainingState":
        """Reads a state, without running what it may hold.

        Raises:
            CheckpointError: the file is damaged or no such state.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            form = content.pop("format")
            state = cls(**content) if form == _FORMAT else None
        except Exception as error:  # a damaged pickle can fail in any way
            raise CheckpointError(
                f"the state {path} is damaged or none of a run; start anew with --overwrite"
            ) from error
        if state is None:
            raise CheckpointError(
                f"the state {path} is of another version of geolink; go on with that, or start "
                "anew with --overwrite"
            )
        return state


def require_same_settings(saved: Mapping[str, Any], asked: Mapping[str, Any], where: Path) -> None:
    """Refuse to go on with other settings than those that a run was started with.

    Raises:
        ConfigError: they differ; the message names the first that does.
    """
    for name in sorted(saved.keys() | asked.keys()):
        before, now = saved.get(name), asked.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            require_same_settings(before, now, where)
        elif before != now:
            raise ConfigError(
                f"the run in {where} was started with {name} {before}, not {now}; "
                "resume it with the same settings, or start anew with --overwrite"
            )
