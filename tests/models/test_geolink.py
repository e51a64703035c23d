import pytest
import torch
from torch_geometric.data import Batch

from geolink.config import ENCODERS, ModelConfig
from geolink.errors import GraphError, InputError
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES
from geolink.models.geolink import GeoLink

BUDGET_BYTES = 15e6
# Sums of float32 numbers come out a little differently in batches of other sizes.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def new_model(**settings):
    torch.manual_seed(0)
    return GeoLink(ModelConfig(**{"image_size": 64, **settings})).eval()


def new_images(batch=1, side=64, bands=3):
    return torch.randn(batch, bands, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return new_model()


@torch.no_grad()
def test_shapes(model, make_graph):
    images, graphs = new_images(2), [make_graph(3, 2, 1), None]
    assert [tuple(m.shape) for m in model.encode(images, graphs)] == [
        *[(2, 192, 4, 4)] * 3,
        (2, 256, 4, 4),
    ]
    assert model.logits_at_stride(images, graphs).shape == (2, 9, 16, 16)
    assert model(images, graphs).shape == (2, 9, 64, 64)
    assert model.probabilities_with_and_without(images, graphs).shape == (2, 2, 9, 16, 16)


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if "large" not in name])
@torch.no_grad()
def test_every_size_runs(encoder, make_graph):
    model = new_model(image_encoder=encoder, image_size=32)
    maps = model.encode(new_images(1, 32), make_graph(2, 2, 2))
    assert [m.shape[1] for m in maps] == [*[ENCODERS[encoder].width] * 3, 256]


@pytest.mark.parametrize("task", ["classify", "regress"])
@torch.no_grad()
def test_heads_for_images_answer_once_per_image(task, make_graph):
    model = new_model(task=task, classes=5)
    images, graphs = new_images(2), [make_graph(3, 2, 1), None]
    together = model(images, graphs)
    assert together.shape == (2, 5)
    assert model.encode_scene(images, graphs).shape == (2, 192 + 256)
    torch.testing.assert_close(together[1:], model(images[1:], [None]), **CLOSE)
    torch.testing.assert_close(together[:1], model(images[:1], graphs[:1]), **CLOSE)


@torch.no_grad()
def test_change_is_what_differs_between_two_dates(make_graph):
    model = new_model(task="change", classes=2)
    before, after = new_images(4).chunk(2)
    graphs = [make_graph(3, 2, 1), None]
    scores = model(torch.stack([before, after], dim=1), graphs)
    assert scores.shape == (2, 2, 64, 64)
    torch.testing.assert_close(scores, model(torch.stack([after, before], dim=1), graphs))
    same = model(torch.stack([before, before], dim=1), graphs)
    torch.testing.assert_close(same[0], same[1])  # nothing differs, whatever the image
    assert not torch.allclose(scores, same)
    with pytest.raises(InputError, match="images must be"):
        model(before, graphs)


@pytest.mark.slow
@torch.no_grad()
def test_the_large_model_runs_on_a_whole_tile(make_graph):
    with torch.device("meta"):
        model = GeoLink(ModelConfig.released())
    model = model.to_empty(device="cpu").eval()
    for parameter in model.parameters():
        parameter.fill_(0.01)
    logits = model(new_images(1, 224), make_graph(20, 20, 20, dim=512))
    assert logits.shape == (1, 9, 224, 224)
    assert logits.isfinite().all()


def test_the_tiny_model_fits_its_budget():
    parameters = sum(p.numel() for p in new_model(image_size=224).parameters())
    assert parameters * 2 < BUDGET_BYTES


@torch.no_grad()
@pytest.mark.parametrize(
    ("settings", "many"), [({}, 1700), ({"empty_token": False}, 50), ({"osm_norm": "tile"}, 50)]
)
def test_a_tile_alone_equals_the_tile_in_a_batch(settings, many, make_graph):
    model = new_model(**settings)
    images = new_images(4)
    graphs = [None, make_graph(1, 0, 0), make_graph(many, many, many), make_graph(5, 4, 3)]
    together = model.encode(images, graphs)
    for i, graph in enumerate(graphs):
        for joint, alone in zip(together, model.encode(images[i : i + 1], graph), strict=True):
            assert alone.isfinite().all()
            torch.testing.assert_close(joint[i : i + 1], alone, **CLOSE)


@torch.no_grad()
def test_the_order_of_tiles_does_not_matter(model, make_graph):
    images, graphs = new_images(3), [make_graph(4, 3, 2), None, make_graph(9, 1, 0, seed=5)]
    forward = model(images, graphs)
    backward = model(images.flip(0), graphs[::-1]).flip(0)
    torch.testing.assert_close(forward, backward, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("max_nodes", [None, 6])
def test_the_order_of_nodes_and_edges_does_not_matter(max_nodes, make_graph):
    model = new_model(max_nodes=max_nodes)
    graph = make_graph(7, 6, 5)
    torch.testing.assert_close(
        model(new_images(), shuffled(graph)), model(new_images(), graph), **CLOSE
    )


def shuffled(graph):
    """The same graph with its nodes and edges in another order."""
    rng = torch.Generator().manual_seed(3)
    graph = graph.clone()
    place = {}
    for kind in NODE_TYPES:
        order = torch.randperm(len(graph[kind].x), generator=rng)
        place[kind] = order.argsort()
        graph[kind].x, graph[kind].keypoints = graph[kind].x[order], graph[kind].keypoints[order]
    for edge in EDGE_TYPES:
        order = torch.randperm(graph[edge].edge_index.shape[1], generator=rng)
        source, target = graph[edge].edge_index[:, order]
        graph[edge].edge_index = torch.stack([place[edge[0]][source], place[edge[2]][target]])
        graph[edge].edge_attr = graph[edge].edge_attr[order]
    return graph


@torch.no_grad()
def test_a_joined_batch_equals_a_list(model, make_graph):
    graphs = [make_graph(4, 3, 2), make_graph(0, 0, 0), make_graph(1, 2, 3, seed=2)]
    images = new_images(3)
    assert torch.equal(model(images, Batch.from_data_list(graphs)), model(images, graphs))


@torch.no_grad()
def test_no_graph_equals_an_empty_graph(model, make_graph):
    assert torch.equal(model(new_images(), None), model(new_images(), make_graph(0, 0, 0)))


@torch.no_grad()
def test_probabilities_with_and_without_osm(model, make_graph):
    images, graphs = new_images(2), [None, make_graph(5, 5, 5)]
    fused, without = model.probabilities_with_and_without(images, graphs)
    assert torch.equal(fused[0], without[0])
    torch.testing.assert_close(fused, model.logits_at_stride(images, graphs).softmax(1), **CLOSE)
    torch.testing.assert_close(without, model.logits_at_stride(images, None).softmax(1), **CLOSE)
    assert not torch.allclose(fused[1], without[1], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("aware", [True, False])
def test_relations_count_where_the_model_is_aware_of_them(aware, make_graph):
    model = new_model(relation_aware=aware)
    graph = make_graph(4, 4, 4)
    other = graph.clone()
    for edge in EDGE_TYPES:
        other[edge].edge_attr = graph[edge].edge_attr.roll(1, dims=1)
    assert torch.equal(model(new_images(), graph), model(new_images(), other)) != aware


@torch.no_grad()
def test_other_image_sides(model, make_graph):
    images = torch.randn(1, 3, 96, 160)
    assert model(images, make_graph(3, 3, 3)).shape == (1, 9, 96, 160)
    with pytest.raises(InputError, match="multiples of 16 pixels"):
        model(torch.randn(1, 3, 64, 60))


@torch.no_grad()
def test_further_bands():
    model = new_model(bands=5)
    assert model(new_images(bands=5)).shape == (1, 9, 64, 64)
    with pytest.raises(InputError, match=r"\(batch, 5, height, width\)"):
        model(new_images(bands=3))


def test_every_part_that_the_map_needs_learns(make_graph):
    model = new_model().train()
    graphs = [make_graph(5, 5, 5), None]
    model(new_images(2), graphs).square().mean().backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    assert all("nodes_from_image" in name or ".object_" in name for name in idle)


def test_training_without_any_osm():
    model = new_model().train()
    model(new_images(2)).square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_dropout_only_while_training(model, make_graph):
    graph = make_graph(5, 5, 5)
    with torch.no_grad():
        assert torch.equal(model(new_images(), graph), model(new_images(), graph))
        model.train()
        try:
            assert not torch.equal(model(new_images(), graph), model(new_images(), graph))
        finally:
            model.eval()


@torch.no_grad()
def test_graphs_that_do_not_fit_are_refused(model, make_graph):
    with pytest.raises(GraphError, match="2 graphs for 1 images"):
        model(new_images(), [None, None])
    with pytest.raises(GraphError, match=r"expects \(384,\); use the tag encoder"):
        model(new_images(), make_graph(1, 1, 1, dim=512))
    graph = make_graph(1, 1, 1)
    del graph["line"]
    with pytest.raises(GraphError, match="no line nodes"):
        model(new_images(), graph)
    graph = make_graph(1, 1, 1)
    graph["line", "to", "point"].edge_attr = torch.zeros(3, 9)
    with pytest.raises(GraphError, match="line-point edges need 2 relation columns"):
        model(new_images(), graph)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_bfloat16_on_a_gpu_is_close(model, make_graph):
    images, graphs = new_images(2), [make_graph(5, 5, 5), None]
    expected = model(images, graphs)
    on_gpu = new_model().cuda()
    on_gpu.load_state_dict(model.state_dict())
    with torch.autocast("cuda", torch.bfloat16):
        found = on_gpu(images.cuda(), graphs)
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0.1, atol=0.1)


@torch.no_grad()
def test_objects_come_in_the_order_of_the_nodes(model, make_graph):
    images, graphs = new_images(3), [make_graph(4, 3, 2), None, make_graph(1, 0, 6, seed=4)]
    maps, objects = model.encode_objects(images, graphs)
    for found, expected in zip(maps, model.encode(images, graphs), strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)
    assert [[len(tile[k]) for k in NODE_TYPES] for tile in objects] == [
        [4, 3, 2],
        [0, 0, 0],
        [1, 0, 6],
    ]
    _, alone = model.encode_objects(images[2:], [shuffled(graphs[2])])
    order = torch.cdist(graphs[2]["polygon"].x, shuffled(graphs[2])["polygon"].x).argmin(1)
    torch.testing.assert_close(alone[0]["polygon"][order], objects[2]["polygon"], **CLOSE)


@torch.no_grad()
def test_objects_of_a_capped_model_are_complete(make_graph):
    _, objects = new_model(max_nodes=2).encode_objects(new_images(), make_graph(3, 3, 3))
    assert all(
        objects[0][kind].isfinite().all() and len(objects[0][kind]) == 3 for kind in NODE_TYPES
    )


@torch.no_grad()
def test_coverage_places_nodes(make_graph):
    model = new_model(position="coverage")
    graph = make_graph(2, 2, 2)
    with pytest.raises(GraphError, match="line nodes need the coverage of 16 patches"):
        model(new_images(), graph)
    graph["line"].coverage = torch.rand(2, 16)
    graph["polygon"].coverage = torch.zeros(2, 16)
    moved = graph.clone()
    moved["line"].coverage = graph["line"].coverage.flip(1)
    scaled = graph.clone()
    scaled["line"].coverage = 3 * graph["line"].coverage
    logits = model(new_images(), graph)
    assert logits.isfinite().all()
    torch.testing.assert_close(model(new_images(), scaled), logits, **CLOSE)
    assert not torch.allclose(model(new_images(), moved), logits, atol=1e-4)


@torch.no_grad()
def test_attention_runs_in_fused_kernels(model, make_graph, monkeypatch):
    fused = torch.nn.functional.scaled_dot_product_attention
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return fused(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    model(new_images(), make_graph(2, 2, 2))
    assert len(calls) == 12 + 2  # the blocks of the ViT, and both attentions of the fusion


@pytest.mark.parametrize("position", ["keypoints", "coverage"])
def test_mixed_precision_trains(position, make_graph):
    """The types that autocast mixes are the same on every device; speed matters on a GPU only."""
    model = new_model(position=position).train()
    graph = make_graph(5, 5, 5)
    for kind in ("line", "polygon"):
        graph[kind].coverage = torch.rand(5, 16)
    images, graphs = new_images(2), [graph, None]
    expected = new_model(position=position)(images, graphs)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.eval()(images, graphs)
        torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)
        model.train()(images, graphs).float().square().mean().backward()
        model.encode_objects(images, graphs)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
