"""OSM node encodings of a tile to one region encoding."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import Set2Set

from geolink.config import ModelConfig
from geolink.graphs.schema import NODE_TYPES, NodeType
from geolink.models.graph_batch import GraphBatch

_STEPS = 5


class Readout(nn.Module):
    """Set2Set per node type (Vinyals et al. 2016), then attention over types and their sum.

    With `softmax` the types of a tile share a weight of 1 by their relevance (Bai et al. 2025,
    section 3.2); with `constant` every type weighs 1, as in the released code. Types without nodes
    take no part.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.osm_dim
        self.softmax = config.type_attention == "softmax"
        self.pool = nn.ModuleDict({k: Set2Set(width, processing_steps=_STEPS) for k in NODE_TYPES})
        self.project = nn.ModuleDict({k: nn.Linear(2 * width, width) for k in NODE_TYPES})
        self.relevance = nn.Linear(width, 1)

    def forward(self, nodes: dict[NodeType, Tensor], graphs: GraphBatch) -> Tensor:
        """(B, osm_dim) region encodings of B tiles."""
        regions = torch.stack([self._pool(k, nodes[k], graphs) for k in NODE_TYPES], dim=1)
        return (regions * self._weights(regions, graphs)).sum(dim=1)

    def _pool(self, kind: NodeType, nodes: Tensor, graphs: GraphBatch) -> Tensor:
        pooled = self.pool[kind](nodes, graphs.tile[kind], dim_size=graphs.size)
        region: Tensor = self.project[kind](pooled)
        return region

    def _weights(self, regions: Tensor, graphs: GraphBatch) -> Tensor:
        """(B, types, 1) weights of (B, types, osm_dim) regions, 0 for types without nodes."""
        counts = [torch.bincount(graphs.tile[k], minlength=graphs.size) for k in NODE_TYPES]
        absent = (torch.stack(counts, dim=1) == 0)[..., None]
        if not self.softmax:
            return (~absent).to(regions)
        scores: Tensor = self.relevance(regions)
        # A finite minimum, for a tile without any node.
        scores = scores.masked_fill(absent, torch.finfo(scores.dtype).min)
        return scores.softmax(dim=1).masked_fill(absent, 0.0)
