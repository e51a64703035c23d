import torch

from geolink.models.graph_batch import collate
from geolink.models.slots import Slots


def slots_of(graphs, max_nodes=None):
    """All tiles of a small batch, which form one group."""
    batch = collate(graphs, len(graphs), semantic_dim=384)
    (slots,) = Slots.groups(batch, max_nodes)
    return batch, slots


def test_every_node_has_a_slot_in_its_tile(make_graph):
    batch, slots = slots_of([make_graph(2, 1, 3), None, make_graph(4, 0, 0)])
    assert slots.length == 6
    tiles = torch.cat(list(batch.tile.values()))
    padded = slots.pad(1 + torch.arange(10.0)[:, None])[..., 0]
    for tile in range(3):
        expected = 1 + (tiles == tile).nonzero()[:, 0]
        assert padded[tile][padded[tile] > 0].tolist() == expected.tolist()
    assert torch.equal(slots.padding(), padded == 0)


def test_no_nodes_at_all():
    _, slots = slots_of([None, None])
    assert slots.length == 1
    assert slots.padding().shape == (2, 1)
    assert slots.padding().all()


def test_tiles_of_like_length_form_a_group(make_graph):
    graphs = [make_graph(400, 0, 0), make_graph(2, 2, 2), make_graph(0, 0, 390), None]
    batch = collate(graphs, 4, semantic_dim=384)
    short, long = Slots.groups(batch, None)
    assert (short.tiles.tolist(), short.length) == ([1, 3], 6)
    assert (long.tiles.tolist(), long.length) == ([0, 2], 400)
    nodes = torch.cat([short.node, long.node])
    assert nodes.sort().values.tolist() == list(range(796))
    (capped,) = Slots.groups(batch, 20)
    assert (capped.tiles.tolist(), capped.length) == ([0, 1, 2, 3], 20)


def test_the_cap_keeps_the_largest(make_graph):
    graph = make_graph(3, 2, 2)
    graph["line"].keypoints = torch.tensor([[0, 0, 0.1, 0, 0, 0.1], [0, 0, 0.5, 0, 0, 0.5]])
    graph["polygon"].keypoints = torch.tensor([[0.2] * 8, [0.0] * 6 + [0.9, 0.9]])
    _, slots = slots_of([graph, None], max_nodes=3)
    # Rows: 3 points, 2 lines, 2 polygons; largest first.
    assert slots.node.tolist() == [6, 4, 3]
    assert slots.length == 3


def test_a_cap_that_nothing_reaches_keeps_all(make_graph):
    _, slots = slots_of([make_graph(2, 2, 2)], max_nodes=50)
    assert sorted(slots.node.tolist()) == list(range(6))
    assert slots.length == 6


def test_unpad_is_the_inverse_of_pad(make_graph):
    _, slots = slots_of([make_graph(2, 1, 3), None, make_graph(4, 0, 0)])
    values = torch.randn(10, 5)
    assert torch.equal(slots.unpad(slots.pad(values)), values[slots.node])


def test_the_cap_goes_by_coverage_where_it_is_known(make_graph):
    graph = make_graph(1, 2, 2)
    graph["line"].coverage = torch.tensor([[0.5, 0.0], [2.0, 3.0]])
    graph["polygon"].coverage = torch.tensor([[1.0, 1.0], [0.1, 0.1]])
    batch = collate([graph], 1, semantic_dim=384, coverage_cells=2)
    (slots,) = Slots.groups(batch, 2)
    assert slots.node.tolist() == [2, 3]
