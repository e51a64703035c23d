"""Collectives that know gradients, and where this process stands among others."""

import os
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def world() -> tuple[int, int]:
    """Rank of this process and number of processes, as torchrun tells them; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def launch() -> str:
    """What all processes of one start of torchrun have in common, and no other start."""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    return " ".join(os.environ.get(name, "") for name in names)


def gather(tensor: Tensor) -> Tensor:
    """(B, ...) tensors of all processes, joined in the order of the ranks, with their gradients.

    All processes have to work out the same loss from the result. Each then knows the gradient of
    its own part without asking the others, which would have to happen in the same order among the
    exchanges of data-parallel training. That training takes the mean over processes where a loss
    that all share needs the sum, so the gradient is multiplied by their number.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ANN401 - torch's own
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        size = dist.get_world_size()
        return size * gradient.chunk(size)[dist.get_rank()]
