"""Modules that only pretraining needs: mask tokens, decoders and projections (METHOD section 3)."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from geolink.config import ModelConfig
from geolink.graphs.schema import NODE_TYPES
from geolink.models.positions import embed_grid
from geolink.models.readout import Readout

_DECODER_WIDTH = 512
_DECODER_BLOCKS = 2
_DECODER_HEADS = 16
_CONTRAST_WIDTH = 64


class Pretraining(nn.Module):
    """What pretraining adds to the encoders (Bai et al. 2025, section 3.3).

    Attributes:
        node_mask: per node type, the (1, semantic_dim) vector in place of a masked node.
        readout: OSM nodes of a tile to its region encoding.
        region_projection: region encoding to the space of the contrastive loss.
        image_projection: mean patch token to the same space.
        patch_decoder: visible tokens to pixels.
        node_decoder: hybrid object encoding to the semantic vector of a masked node.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.node_mask = nn.ParameterDict(
            {kind: nn.Parameter(0.02 * torch.randn(1, config.semantic_dim)) for kind in NODE_TYPES}
        )
        self.readout = Readout(config)
        self.region_projection = nn.Linear(config.osm_dim, _CONTRAST_WIDTH)
        self.image_projection = nn.Linear(config.encoder.width, _CONTRAST_WIDTH)
        self.patch_decoder = PatchDecoder(config)
        self.node_decoder = nn.Linear(config.fusion_dim, config.semantic_dim)


class PatchDecoder(nn.Module):
    """Light MAE decoder: mask tokens fill the gaps, two blocks predict pixels (He et al. 2022)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(config.encoder.width, _DECODER_WIDTH)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, _DECODER_WIDTH))
        self.grid_size = config.grid_size
        self.blocks = nn.Sequential(
            *(Block(_DECODER_WIDTH, _DECODER_HEADS, qkv_bias=True) for _ in range(_DECODER_BLOCKS))
        )
        self.norm = nn.LayerNorm(_DECODER_WIDTH)
        self.predict = nn.Linear(_DECODER_WIDTH, config.bands * config.patch_size**2)

    def forward(self, tokens: Tensor, visible: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pixels of all patches from the tokens of the visible ones.

        Args:
            tokens: (B, 1 + V, C) encoder tokens, class token first.
            visible: (B, V) place of each visible patch among the h * w patches.
            grid: patches per column and per row (h, w).

        Returns:
            (B, h * w, patch_size^2 * bands), pixel by pixel, row by row.
        """
        embedded = self.embed(tokens)
        batch, width = len(tokens), embedded.shape[2]
        patches = self.mask_token.to(embedded).expand(batch, grid[0] * grid[1], width)
        index = visible[..., None].expand(-1, -1, width)
        patches = patches.scatter(1, index, embedded[:, 1:])
        positions = embed_grid(grid, width, grid_size=self.grid_size, device=tokens.device)
        full = torch.cat([embedded[:, :1], patches], dim=1) + positions
        pixels: Tensor = self.predict(self.norm(self.blocks(full)))
        return pixels[:, 1:]
