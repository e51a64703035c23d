from dataclasses import replace

import numpy as np
import pytest
import shapely
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
WHOLE = Bounds(WEST, NORTH - 300, WEST + 300, NORTH)


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


def test_parts_of_an_object_share_its_number(scene):
    frames = {kind: getattr(scene, kind).copy() for kind in ("line", "polygon")}
    frames["polygon"].loc[[1, 3], "osm_id"] = "relation/7"
    frames["line"].loc[0, "osm_id"] = "relation/7"
    graph = SceneGraphs(replace(scene, **frames), StubEncoder(), COUNTS).build(WHOLE)
    names = [
        name
        for kind in NODE_TYPES
        for name in frames.get(kind, scene.point)["osm_id"].to_numpy()[graph[kind].source]
    ]
    numbers = torch.cat([graph[kind].object for kind in NODE_TYPES]).tolist()
    assert len(set(zip(names, numbers, strict=True))) == len(set(names)) == len(set(numbers)) == 10


def test_coverage_is_that_of_the_clipped_objects(scene, graphs):
    graph = SceneGraphs(scene, StubEncoder(), COUNTS, coverage_side=7).build(TILE)
    assert_same_graph(graph, graphs.build(TILE))
    assert "coverage" not in graph["point"]
    assert "coverage" not in graphs.build(TILE)["line"]
    cell = TILE.width / 7
    for kind, measure, unit in (
        ("line", shapely.length, cell),
        ("polygon", shapely.area, cell**2),
    ):
        assert graph[kind].coverage.shape == (len(graph[kind].x), 49)
        cut = shapely.intersection(
            graphs.geometries[kind][graph[kind].source.numpy()], shapely.box(*TILE)
        )
        found = graph[kind].coverage.sum(dim=1).numpy()
        np.testing.assert_allclose(found, measure(cut) / unit, rtol=1e-5)


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
