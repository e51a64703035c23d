import geopandas as gpd
import numpy as np
import pytest
import torch
from shapely import LineString, box
from synthetic import StubEncoder, assert_same_graph

from geolink.graphs.build import build_graph
from geolink.graphs.disturbed import drop_nodes, retag_nodes, shift_nodes
from geolink.graphs.schema import NODE_TYPES

TILE = (0.0, 0.0, 1.0, 1.0)


def frame(geometry):
    labels = [f"natural:{i}" for i in range(len(geometry))]
    return gpd.GeoDataFrame({"label": labels}, geometry=geometry)


def built(polygons, lines, points):
    options = {"tags": StubEncoder(), "key_counts": {"natural": 5}}
    return build_graph(frame(polygons), frame(lines), frame(points), TILE, **options)


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    polygons = [box(x, y, x + 0.1, y + 0.1) for x, y in rng.uniform(0, 0.9, (20, 2))]
    lines = [LineString(ends) for ends in rng.uniform(0, 1, (10, 2, 2))]
    return polygons, lines, gpd.points_from_xy(*rng.uniform(0, 1, (2, 30)))


@pytest.fixture(scope="module")
def graph(parts):
    made = built(*parts)
    first = 0
    for kind in NODE_TYPES:  # as published graphs are numbered
        made[kind].object = torch.arange(first, first + len(made[kind].x))
        first += len(made[kind].x)
    return made


def test_what_is_left_is_related_as_if_it_had_been_alone(parts, graph):
    left = drop_nodes(graph, 0.5, seed=0)
    kept = [left[kind].object - graph[kind].object[0] for kind in ("polygon", "line", "point")]
    assert all(0 < len(rows) < len(part) for rows, part in zip(kept, parts, strict=True))
    rows = [rows.tolist() for rows in kept]
    expected = built(*([part[i] for i in which] for part, which in zip(parts, rows, strict=True)))
    for kind, which in zip(("polygon", "line", "point"), rows, strict=True):
        expected[kind].x = graph[kind].x[which]  # tags of the made-up parts are their row's
    assert_same_graph(left, expected, keypoints=False)


def test_only_the_types_asked_for_are_dropped(graph):
    left = drop_nodes(graph, 1.0, seed=0, kinds=("line",))
    counts = [len(left[kind].x) for kind in NODE_TYPES]
    assert counts == [0 if kind == "line" else len(graph[kind].x) for kind in NODE_TYPES]
    assert left["point", "to", "line"].edge_index.shape == (2, 0)


def test_draws_follow_from_the_seed(graph):
    kept = [drop_nodes(graph, 0.5, seed=seed)["polygon"].object.tolist() for seed in (0, 0, "0 b")]
    assert kept[0] == kept[1] != kept[2]


def test_all_key_points_of_an_object_move_alike(graph):
    moved = shift_nodes(graph, 0.05, seed=0)
    for kind in NODE_TYPES:
        change = (moved[kind].keypoints - graph[kind].keypoints).unflatten(1, (-1, 2))
        torch.testing.assert_close(change, change[:, :1].expand_as(change))
        lengths = change.norm(dim=-1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, 0.05))
        assert torch.equal(moved[kind].x, graph[kind].x)


def test_a_share_of_the_objects_is_taken_for_others(graph):
    mistaken = retag_nodes(graph, 0.5, seed=0)
    for kind in NODE_TYPES:
        same = (mistaken[kind].x == graph[kind].x).all(dim=1)
        assert 0 < same.sum() < len(same)
        known = {tuple(row) for row in graph[kind].x.tolist()}
        assert all(tuple(row) in known for row in mistaken[kind].x.tolist())
        assert torch.equal(mistaken[kind].keypoints, graph[kind].keypoints)
