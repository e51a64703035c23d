"""Sine-cosine position embeddings of points on the patch grid (MAE, He et al. 2022)."""

import torch
from torch import Tensor, nn


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


def embed_grid(rows: int, cols: int, width: int, *, grid_size: int) -> Tensor:
    """Embeddings of the patches of an image, row by row.

    An image of another size than the model's is spread over the same `grid_size` positions per
    side, at the places where its patch centres lie, which is what resampling the table means.

    Returns:
        (rows * cols, width) float32.
    """
    y = _centres(rows, grid_size)
    x = _centres(cols, grid_size)
    xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (rows, cols, 2)
    return embed_points(xy, width).flatten(0, 1)


def _centres(count: int, grid_size: int) -> Tensor:
    """Positions of `count` patch centres on an axis of `grid_size` patches."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) * (grid_size / count) - 0.5


def as_points(keypoints: Tensor) -> Tensor:
    """(N, 2 K) key-points x, y, x, y, ... to (N, K, 2)."""
    return keypoints.reshape(len(keypoints), keypoints.shape[1] // 2, 2)


class GridPositions(nn.Module):
    """Position table of an image's tokens, kept for the model's own image size.

    Args:
        grid_size: patches per side at the model's image size.
        width: channels W.
    """

    def __init__(self, grid_size: int, width: int) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.width = width
        self.register_buffer("table", self._compute(grid_size, grid_size), persistent=False)
        self.table: Tensor

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """(1 + h * w, W) embeddings of the class token, which are zero, and of h x w patches."""
        if grid == (self.grid_size, self.grid_size):
            return self.table
        return self._compute(*grid).to(self.table)

    def _compute(self, rows: int, cols: int) -> Tensor:
        patches = embed_grid(rows, cols, self.width, grid_size=self.grid_size)
        return torch.cat([patches.new_zeros(1, self.width), patches])
