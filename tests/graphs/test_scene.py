import pytest
import torch
from shapely import Point
from synthetic import NORTH, WEST, StubEncoder, assert_same_graph, entities, osm_entities

from geolink.graphs.build import build_graph
from geolink.graphs.scene import SceneGraphs
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES
from geolink.grid import Bounds

COUNTS = {"building": 50, "highway": 40, "landuse": 30, "natural": 20}
# Cuts streets, the pond and the industrial ground.
TILE = Bounds(WEST + 100, NORTH - 220, WEST + 230, NORTH - 90)


@pytest.fixture(scope="module")
def scene():
    return osm_entities()


@pytest.fixture(scope="module")
def graphs(scene):
    return SceneGraphs(scene, StubEncoder(), COUNTS)


def test_a_tile_has_the_graph_of_all_entities_cut_to_it(scene, graphs):
    expected = build_graph(
        scene.polygon, scene.line, scene.point, TILE, tags=StubEncoder(), key_counts=COUNTS
    )
    graph = graphs.build(TILE)
    assert 0 < len(graph["polygon"].x) < len(scene.polygon)
    assert_same_graph(graph, expected)
    for kind in NODE_TYPES:
        assert torch.equal(graph[kind].source, expected[kind].source)


def test_tiles_do_not_depend_on_those_before(graphs):
    first = graphs.build(TILE)
    graphs.build(Bounds(WEST, NORTH - 100, WEST + 100, NORTH))
    assert_same_graph(graphs.build(TILE), first)


def test_source_is_the_row_in_the_scene(scene, graphs):
    graph = graphs.build(Bounds(WEST + 190, NORTH - 100, WEST + 300, NORTH))
    tags = [scene.polygon["tags"][i] for i in graph["polygon"].source.tolist()]
    assert tags == [{"leisure": "park", "name": "Puisto"}, {"natural": "water"}]
    assert graph["point"].source.tolist() == [0, 1]


def test_far_objects_change_nothing(graphs):
    far = ({"natural": "tree"}, Point(WEST + 9000, NORTH))
    more = SceneGraphs(osm_entities([*entities(), far]), StubEncoder(), COUNTS)
    assert_same_graph(more.build(TILE), graphs.build(TILE))


def test_an_empty_tile_has_every_type(graphs):
    graph = graphs.build(Bounds(WEST + 5000, NORTH, WEST + 5100, NORTH + 100))
    assert [len(graph[kind].x) for kind in NODE_TYPES] == [0, 0, 0]
    assert [graph[kind].x.shape[1] for kind in NODE_TYPES] == [StubEncoder.dim] * 3
    assert all(graph[edge_type].edge_index.shape == (2, 0) for edge_type in EDGE_TYPES)


def test_rows_within_are_ascending_and_touching_counts(graphs):
    rows = graphs.rows_within(Bounds(WEST + 140, NORTH - 120, WEST + 150, NORTH - 5))
    assert rows["polygon"].tolist() == [0, 1]
    assert rows["line"].tolist() == [1]
    assert rows["point"].tolist() == []
