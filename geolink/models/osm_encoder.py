"""OSM graph to node encodings: heterogeneous graph attention."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, HeteroConv, LayerNorm

from geolink.config import ModelConfig
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES, RELATIONS, NodeType
from geolink.models.graph_batch import GraphBatch


class OsmEncoder(nn.Module):
    """Graph layers over semantic vectors (Bai et al. 2025, section 3.2); the first changes width.

    Layers after the first are residual.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [config.semantic_dim] + [config.osm_dim] * (config.osm_layers - 1)
        self.layers = nn.ModuleList(GraphLayer(width, config) for width in widths)

    def forward(self, graphs: GraphBatch) -> dict[NodeType, Tensor]:
        """Per node type, (N, osm_dim) encodings."""
        first, *others = self.layers
        nodes: dict[NodeType, Tensor] = first(graphs.x, graphs)
        for layer in others:
            gained = layer(nodes, graphs)
            nodes = {kind: nodes[kind] + gained[kind] for kind in NODE_TYPES}
        return nodes


class GraphLayer(nn.Module):
    """Nine parallel GATConv, one per edge type (Velickovic et al. 2018).

    A node takes the mean over the edge types that end in its type, then ReLU and LayerNorm.
    """

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.relation_aware = config.relation_aware
        self.norm_by_tile = config.osm_norm == "tile"
        convs = {
            edge: GATConv(
                width,
                config.osm_dim,
                add_self_loops=False,
                edge_dim=len(RELATIONS[edge]) if config.relation_aware else None,
            )
            for edge in EDGE_TYPES
        }
        self.conv = HeteroConv(convs, aggr="mean")
        mode = "node" if config.osm_norm == "node" else "graph"
        self.norm = nn.ModuleDict({k: LayerNorm(config.osm_dim, mode=mode) for k in NODE_TYPES})

    def forward(self, nodes: dict[NodeType, Tensor], graphs: GraphBatch) -> dict[NodeType, Tensor]:
        """Per node type, (N, osm_dim) encodings of (N, width) nodes."""
        edges = {"edge_attr_dict": graphs.edge_attr} if self.relation_aware else {}
        messages = self.conv(nodes, graphs.edge_index, **edges)
        return {kind: self._normalise(kind, messages[kind].relu(), graphs) for kind in NODE_TYPES}

    def _normalise(self, kind: NodeType, nodes: Tensor, graphs: GraphBatch) -> Tensor:
        """LayerNorm; its scope counts only where it runs over more than each node."""
        tile, tiles = graphs.tile[kind], graphs.size
        if not self.norm_by_tile:
            tile, tiles = torch.zeros_like(tile), 1
        normalised: Tensor = self.norm[kind](nodes, tile, tiles)
        return normalised
