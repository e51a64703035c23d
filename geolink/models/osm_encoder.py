"""OSM graph to node encodings: heterogeneous graph attention."""

from torch import Tensor, nn
from torch_geometric.nn import GATConv, HeteroConv

from geolink.config import ModelConfig
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES, RELATIONS
from geolink.models.graph_batch import GraphBatch


class OsmEncoder(nn.Module):
    """Layers of nine parallel GATConv, one per edge type (Velickovic et al. 2018).

    Each layer takes the mean over the edge types that end in a node type, then ReLU and LayerNorm
    (METHOD: OSM branch; Bai et al. 2025, section 3.2). Layers after the first are residual.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [config.semantic_dim] + [config.osm_dim] * config.osm_layers
        self.layers = nn.ModuleList(
            _graph_layer(source, config.osm_dim, relation_aware=config.relation_aware)
            for source in widths[:-1]
        )
        self.norms = nn.ModuleList(
            nn.ModuleDict({kind: nn.LayerNorm(config.osm_dim) for kind in NODE_TYPES})
            for _ in widths[:-1]
        )
        self.relation_aware = config.relation_aware

    def forward(self, graphs: GraphBatch) -> dict[str, Tensor]:
        """Per node type, (N, osm_dim) encodings."""
        edges = {"edge_attr_dict": graphs.edge_attr} if self.relation_aware else {}
        nodes = graphs.x
        for depth, (layer, norms) in enumerate(zip(self.layers, self.norms, strict=True)):
            messages = layer(nodes, graphs.edge_index, **edges)
            encoded = {kind: norms[kind](messages[kind].relu()) for kind in NODE_TYPES}
            nodes = {k: nodes[k] + encoded[k] for k in NODE_TYPES} if depth else encoded
        return nodes


def _graph_layer(source_dim: int, osm_dim: int, *, relation_aware: bool) -> nn.Module:
    convs = {
        edge: GATConv(
            source_dim,
            osm_dim,
            add_self_loops=False,
            edge_dim=len(RELATIONS[edge]) if relation_aware else None,
        )
        for edge in EDGE_TYPES
    }
    return HeteroConv(convs, aggr="mean")
