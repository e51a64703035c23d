"""Names of the released GeoLink weights, and what they are called here."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from geolink.config import ENCODERS, ModelConfig
from geolink.errors import CheckpointError
from geolink.models.positions import embed_grid

_BLOCK = "osm_cross_modal_encoder.0."

# Released prefix to ours, for the model with OSM; the first that fits a name counts.
_MULTIMODAL = {
    "cls_token": "image.cls_token",
    "img_encoder.patch_embed.": "image.vit.patch_embed.",
    "img_encoder.blocks.": "image.vit.blocks.",
    "img_norm.": "image.vit.norm.",
    "osm_encoder.convs.0.": "osm.layers.0.conv.",
    "osm_norm.": "osm.layers.0.norm.",
    "img_fusion_mlp.": "fusion.image_projection.",
    "osm_node_fusion_mlp.": "fusion.node_projection.",
    f"{_BLOCK}self_attn.": "fusion.block.among_nodes.",
    f"{_BLOCK}norm1.": "fusion.block.node_norm.",
    f"{_BLOCK}cross_attn_token_to_image.": "fusion.block.image_from_nodes.",
    f"{_BLOCK}norm2.": "fusion.block.image_norm.",
    f"{_BLOCK}cross_attn_image_to_token.": "fusion.block.nodes_from_image.",
    f"{_BLOCK}norm3.": "fusion.block.object_norm.",
    f"{_BLOCK}mlp.": "fusion.block.object_projection.",
    f"{_BLOCK}norm4.": "fusion.block.object_projection_norm.",
    "osm_mask_token.": "pretraining.node_mask.",
    "osm_read_out.": "pretraining.readout.pool.",
    "osm_aggr_mlp.": "pretraining.readout.project.",
    "type_attention.": "pretraining.readout.relevance.",
    "osm_graph_consistency_prj.": "pretraining.region_projection.",
    "img_consistency_prj.": "pretraining.image_projection.",
    "img_decoder_mlp.": "pretraining.patch_decoder.embed.",
    "img_mask_token": "pretraining.patch_decoder.mask_token",
    "img_cross_modal_decoder.": "pretraining.patch_decoder.blocks.",
    "img_decoder_norm.": "pretraining.patch_decoder.norm.",
    "img_decoder_pred.": "pretraining.patch_decoder.predict.",
    "osm_node_pred.": "pretraining.node_decoder.",
}

# The image-only ViT has timm's own names.
_IMAGE_ONLY = {
    "cls_token": "image.cls_token",
    "patch_embed.": "image.vit.patch_embed.",
    "blocks.": "image.vit.blocks.",
    "norm.": "image.vit.norm.",
    "fc_norm.": "image.vit.norm.",
}

# What is left out on purpose, and why.
_LEFT_OUT = {
    "patch_embed.": "the same tensors as img_encoder.patch_embed",
    "img_encoder.cls_token": "the forward pass uses the model's own class token",
    "img_encoder.pos_embed": "the forward pass uses the fixed position table",
    "img_encoder.norm.": "the forward pass uses img_norm",
    "head.": "a classification head of pretraining",
}

# Fixed tables, which are computed here.
_TABLES = ("img_pos_embed", "rec_img_pos_embed", "fusion_img_pos_embed", "pos_embed")


@dataclass(frozen=True)
class Conversion:
    """Released weights under our names, and an account of every released name.

    Attributes:
        config: the released profile with the encoder that the weights belong to.
        state: our name to tensor.
        used: released name to ours.
        left_out: released name to the reason why nothing needs it.
    """

    config: ModelConfig
    state: dict[str, Tensor]
    used: dict[str, str]
    left_out: dict[str, str]


def convert_released(state: Mapping[str, Tensor]) -> Conversion:
    """Renames released weights, of the model with OSM or of the image-only ViT.

    Raises:
        CheckpointError: a name is not of that model, or the weights are of another architecture or
            use other position tables.
    """
    multimodal = any(name.startswith("osm_encoder.") for name in state)
    config = ModelConfig.released(_encoder_of(state))
    used, left_out = {}, {}
    for name, tensor in state.items():
        ours = _renamed(name, _MULTIMODAL if multimodal else _IMAGE_ONLY)
        if ours is not None:
            used[name] = ours
        elif name in _TABLES:
            _require_table(name, tensor, config)
            left_out[name] = "a fixed sine-cosine table, computed here"
        else:
            left_out[name] = _reason(name)
    return Conversion(config, {ours: state[name] for name, ours in used.items()}, used, left_out)


def _encoder_of(state: Mapping[str, Tensor]) -> str:
    """Timm name of the encoder with the width of the class token and the number of blocks."""
    token = state.get("cls_token")
    width = token.shape[-1] if token is not None and token.ndim else 0
    prefix = "img_encoder.blocks." if "img_encoder.cls_token" in state else "blocks."
    depth = len({n.removeprefix(prefix).split(".")[0] for n in state if n.startswith(prefix)})
    for name, encoder in ENCODERS.items():
        if (encoder.width, encoder.depth) == (width, depth):
            return name
    raise CheckpointError(
        f"the weights are no released GeoLink model: {depth} blocks of width {width} are none of "
        f"{', '.join(ENCODERS)}"
    )


def _renamed(name: str, prefixes: Mapping[str, str]) -> str | None:
    for theirs, ours in prefixes.items():
        if name.startswith(theirs) if theirs.endswith(".") else name == theirs:
            return ours + name.removeprefix(theirs)
    return None


def _reason(name: str) -> str:
    for prefix, reason in _LEFT_OUT.items():
        if name.startswith(prefix):
            return reason
    raise CheckpointError(f"the weights are no released GeoLink model: {name!r} is not part of it")


def _require_table(name: str, table: Tensor, config: ModelConfig) -> None:
    """Refuse weights that were trained with other positions than ours."""
    side = config.grid_size
    if table.ndim == 3 and table.shape[2] % 4 == 0:
        ours = embed_grid((side, side), table.shape[2], grid_size=side, device=torch.device("cpu"))
        if table.shape[1:] == ours.shape and torch.allclose(table[0].float(), ours, atol=1e-3):
            return
    raise CheckpointError(f"{name} is not the sine-cosine table of the released model")
