"""Image to tokens: a timm ViT with fixed positions and its own class token."""

from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from geolink.config import ModelConfig
from geolink.errors import InputError
from geolink.models.positions import embed_grid


class ImageFeatures(NamedTuple):
    """What the image encoder hands on.

    Attributes:
        maps: per feature block, (B, C, h, w) patch tokens as a map; none where patches were left
            out.
        tokens: (B, 1 + V, C) tokens of the last block after LayerNorm, class token first; V is
            h * w where all patches were encoded.
        grid: patches per column and per row (h, w) of the images.
        visible: (B, V) ascending places of the patches that were encoded; None where all were.
    """

    maps: list[Tensor]
    tokens: Tensor
    grid: tuple[int, int]
    visible: Tensor | None = None


class ImageEncoder(nn.Module):
    """ViT over 16-pixel patches (METHOD: image branch; Bai et al. 2025, section 3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # Any: timm's ViT has parts (blocks, norm, patch_embed) that nn.Module does not declare.
        self.vit: Any = timm.create_model(
            config.image_encoder,
            img_size=config.image_size,
            in_chans=config.bands,
            num_classes=0,
            global_pool="",
            class_token=False,
            pos_embed="none",
            dynamic_img_size=True,
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, config.encoder.width))
        nn.init.normal_(self.cls_token, std=0.02)

    def forward(self, images: Tensor, visible: Tensor | None = None) -> ImageFeatures:
        """Feature maps and last tokens of (B, bands, H, W) images.

        Args:
            images: the images, sides multiples of the patch.
            visible: (B, V) places of the patches to encode, row by row; the others never enter a
                block, so a mask of 75 % costs a quarter (He et al. 2022). None encodes all.

        Raises:
            InputError: the bands differ from the model's or a side is no multiple of the patch.
        """
        self._check(images)
        patches = self.vit.patch_embed(images)  # (B, h, w, C)
        grid = patches.shape[1], patches.shape[2]
        table = embed_grid(
            grid, patches.shape[3], grid_size=self.config.grid_size, device=patches.device
        )
        tokens = patches.flatten(1, 2) + table[1:]  # (B, h * w, C)
        if visible is not None:
            tokens = tokens.gather(1, visible[..., None].expand(-1, -1, tokens.shape[2]))
        class_token = (self.cls_token + table[:1]).expand(len(images), -1, -1)
        tokens = torch.cat([class_token, tokens], dim=1)
        maps = []
        for index, block in enumerate(self.vit.blocks):
            tokens = block(tokens)
            if visible is None and index in self.config.feature_blocks:
                maps.append(as_map(tokens, grid))
        return ImageFeatures(maps, self.vit.norm(tokens), grid, visible)

    def _check(self, images: Tensor) -> None:
        bands, patch = self.config.bands, self.config.patch_size
        if images.ndim != 4 or images.shape[1] != bands:
            raise InputError(
                f"images must be (batch, {bands}, height, width), got {tuple(images.shape)}"
            )
        if images.shape[2] % patch or images.shape[3] % patch or not images[0, 0].numel():
            raise InputError(
                f"image sides must be multiples of {patch} pixels, got {tuple(images.shape[2:])}"
            )


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, 1 + h * w, C) tokens, class token first, to a (B, C, h, w) map without it."""
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), tokens.shape[2], *grid)
