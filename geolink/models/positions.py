"""Sine-cosine position embeddings of points on the patch grid (MAE, He et al. 2022)."""

from functools import lru_cache

import torch
from torch import Tensor


def embed_points(xy: Tensor, width: int) -> Tensor:
    """Fixed embedding of points in patch units.

    The first half of the channels encodes x, the second y; each half holds sines, then cosines, of
    frequencies that fall geometrically from 1 to 1/10,000.

    Args:
        xy: (..., 2) x and y; 0 is the middle of the first patch in a table of patch positions.
        width: channels W, a multiple of 4.

    Returns:
        (..., W) float32.
    """
    steps = torch.arange(width // 4, device=xy.device, dtype=torch.float64) / (width // 4)
    angles = xy.double().unsqueeze(-1) * 10_000.0**-steps  # (..., 2, W/4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (..., 2, W/2)
    return waves.flatten(-2).float()


def as_points(keypoints: Tensor) -> Tensor:
    """(N, 2 K) key-points x, y, x, y, ... to (N, K, 2)."""
    return keypoints.reshape(len(keypoints), keypoints.shape[1] // 2, 2)


@lru_cache(maxsize=64)
def embed_grid(
    grid: tuple[int, int], width: int, *, grid_size: int, device: torch.device
) -> Tensor:
    """Position table of an image's tokens.

    An image of another size than the model's is spread over the same `grid_size` positions per
    side, at the places where its patch centres lie, which is what resampling the table means.

    Args:
        grid: patches per column and per row (h, w).
        width: channels W, a multiple of 4.
        grid_size: patches per side at the model's own image size.
        device: where the table lies.

    Returns:
        (1 + h * w, W): zeros for the class token, then the patches row by row.
    """
    # A table made while inference mode is on could not take part in training later.
    with torch.inference_mode(False):
        y, x = (_centres(count, grid_size, device) for count in grid)
        xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
        patches = embed_points(xy.flatten(0, 1), width)
        return torch.cat([patches.new_zeros(1, width), patches])


def _centres(count: int, grid_size: int, device: torch.device) -> Tensor:
    """Positions of `count` patch centres on an axis of `grid_size` patches."""
    places = torch.arange(count, dtype=torch.float64, device=device)
    return (places + 0.5) * (grid_size / count) - 0.5
