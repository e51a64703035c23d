import torch
from torch_geometric.data import Batch

from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES
from geolink.models.graph_batch import collate


def test_joins_as_torch_geometric_does(make_graph):
    graphs = [make_graph(4, 3, 2), make_graph(0, 2, 0, seed=1), make_graph(1, 1, 5, seed=2)]
    found = collate(graphs, 3, semantic_dim=384)
    batch = Batch.from_data_list(graphs)
    for kind in NODE_TYPES:
        assert torch.equal(found.x[kind], batch[kind].x)
        assert torch.equal(found.keypoints[kind], batch[kind].keypoints)
        assert torch.equal(found.tile[kind], batch[kind].batch)
    for edge in EDGE_TYPES:
        assert torch.equal(found.edge_index[edge], batch[edge].edge_index)
        assert torch.equal(found.edge_attr[edge], batch[edge].edge_attr)


def test_tiles_without_graphs(make_graph):
    batch = collate([None, make_graph(1, 0, 0), None], 3, semantic_dim=384)
    assert batch.has_nodes.tolist() == [False, True, False]
    assert batch.tile["point"].tolist() == [1]


def test_numbers_take_the_model_s_types(make_graph):
    graph = make_graph(2, 2, 2)
    for edge in EDGE_TYPES:
        graph[edge].edge_index = graph[edge].edge_index.int()
        graph[edge].edge_attr = graph[edge].edge_attr.byte()
    batch = collate(graph, 1, semantic_dim=384)
    assert {t.dtype for t in batch.edge_index.values()} == {torch.int64}
    assert {t.dtype for t in batch.edge_attr.values()} == {torch.float32}
