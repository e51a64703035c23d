"""Runs that are spread over processes, and their state as if they were not."""

from typing import Any

from timm.models.vision_transformer import Block
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer

from geolink.training.state import TrainingState


def spread(task: nn.Module, mesh: DeviceMesh) -> None:
    """Spreads the weights of a task over processes, block by block (FSDP)."""
    for part in task.modules():
        if isinstance(part, Block):
            fully_shard(part, mesh=mesh)
    fully_shard(task, mesh=mesh)


def whole_weights(module: nn.Module) -> dict[str, Any]:
    """The state dict of a module, whole in process 0 however the weights are spread.

    All processes have to call this together.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(module, options=options)


def take_state(
    task: nn.Module, optimizer: Optimizer, average: nn.Module | None, *, step: int
) -> dict[str, Any]:
    """The fields of a state, whole in process 0 however the weights are spread.

    All processes have to call this together.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return {
        "step": step,
        "model": whole_weights(task),
        "optimizer": get_optimizer_state_dict(task, optimizer, options=options),
        "average": {} if average is None else whole_weights(average),
    }


def restore_optimizer(task: nn.Module, optimizer: Optimizer, state: TrainingState) -> None:
    """Gives an optimiser the moments of a state."""
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(task, optimizer, state.optimizer, options=options)
