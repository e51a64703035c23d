"""Image tokens and OSM nodes meet: the two-way block and the positions of nodes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from geolink.config import ModelConfig
from geolink.graphs.schema import NODE_TYPES, NodeType
from geolink.models.graph_batch import GraphBatch
from geolink.models.image_encoder import ImageFeatures, as_map
from geolink.models.painting import Painting, cell_shares
from geolink.models.positions import as_points, embed_grid, embed_points
from geolink.models.slots import Slots


@dataclass(frozen=True)
class NodeSequences:
    """The fused nodes of B tiles as padded sequences.

    Attributes:
        values: (B, N, D) node vectors.
        positions: (B, N, D) position embeddings.
        padding: (B, N) True where attention must not look. One slot per tile is always open, since
            attention over nothing is undefined.
        present: (B, 1, 1) True for tiles that have anything to attend to.
    """

    values: Tensor
    positions: Tensor
    padding: Tensor
    present: Tensor


class Fusion(nn.Module):
    """Brings both sides to one width and lets them attend to each other (METHOD: fusion).

    In a tile without OSM a learned token stands in for the nodes. Without that token, as in the
    released code, the patches of such a tile gain nothing and are only normalised.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.fusion_dim
        self.max_nodes = config.max_nodes
        self.image_projection = nn.Linear(config.encoder.width, width)
        self.node_projection = nn.ModuleDict(
            {kind: nn.Linear(config.osm_dim, width) for kind in NODE_TYPES}
        )
        self.width, self.grid_size = width, config.grid_size
        self.by_coverage = config.position == "coverage"
        self.painting = Painting(width) if config.paint_objects else None
        self.block = TwoWayBlock(width, config.fusion_heads, dropout=config.dropout)
        self.empty_token = nn.Parameter(0.02 * torch.randn(width)) if config.empty_token else None

    def forward(
        self, image: ImageFeatures, nodes: dict[NodeType, Tensor], graphs: GraphBatch
    ) -> Tensor:
        """Hybrid RS-OSM patch encodings.

        Args:
            image: features of B tiles.
            nodes: per node type, (N, osm_dim) OSM encodings.
            graphs: the batch that the nodes come from.

        Returns:
            (B, fusion_dim, h, w).
        """
        groups = Slots.groups(graphs, self.max_nodes)
        hybrid, _ = self._fuse(image, nodes, graphs, groups)
        return as_map(hybrid, image.grid)

    def with_objects(
        self, image: ImageFeatures, nodes: dict[NodeType, Tensor], graphs: GraphBatch
    ) -> tuple[Tensor, dict[NodeType, Tensor]]:
        """Hybrid patch encodings as from `forward`, and hybrid OSM-RS object encodings.

        All nodes are fused, whatever the model's cap, so that each has an encoding.

        Returns:
            (B, fusion_dim, h, w), and per node type (N, fusion_dim).
        """
        hybrid, objects = self._two_ways(image, nodes, graphs)
        return as_map(hybrid, image.grid), objects

    def objects(
        self, image: ImageFeatures, nodes: dict[NodeType, Tensor], graphs: GraphBatch
    ) -> dict[NodeType, Tensor]:
        """Hybrid OSM-RS object encodings as from `with_objects`, of an image that may be masked."""
        _, objects = self._two_ways(image, nodes, graphs)
        return objects

    def _two_ways(
        self, image: ImageFeatures, nodes: dict[NodeType, Tensor], graphs: GraphBatch
    ) -> tuple[Tensor, dict[NodeType, Tensor]]:
        """Hybrid tokens (B, 1 + V, fusion_dim), and per node type (N, fusion_dim) encodings."""
        groups = Slots.groups(graphs, None)
        hybrid, sequences = self._fuse(image, nodes, graphs, groups)
        places = self._token_positions(image)
        objects = torch.cat(
            [
                slots.unpad(
                    self.block.inform_nodes(sequence, hybrid[slots.tiles], _of_tiles(places, slots))
                )
                for slots, sequence in zip(groups, sequences, strict=True)
            ]
        )
        objects = _restored(objects, torch.cat([slots.node for slots in groups]))
        by_type = torch.split(objects, [len(nodes[kind]) for kind in NODE_TYPES])
        return hybrid, dict(zip(NODE_TYPES, by_type, strict=True))

    def _fuse(
        self,
        image: ImageFeatures,
        nodes: dict[NodeType, Tensor],
        graphs: GraphBatch,
        groups: list[Slots],
    ) -> tuple[Tensor, list[NodeSequences]]:
        """Hybrid tokens (B, 1 + V, fusion_dim) and, per group of tiles, its related nodes."""
        tokens, places = self.image_projection(image.tokens), self._token_positions(image)
        values = torch.cat([self.node_projection[kind](nodes[kind]) for kind in NODE_TYPES])
        positions = torch.cat([self._node_positions(kind, graphs) for kind in NODE_TYPES])
        sequences = [self._sequences(values, positions, slots) for slots in groups]
        shares = None if self.painting is None else cell_shares(graphs, self.grid_size)
        hybrid = torch.cat(
            [
                self.block.inform_image(
                    tokens[slots.tiles],
                    _of_tiles(places, slots),
                    sequence,
                    self._painted(image, sequence, slots, shares),
                )
                for slots, sequence in zip(groups, sequences, strict=True)
            ]
        )
        return _restored(hybrid, torch.cat([slots.tiles for slots in groups])), sequences

    def _painted(
        self, image: ImageFeatures, nodes: NodeSequences, slots: Slots, shares: Tensor | None
    ) -> Tensor | None:
        """(T, 1 + V, D) what the tokens of a group of tiles take from the objects in them."""
        if self.painting is None or shares is None:
            return None
        painted: Tensor = self.painting(nodes.values, slots.pad(shares), image.grid)
        if image.visible is not None:
            visible = image.visible[slots.tiles][..., None]
            painted = painted.gather(1, visible.expand(-1, -1, self.width))
        return functional.pad(painted, (0, 0, 1, 0))

    def _sequences(self, values: Tensor, positions: Tensor, slots: Slots) -> NodeSequences:
        """The nodes of a group of tiles after they have looked at each other."""
        values, positions = slots.pad(values), slots.pad(positions)
        padding = slots.padding()
        present = ~padding.all(dim=1)[:, None, None]
        if self.empty_token is not None:
            values = torch.where(present, values, self.empty_token.to(values))
            present = torch.ones_like(present)
        padding[:, 0] = False
        return self.block.relate(NodeSequences(values, positions, padding, present))

    def _token_positions(self, image: ImageFeatures) -> Tensor:
        """Embeddings of the image tokens: (1 + h * w, D), or (B, 1 + V, D) of a masked image."""
        table = self._table(image.grid, image.tokens.device)
        if image.visible is None:
            return table
        return table[functional.pad(image.visible + 1, (1, 0))]

    def _node_positions(self, kind: NodeType, graphs: GraphBatch) -> Tensor:
        """(N, D) mean embedding of each node's key-points, or of the patches that it covers."""
        xy = as_points(graphs.keypoints[kind]) * self.grid_size  # (N, K, 2), in patch units
        positions = embed_points(xy, self.width).mean(dim=1)
        covered = graphs.coverage.get(kind)
        if covered is None or not self.by_coverage:
            return positions
        patches = self._table((self.grid_size, self.grid_size), xy.device)[1:]
        total = covered.sum(dim=1, keepdim=True)
        means = covered @ patches / total.clamp_min(torch.finfo(total.dtype).tiny)
        return torch.where(total > 0, means, positions)

    def _table(self, grid: tuple[int, int], device: torch.device) -> Tensor:
        return embed_grid(grid, self.width, grid_size=self.grid_size, device=device)


class TwoWayBlock(nn.Module):
    """Self-attention among nodes, then cross-attention both ways (Bai et al. 2025, section 3.2)."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.among_nodes, self.image_from_nodes, self.nodes_from_image = (
            nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True) for _ in range(3)
        )
        self.node_norm = nn.LayerNorm(width)
        self.image_norm = nn.LayerNorm(width)
        self.object_norm = nn.LayerNorm(width)
        self.object_projection = nn.Linear(width, width)
        self.object_projection_norm = nn.LayerNorm(width)

    def relate(self, nodes: NodeSequences) -> NodeSequences:
        """Self-attention among the nodes of each tile."""
        placed = nodes.values + nodes.positions
        gained = _attend(self.among_nodes, placed, placed, nodes.values, nodes.padding)
        return replace(nodes, values=self.node_norm(nodes.values + gained))

    def inform_image(
        self, tokens: Tensor, positions: Tensor, nodes: NodeSequences, painted: Tensor | None = None
    ) -> Tensor:
        """Image tokens (B, T, D) and their positions look at the nodes of their tile.

        `painted` (B, T, D) is what they take besides from the objects in them.
        """
        gained = _attend(
            self.image_from_nodes,
            tokens + positions,
            nodes.values + nodes.positions,
            nodes.values,
            nodes.padding,
        )
        informed = tokens + gained * nodes.present
        hybrid: Tensor = self.image_norm(informed if painted is None else informed + painted)
        return hybrid

    def inform_nodes(self, nodes: NodeSequences, tokens: Tensor, positions: Tensor) -> Tensor:
        """Hybrid OSM-RS object encodings (B, N, D): nodes look at their tile's image tokens."""
        gained = _attend(
            self.nodes_from_image, nodes.values + nodes.positions, tokens + positions, tokens
        )
        objects: Tensor = self.object_norm(nodes.values + gained)
        objects = self.object_projection_norm(self.object_projection(objects))
        return objects


def _attend(
    attention: nn.Module, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None = None
) -> Tensor:
    """Attention through PyTorch's fused kernels, which it uses where no weights are asked for."""
    gained: Tensor
    gained, _ = attention(query, key, value, key_padding_mask=padding, need_weights=False)
    return gained


def _of_tiles(places: Tensor, slots: Slots) -> Tensor:
    """The token positions of a group's tiles; those of whole images are the same for all."""
    return places if places.ndim == 2 else places[slots.tiles]


def _restored(rows: Tensor, places: Tensor) -> Tensor:
    """Rows that belong to `places`, a permutation, in the order of the places."""
    return rows[places.argsort()]
