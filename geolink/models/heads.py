"""Heads: UPerNet for scores per pixel (Xiao et al. 2018), small ones for answers per image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from geolink.config import ModelConfig

STRIDE = 4  # pixels of the image per score
_POOL_SIDES = (1, 2, 3, 6)


class UperNet(nn.Module):
    """Pyramid pooling over the last map, then a feature pyramid down to a quarter of the image.

    The maps of the feature blocks are brought to strides 4, 8 and 16. The hybrid encodings stay at
    stride 16, the patches' own resolution, since they alone know the OSM objects. GroupNorm instead
    of BatchNorm keeps tiles independent of each other, in training too.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, hybrid = config.decoder_width, config.fusion_dim
        self.laterals = nn.ModuleList(
            nn.Sequential(_conv(config.encoder.width, width, 1), *_upsample(width, doublings))
            for doublings in (2, 1, 0)
        )
        self.context = PyramidPooling(hybrid, width)
        self.smooth = nn.ModuleList(_conv(width, width, 3) for _ in self.laterals)
        self.merge = _conv(4 * width, width, 1)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classify = nn.Conv2d(width, config.classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four (B, C, h, w) maps at stride 16, shallow first, to (B, classes, 4h, 4w) scores."""
        levels = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=False)]
        levels.append(self.context(maps[-1]))
        for i in (2, 1, 0):
            levels[i] = levels[i] + _resize(levels[i + 1], levels[i])
        smooth = [conv(level) for conv, level in zip(self.smooth, levels, strict=False)]
        joined = torch.cat([_resize(m, smooth[0]) for m in (*smooth, levels[-1])], dim=1)
        scores: Tensor = self.classify(self.dropout(self.merge(joined)))
        return scores


class SceneHead(nn.Module):
    """One answer per image, from its scene encoding (Bai et al. 2025, section 4).

    A linear layer tells classes apart; two layers predict numbers, in units of the `spread` of the
    numbers in training around their `centre`.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.encoder.width + config.fusion_dim
        hidden = [nn.Linear(width, width), nn.GELU()] if config.task == "regress" else []
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            *hidden,
            nn.Dropout(config.dropout),
            nn.Linear(width, config.classes),
        )
        self.register_buffer("centre", torch.zeros(config.classes))
        self.register_buffer("spread", torch.ones(config.classes))

    def forward(self, encoding: Tensor) -> Tensor:
        """(B, width + fusion_dim) to (B, classes)."""
        answer: Tensor = self.centre + self.spread * self.layers(encoding)
        return answer


class PyramidPooling(nn.Module):
    """Adds to each patch the means of 1, 2, 3 and 6 cells per side (PSPNet, Zhao et al. 2017)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reduce = _conv(channels, width, 1)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), _conv(width, width // 4, 1))
            for side in _POOL_SIDES
        )
        self.merge = _conv(2 * width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to (B, width, h, w)."""
        x = self.reduce(x)
        context = [_resize(pool(x), x) for pool in self.pools]
        merged: Tensor = self.merge(torch.cat([x, *context], dim=1))
        return merged


def _conv(source: int, target: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(source, target, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(_groups(target), target),
        nn.ReLU(),
    )


def _groups(channels: int) -> int:
    """Groups of 8 channels."""
    return max(channels // 8, 1)


def _upsample(width: int, doublings: int) -> list[nn.Module]:
    """Transposed convolutions that double the sides."""
    layers: list[nn.Module] = []
    for _ in range(doublings):
        layers += [nn.ConvTranspose2d(width, width, 2, stride=2), nn.GELU()]
    return layers


def _resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear resampling of (B, C, h, w) to the sides of `like`."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
