import pytest
import torch

from geolink.config import ModelConfig
from geolink.errors import GraphError
from geolink.models.geolink import GeoLink
from geolink.models.graph_batch import collate
from geolink.models.painting import Painting, cell_shares

SIDE = 4  # patches of a 64 px image
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def new_model(**settings):
    """A model whose patches take a lot from the objects in them."""
    torch.manual_seed(0)
    model = GeoLink(ModelConfig(image_size=64, paint_objects=True, **settings)).eval()
    torch.nn.init.normal_(model.fusion.painting.mix.weight, std=0.2)
    return model


def new_images(batch=1, side=64):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def shares_of(graph, size=1):
    return cell_shares(collate(graph, size, semantic_dim=384, coverage_cells=SIDE**2), SIDE)


def test_points_have_their_cell_and_share_it(covered_graph):
    graph = covered_graph(4, 0, 0, side=SIDE)
    graph["point"].keypoints = torch.tensor([[0.1, 0.1], [0.2, 0.1], [1.0, 1.0], [0.6, 0.1]])
    shares = shares_of(graph).view(4, SIDE, SIDE)
    assert shares[:, 0, 0].tolist() == [0.5, 0.5, 0, 0]
    assert shares[2, 3, 3] == 1
    assert shares[3, 0, 2] == 1
    assert shares.sum() == 3


def test_areas_count_by_the_cell_and_share_only_what_is_full(covered_graph):
    graph = covered_graph(0, 1, 2, side=SIDE)
    graph["line"].coverage = torch.full((1, SIDE**2), 0.25)
    graph["polygon"].coverage = torch.tensor([[0.5], [1.5]]).expand(2, SIDE**2)
    line, *polygons = shares_of(graph)[:, 0].tolist()
    assert line == 0.25  # lines do not compete with polygons
    assert polygons == [0.25, 0.75]


def test_tiles_do_not_share_cells(covered_graph):
    one, two = covered_graph(3, 2, 2, side=SIDE), covered_graph(3, 2, 2, side=SIDE, seed=1)
    both = shares_of([one, two], 2)
    parts = [both[:3], both[6:8], both[10:12]]  # points, lines, polygons of the first tile
    torch.testing.assert_close(torch.cat(parts), shares_of(one))


def test_cells_are_averaged_to_patches():
    painting = Painting(8)
    torch.nn.init.eye_(painting.mix.weight)
    nodes, shares = torch.eye(8)[None], torch.zeros(1, 8, 16)
    shares[0, 0, 5], shares[0, 1, 15] = 1.0, 1.0  # cells (1, 1) and (3, 3) of four by four
    whole, coarse = painting(nodes, shares, (4, 4))[0], painting(nodes, shares, (2, 2))[0]
    assert whole[5].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert whole.count_nonzero() == 2
    assert coarse[0, 0] == coarse[3, 1] == 0.25
    assert coarse.count_nonzero() == 2


@torch.no_grad()
def test_an_object_is_seen_where_it_lies(covered_graph):
    model = new_model()
    graph = covered_graph(3, 3, 3, side=SIDE)
    moved = graph.clone()
    graph["polygon"].coverage = torch.zeros(3, SIDE**2)
    moved["polygon"].coverage = torch.eye(SIDE**2)[[5]].expand(3, -1)
    (*_, before), (*_, after) = model.encode(new_images(), graph), model.encode(new_images(), moved)
    changed = (before - after).abs().amax(1)[0] > 1e-4
    assert changed.flatten().nonzero().flatten().tolist() == [5]


@torch.no_grad()
def test_key_points_stay_the_positions(covered_graph):
    graph = covered_graph(2, 2, 2, side=SIDE)
    moved = graph.clone()
    moved["polygon"].keypoints = 1 - graph["polygon"].keypoints
    model = new_model()
    assert not torch.allclose(model(new_images(), graph), model(new_images(), moved), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"max_nodes": 5}, {"empty_token": False}])
def test_a_tile_alone_equals_the_tile_in_a_batch(settings, covered_graph):
    model = new_model(**settings)
    graphs = [None, covered_graph(90, 90, 90, side=SIDE), covered_graph(5, 4, 3, side=SIDE)]
    images = new_images(3)
    together = model.encode(images, graphs)[-1]
    for i, graph in enumerate(graphs):
        alone = model.encode(images[i : i + 1], graph)[-1]
        torch.testing.assert_close(together[i : i + 1], alone, **CLOSE)


@torch.no_grad()
def test_images_of_other_sides(covered_graph):
    logits = new_model()(new_images(side=32), covered_graph(3, 3, 3, side=SIDE))
    assert logits.shape == (1, 9, 32, 32)


def test_masked_images_take_what_lies_in_the_patches_that_are_seen(covered_graph):
    model = new_model(pretraining=True)
    graphs = collate(covered_graph(5, 5, 5, side=SIDE), 1, semantic_dim=384, coverage_cells=SIDE**2)
    visible = torch.tensor([[2, 7, 11]])
    objects = model.fusion.objects(model.image(new_images(), visible), model.osm(graphs), graphs)
    sum(part.square().sum() for part in objects.values()).backward()
    assert model.fusion.painting.mix.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_graphs_without_coverage_are_refused(make_graph):
    with pytest.raises(GraphError, match="line nodes need the coverage of 16 patches"):
        new_model()(new_images(), make_graph(2, 2, 2))


def test_mixed_precision_trains(covered_graph):
    """The types that autocast mixes are the same on every device; speed matters on a GPU only."""
    model, graphs = new_model().train(), [covered_graph(5, 5, 5, side=SIDE), None]
    with torch.autocast("cpu", torch.bfloat16):
        model(new_images(2), graphs).float().square().mean().backward()
    assert model.fusion.painting.mix.weight.grad.isfinite().all()
