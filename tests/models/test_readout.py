import pytest
import torch

from geolink.config import ModelConfig
from geolink.models.graph_batch import collate
from geolink.models.readout import Readout


@pytest.fixture(params=["softmax", "constant"])
def readout(request):
    torch.manual_seed(0)
    return Readout(ModelConfig(type_attention=request.param)).eval()


def region_of(readout, graphs):
    batch = collate(graphs, len(graphs), semantic_dim=128)
    return readout(batch.x, batch)


@torch.no_grad()
def test_a_tile_alone_equals_the_tile_in_a_batch(readout, make_graph):
    graphs = [make_graph(3, 0, 2, dim=128), None, make_graph(0, 400, 1, dim=128)]
    together = region_of(readout, graphs)
    assert together.shape == (3, 128)
    assert not together[1].any()
    for i, graph in enumerate(graphs):
        torch.testing.assert_close(together[i : i + 1], region_of(readout, [graph]))


@torch.no_grad()
def test_one_type_alone_has_all_the_weight(readout, make_graph):
    batch = collate([make_graph(0, 4, 0, dim=128)], 1, semantic_dim=128)
    torch.testing.assert_close(
        readout(batch.x, batch), readout._pool("line", batch.x["line"], batch)
    )


def test_relevance_learns_only_where_it_counts(readout, make_graph):
    region_of(readout, [make_graph(2, 2, 2, dim=128), None]).square().sum().backward()
    learns = readout.relevance.weight.grad is not None
    assert learns == readout.softmax
    if learns:
        assert readout.relevance.weight.grad.isfinite().all()
