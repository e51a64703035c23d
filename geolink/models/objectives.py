"""What pretraining asks of the model: three objectives, and the masks that they need."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geolink.errors import ConfigError
from geolink.graphs.schema import NODE_TYPES, NodeType
from geolink.models.geolink import GeoLink
from geolink.models.graph_batch import GraphBatch
from geolink.models.image_encoder import ImageFeatures
from geolink.models.pretraining import Pretraining

Objective: TypeAlias = Literal["reconstruction", "contrast", "consistency"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

RELEASED_MOST_NODES = 10  # masked nodes per graph in the released code

_VARIANCE_FLOOR = 1e-6  # of a patch without structure


@dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the objectives, and their masks (Bai et al. 2025, section 3.3).

    Attributes:
        reconstruction: weight of the masked patches' pixels; 0 switches an objective off.
        contrast: weight of the contrast between regions and images.
        consistency: weight of the masked nodes' semantic vectors.
        patch_share: share of an image's patches that are masked.
        node_share: share of a graph's nodes that are masked, at least one of each type present.
        most_masked_nodes: masked nodes per graph at most, 3 or more; None sets no limit.
        temperature: divides the similarities of the contrast.
    """

    reconstruction: float = 1.0
    contrast: float = 0.01
    consistency: float = 0.01
    patch_share: float = 0.75
    node_share: float = 0.2
    most_masked_nodes: int | None = None
    temperature: float = 0.2

    def __post_init__(self) -> None:
        for name in OBJECTIVES:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"the weight of {name} is a number from 0, not {self.of(name)}")
        if not any(self.of(name) for name in OBJECTIVES):
            raise ConfigError("all objectives have weight 0; give one of them a weight")
        if not 0 < self.patch_share < 1:
            raise ConfigError(f"patch_share lies between 0 and 1, not at {self.patch_share}")
        if not 0 < self.node_share < 1:
            raise ConfigError(f"node_share lies between 0 and 1, not at {self.node_share}")
        if self.most_masked_nodes is not None and self.most_masked_nodes < len(NODE_TYPES):
            raise ConfigError("most_masked_nodes is at least 3, one for each node type")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"the temperature is a positive number, not {self.temperature}")

    @property
    def uses_osm(self) -> bool:
        """False for plain masked image modelling."""
        return self.contrast > 0 or self.consistency > 0

    def of(self, objective: Objective) -> float:
        """The weight of an objective."""
        weight: float = getattr(self, objective)
        return weight

    def total(self, losses: Mapping[Objective, Tensor]) -> Tensor:
        """The weighted sum of losses."""
        return torch.stack([self.of(name) * loss for name, loss in losses.items()]).sum()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a state or a TOML table."""
        return asdict(self)


@dataclass(frozen=True)
class SampleMask:
    """What is masked in one tile.

    Attributes:
        visible: (V,) ascending places of the patches that the encoder sees.
        hidden: (M,) ascending places of the others.
        nodes: per node type, (N,) True for masked nodes.
    """

    visible: NDArray[np.int64]
    hidden: NDArray[np.int64]
    nodes: dict[NodeType, NDArray[np.bool_]]

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        config: ObjectiveConfig,
        *,
        patches: int,
        nodes: Mapping[NodeType, int],
    ) -> Self:
        """Draws the masks of a tile; equal generators and counts give equal masks.

        Args:
            rng: source of randomness, of this tile alone.
            config: shares to mask.
            patches: patches of the image.
            nodes: number of nodes per type.
        """
        order = rng.permutation(patches)
        kept = min(max(round(patches * (1 - config.patch_share)), 1), patches - 1)
        return cls(np.sort(order[:kept]), np.sort(order[kept:]), _draw_nodes(rng, config, nodes))


def _draw_nodes(
    rng: np.random.Generator, config: ObjectiveConfig, nodes: Mapping[NodeType, int]
) -> dict[NodeType, NDArray[np.bool_]]:
    """A share of all nodes of a graph, among them one of each type present."""
    counts = [nodes[kind] for kind in NODE_TYPES]
    kinds = np.repeat(np.arange(len(counts)), counts)
    order = rng.permutation(len(kinds))
    _, firsts = np.unique(kinds[order], return_index=True)
    order = np.concatenate([order[firsts], np.delete(order, firsts)])
    number = max(round(config.node_share * len(kinds)), len(firsts))
    masked = np.zeros(len(kinds), dtype=bool)
    masked[order[: min(number, config.most_masked_nodes or number)]] = True
    return dict(zip(NODE_TYPES, np.split(masked, np.cumsum(counts)[:-1]), strict=True))


@dataclass(frozen=True)
class Masks:
    """The masks of B tiles.

    Attributes:
        visible: (B, V) ascending places of the patches that the encoder sees.
        hidden: (B, M) ascending places of the others.
        nodes: per node type, (N,) True for masked nodes among those of all tiles.
    """

    visible: Tensor
    hidden: Tensor
    nodes: dict[NodeType, Tensor]

    @classmethod
    def join(cls, masks: Sequence[SampleMask]) -> Self:
        """The masks of tiles, whose nodes are joined in the same order."""
        return cls(
            torch.from_numpy(np.stack([mask.visible for mask in masks])),
            torch.from_numpy(np.stack([mask.hidden for mask in masks])),
            {
                kind: torch.from_numpy(np.concatenate([mask.nodes[kind] for mask in masks]))
                for kind in NODE_TYPES
            },
        )

    def to(self, device: torch.device) -> "Masks":
        """The same masks on another device."""
        nodes = {kind: mask.to(device, non_blocking=True) for kind, mask in self.nodes.items()}
        visible, hidden = (
            places.to(device, non_blocking=True) for places in (self.visible, self.hidden)
        )
        return Masks(visible, hidden, nodes)


class Objectives(nn.Module):
    """The losses of a masked batch; every one is a mean over tiles, so batches can be split.

    Args:
        model: a model with its pretraining modules.
        config: weights and masks.
        gather: (B, ...) tensor of this process to that of all processes, gradients included; the
            contrast is among all of them. The default is for one process.

    Raises:
        ConfigError: the model has no pretraining modules.
    """

    def __init__(
        self,
        model: GeoLink,
        config: ObjectiveConfig,
        gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        super().__init__()
        if model.pretraining is None:
            raise ConfigError("the model has no pretraining modules; make it with pretraining=True")
        self.model = model
        self.config = config
        self.gather = gather

    def forward(self, images: Tensor, graphs: GraphBatch, masks: Masks) -> dict[Objective, Tensor]:
        """The losses that have a weight, each before its weight.

        Args:
            images: (B, bands, H, W), normalised.
            graphs: whole graphs of the tiles.
            masks: what of both is masked.
        """
        features: ImageFeatures = self.model.image(images, masks.visible)
        losses: dict[Objective, Tensor] = {}
        if self.config.reconstruction:
            losses["reconstruction"] = self._reconstruction(images, features, masks)
        if self.config.uses_osm:
            masked = hide_nodes(graphs, masks.nodes, self._tokens)
            nodes: dict[NodeType, Tensor] = self.model.osm(masked)
        if self.config.contrast:
            losses["contrast"] = self._contrast(features, nodes, masked)
        if self.config.consistency:
            objects = self.model.fusion.objects(features, nodes, masked)
            losses["consistency"] = self._consistency(objects, graphs, masks)
        return losses

    def reconstruct(self, images: Tensor, masks: Masks) -> Tensor:
        """Pictures in which the hidden patches are predicted, with their true mean and contrast.

        Returns:
            (B, bands, H, W), normalised as `images`.
        """
        features: ImageFeatures = self.model.image(images, masks.visible)
        patches = patchify(images, self.model.config.patch_size)
        predicted = self._parts.patch_decoder(features.tokens, masks.visible, features.grid)
        deviation = (patches.var(dim=2, keepdim=True) + _VARIANCE_FLOOR).sqrt()
        pixels = _select(predicted * deviation + patches.mean(dim=2, keepdim=True), masks.hidden)
        index = masks.hidden[..., None].expand_as(pixels)
        filled = patches.scatter(1, index, pixels.to(patches))
        return unpatchify(filled, features.grid, self.model.config.patch_size)

    def parts_in_use(self) -> list[nn.Module]:
        """The modules, and lists of weights, that the objectives with a weight use."""
        model, parts, config = self.model, self._parts, self.config
        used: list[nn.Module] = [model.image]
        if config.reconstruction:
            used.append(parts.patch_decoder)
        if config.uses_osm:
            used += [model.osm, parts.node_mask]
        if config.contrast:
            readout = parts.readout
            used += [readout.pool, readout.project, parts.region_projection, parts.image_projection]
            used += [readout.relevance] if readout.softmax else []
        if config.consistency:
            used += [model.fusion, parts.node_decoder]
        return used

    @property
    def _tokens(self) -> dict[NodeType, Tensor]:
        return {kind: self._parts.node_mask[kind] for kind in NODE_TYPES}

    @property
    def _parts(self) -> Pretraining:
        assert self.model.pretraining is not None
        return self.model.pretraining

    def _reconstruction(self, images: Tensor, features: ImageFeatures, masks: Masks) -> Tensor:
        """Mean squared error of the hidden patches, whose pixels are normalised patch by patch."""
        predicted = self._parts.patch_decoder(features.tokens, masks.visible, features.grid)
        target = _select(patchify(images, self.model.config.patch_size), masks.hidden)
        variance, mean = torch.var_mean(target, dim=2, keepdim=True)
        target = (target - mean) / (variance + _VARIANCE_FLOOR).sqrt()
        return functional.mse_loss(_select(predicted, masks.hidden).float(), target)

    def _contrast(
        self, features: ImageFeatures, nodes: dict[NodeType, Tensor], graphs: GraphBatch
    ) -> Tensor:
        """InfoNCE between the mean visible patch token and the region encoding of each tile."""
        parts = self._parts
        images = parts.image_projection(features.tokens[:, 1:].mean(dim=1))
        regions = parts.region_projection(parts.readout(nodes, graphs))
        present = self.gather(graphs.has_nodes)
        return info_nce(
            self.gather(images.float())[present],
            self.gather(regions.float())[present],
            temperature=self.config.temperature,
        )

    def _consistency(
        self, objects: dict[NodeType, Tensor], graphs: GraphBatch, masks: Masks
    ) -> Tensor:
        """Mean squared error of the masked nodes' semantic vectors: over a tile, then over tiles.

        A tile without nodes adds nothing, and counts as a tile.
        """
        hidden = masks.nodes
        found = torch.cat([objects[kind][hidden[kind]] for kind in NODE_TYPES])
        target = torch.cat([graphs.x[kind][hidden[kind]] for kind in NODE_TYPES])
        tile = torch.cat([graphs.tile[kind][hidden[kind]] for kind in NODE_TYPES])
        errors = (self._parts.node_decoder(found).float() - target).square().mean(dim=1)
        per_tile = torch.bincount(tile, minlength=graphs.size)
        loss: Tensor = (errors / per_tile[tile]).sum() / graphs.size
        return loss


def info_nce(images: Tensor, regions: Tensor, *, temperature: float) -> Tensor:
    """Contrast of N pairs (N, D), both ways: a pair against all other pairs (van den Oord 2018).

    No pair, or a single one, has nothing to be told from: the loss is 0.
    """
    images, regions = functional.normalize(images, dim=1), functional.normalize(regions, dim=1)
    scores = images @ regions.T / temperature  # (N, N)
    pairs = torch.arange(len(scores), device=scores.device)
    both = functional.cross_entropy(scores, pairs, reduction="sum")
    both = both + functional.cross_entropy(scores.T, pairs, reduction="sum")
    return both / (2 * max(len(pairs), 1))


def hide_nodes(
    graphs: GraphBatch, hidden: Mapping[NodeType, Tensor], tokens: Mapping[NodeType, Tensor]
) -> GraphBatch:
    """Graphs whose hidden nodes have a token in place of their meaning; places and edges stay.

    Args:
        graphs: whole graphs.
        hidden: per node type, (N,) True for nodes to hide.
        tokens: per node type, the (1, D) token.
    """
    x = {
        kind: torch.where(hidden[kind][:, None], tokens[kind].to(graphs.x[kind]), graphs.x[kind])
        for kind in NODE_TYPES
    }
    return replace(graphs, x=x)


def patchify(images: Tensor, side: int) -> Tensor:
    """(B, bands, H, W) to (B, h * w, side^2 * bands): patches row by row, bands innermost."""
    batch, bands, height, width = images.shape
    cells = images.reshape(batch, bands, height // side, side, width // side, side)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, side * side * bands)


def unpatchify(patches: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The inverse of `patchify` for images of (h, w) patches."""
    batch, bands = len(patches), patches.shape[2] // side**2
    cells = patches.reshape(batch, *grid, side, side, bands)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(batch, bands, grid[0] * side, grid[1] * side)


def _select(patches: Tensor, places: Tensor) -> Tensor:
    """(B, P, D) patches at (B, M) places."""
    return patches.gather(1, places[..., None].expand(-1, -1, patches.shape[2]))
