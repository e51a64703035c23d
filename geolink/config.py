"""Settings as frozen dataclasses that reject contradictions; stored inside every checkpoint."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from geolink.errors import ConfigError

Task = Literal["segment", "classify", "regress", "change"]
TypeAttention = Literal["softmax", "constant"]
NodeNorm = Literal["node", "tile", "batch"]
NodePosition = Literal["keypoints", "coverage"]


@dataclass(frozen=True)
class EncoderShape:
    """Width, depth and patch side of one image encoder."""

    width: int
    depth: int
    patch_size: int = 16


ENCODERS = {
    "vit_tiny_patch16_224": EncoderShape(192, 12),
    "vit_small_patch16_224": EncoderShape(384, 12),
    "vit_base_patch16_224": EncoderShape(768, 12),
    "vit_large_patch16_224": EncoderShape(1024, 24),
}

_MOST_LAYERS = 16

# Downstream features by depth (Bai et al. 2025, section 4), counted from 0.
_FEATURE_BLOCKS = {12: (2, 5, 8), 24: (7, 11, 15)}

# What the released code does where the paper, or this library, does otherwise.
_RELEASED: dict[str, Any] = {
    "semantic_dim": 512,
    "osm_layers": 1,
    "relation_aware": False,
    "type_attention": "constant",
    "position": "keypoints",
    "max_nodes": 50,
    "empty_token": False,
    "pretraining": True,
}


@dataclass(frozen=True)
class ModelConfig:
    """What a `GeoLink` model is made of.

    Attributes:
        image_encoder: timm name of the ViT, one of `ENCODERS`.
        image_size: side in pixels that the position table is made for; other sides interpolate it.
        bands: raster bands of an image; the first three are red, green, blue.
        task: what the head answers: a class per pixel (`segment`), a class or numbers per image
            (`classify`, `regress`), or a class per pixel of what differs between two dates
            (`change`).
        classes: classes of the head, or numbers that it predicts.
        semantic_dim: width of the tag encoder's vectors (384 MiniLM, 512 CLIP).
        osm_dim: width of the OSM encodings.
        osm_layers: heterogeneous graph layers.
        relation_aware: edge attributes take part in the message passing.
        osm_norm: what LayerNorm of OSM encodings runs over: each `node` (the usual), all nodes of a
            type in a `tile`, or in the `batch` (the released code, where tiles are not independent
            of each other).
        type_attention: weights of the node types in the region encoding: `softmax` over types (the
            paper), or `constant` (the released code, where all types weigh 1).
        position: where a node is: the mean over its `keypoints`, or over the patches that it
            covers (`coverage`).
        paint_objects: each patch also takes the encodings of the objects that lie in it, so that
            what is where need not be learned from positions (beyond Bai et al. 2025).
        max_nodes: nodes per tile that are fused, the largest first; None fuses all.
        empty_token: a learned token stands in for the nodes of a tile without OSM.
        fusion_dim: width of the fusion block.
        fusion_heads: attention heads of the fusion block.
        dropout: share of attention weights dropped in the fusion block while training.
        feature_blocks: image encoder blocks that feed the decoder, counted from 0; empty takes the
            usual ones for the encoder's depth.
        decoder_width: channels of the UPerNet decoder.
        pretraining: the modules that only pretraining needs are part of the model.
    """

    image_encoder: str = "vit_tiny_patch16_224"
    image_size: int = 224
    bands: int = 3
    task: Task = "segment"
    classes: int = 9
    semantic_dim: int = 384
    osm_dim: int = 128
    osm_layers: int = 2
    relation_aware: bool = True
    osm_norm: NodeNorm = "node"
    type_attention: TypeAttention = "softmax"
    position: NodePosition = "keypoints"
    paint_objects: bool = False
    max_nodes: int | None = None
    empty_token: bool = True
    fusion_dim: int = 256
    fusion_heads: int = 16
    dropout: float = 0.1
    feature_blocks: tuple[int, ...] = ()
    decoder_width: int = 64
    pretraining: bool = False

    def __post_init__(self) -> None:
        if self.image_encoder not in ENCODERS:
            known = ", ".join(ENCODERS)
            raise ConfigError(f"no image encoder {self.image_encoder!r}; choose one of {known}")
        if not self.feature_blocks:
            object.__setattr__(self, "feature_blocks", _FEATURE_BLOCKS[self.encoder.depth])
        self._check_numbers()
        self._check_choices()
        self._check_feature_blocks()

    @classmethod
    def released(
        cls,
        image_encoder: str = "vit_large_patch16_224",
        *,
        classes: int = 9,
        osm_norm: Literal["tile", "batch"] = "tile",
    ) -> Self:
        """The compatibility profile: the model as the released code runs it.

        Type attention is constant, relation types are ignored, at most 50 nodes per tile are
        fused, and tags are 512-d CLIP vectors. The released code draws the 50 at random; here they
        are the largest, so that the same tile gives the same map.

        Args:
            image_encoder: timm name of the ViT.
            classes: classes of the segmentation head, which the released files do not hold.
            osm_norm: `batch` is what the released code does in any batch; `tile` is what it does
                with one tile alone, and does not depend on the tiles beside it.
        """
        return cls(image_encoder, classes=classes, osm_norm=osm_norm, **_RELEASED)

    @property
    def encoder(self) -> EncoderShape:
        """Width, depth and patch side of the image encoder."""
        return ENCODERS[self.image_encoder]

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.encoder.patch_size

    @property
    def grid_size(self) -> int:
        """Patches per side of an image of `image_size` pixels."""
        return self.image_size // self.patch_size

    @property
    def coverage_side(self) -> int | None:
        """Cells per side whose coverage the model asks of a graph; None where it asks for none."""
        return self.grid_size if self.position == "coverage" or self.paint_objects else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a card or a TOML table."""
        return {**asdict(self), "feature_blocks": list(self.feature_blocks)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; fields left out take their default.

        Raises:
            ConfigError: a field is unknown, of the wrong type, or contradicts another.
        """
        unknown = sorted(data.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(f"unknown model setting {unknown[0]!r}; remove it or check its name")
        blocks = data.get("feature_blocks", ())
        if not isinstance(blocks, list | tuple):
            raise ConfigError(f"feature_blocks must be a list of block numbers, got {blocks!r}")
        return cls(**{**data, "feature_blocks": tuple(blocks)})

    def _check_numbers(self) -> None:
        for name in ("image_size", "classes", "semantic_dim", "osm_dim"):
            _require_count(name, getattr(self, name))
        for name in ("fusion_dim", "fusion_heads", "decoder_width"):
            _require_count(name, getattr(self, name))
        _require_count("bands", self.bands, least=3)
        _require_count("osm_layers", self.osm_layers, most=_MOST_LAYERS)
        if self.max_nodes is not None:
            _require_count("max_nodes", self.max_nodes)
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in 0..1 (1 excluded), got {self.dropout!r}")
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"image_size must be a multiple of {self.patch_size} pixels, got {self.image_size}"
            )
        if self.fusion_dim % self.fusion_heads or self.fusion_dim % 4:
            raise ConfigError(
                f"fusion_dim must be a multiple of 4 and of fusion_heads, "
                f"got {self.fusion_dim} and {self.fusion_heads}"
            )
        if self.decoder_width % 8:
            raise ConfigError(f"decoder_width must be a multiple of 8, got {self.decoder_width}")

    def _check_choices(self) -> None:
        for name in ("relation_aware", "paint_objects", "empty_token", "pretraining"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name, choices in (
            ("task", Task),
            ("osm_norm", NodeNorm),
            ("type_attention", TypeAttention),
            ("position", NodePosition),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"{name} must be one of {', '.join(get_args(choices))}, "
                    f"got {getattr(self, name)!r}"
                )

    def _check_feature_blocks(self) -> None:
        depth = self.encoder.depth
        blocks = self.feature_blocks
        for block in blocks:
            _require_count("feature_blocks", block, least=0)
        if len(blocks) != 3 or list(blocks) != sorted(set(blocks)) or blocks[-1] >= depth:
            raise ConfigError(
                f"feature_blocks must be three rising block numbers below {depth}, "
                f"got {list(blocks)}"
            )


def _require_count(name: str, value: object, *, least: int = 1, most: int = 10**6) -> None:
    """Refuse anything but a whole number in a range (True and False are no numbers)."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
