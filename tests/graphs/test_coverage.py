import numpy as np
import pytest
import shapely
import torch
from shapely import LineString, box
from torch_geometric.data import HeteroData

from geolink.errors import GraphError
from geolink.graphs.coverage import add_coverage, cell_shares
from geolink.grid import Bounds

TILE = Bounds(100, 200, 140, 240)  # four cells of 10 metres per side


def shares(*shapes):
    return cell_shares(np.array(shapes, dtype=object), TILE, cells=4).reshape(-1, 4, 4)


def test_a_polygon_counts_by_area():
    (found,) = shares(box(105, 225, 120, 240))
    expected = np.zeros((4, 4))
    expected[:2, :2] = [[0.5, 1.0], [0.25, 0.5]]
    np.testing.assert_allclose(found, expected)


def test_a_line_counts_by_length():
    (found,) = shares(LineString([(105, 235), (125, 235), (125, 225)]))
    expected = np.zeros((4, 4))
    expected[0] = [0.5, 1.0, 1.0, 0.0]
    expected[1, 2] = 0.5
    np.testing.assert_allclose(found, expected)


def test_an_object_inside_one_cell():
    polygon, line = shares(box(132, 202, 134, 207), LineString([(101, 201), (105, 204)]))
    assert polygon[3, 3] == pytest.approx(0.1)
    assert polygon.sum() == pytest.approx(0.1)
    assert line[3, 0] == line.sum() == pytest.approx(0.5)


def test_a_hole_is_not_covered():
    (found,) = shares(box(*TILE).difference(box(110, 210, 130, 230)))
    assert not found[1:3, 1:3].any()
    assert found.sum() == pytest.approx(12)


def test_shares_add_up():
    rng = np.random.default_rng(0)
    shapes = shapely.buffer(shapely.points(rng.uniform((110, 210), (130, 230), (30, 2))), 9)
    total = cell_shares(shapes, TILE, cells=4).sum(axis=1)
    np.testing.assert_allclose(total, shapely.area(shapes) / 100, rtol=1e-5)


def test_no_geometries():
    assert shares().shape == (0, 4, 4)


def test_add_coverage_leaves_the_graph_as_it_is():
    graph = HeteroData()
    graph.bounds = torch.tensor(TILE, dtype=torch.float64)
    graph["line"].x, graph["polygon"].x = torch.zeros(0, 3), torch.zeros(1, 3)
    shapes = {"line": np.array([], dtype=object), "polygon": np.array([box(*TILE)])}
    covered = add_coverage(graph, shapes, cells=4)
    assert covered["polygon"].coverage.tolist() == [[1.0] * 16]
    assert covered["line"].coverage.shape == (0, 16)
    assert "coverage" not in graph["polygon"]
    with pytest.raises(GraphError, match="0 polygon geometries do not belong to 1 nodes"):
        add_coverage(graph, {**shapes, "polygon": shapes["line"]})
