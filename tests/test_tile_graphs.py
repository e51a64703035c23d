import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from shapely.affinity import affine_transform
from synthetic import StubEncoder, assert_same_graph, edge_set

from geolink.augment import UNIT, Augmentation, View
from geolink.graphs.build import build_graph
from geolink.graphs.scene import SceneGraphs
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts, encode_tags
from geolink.grid import WGS84, Bounds, reproject_bounds, utm_crs
from geolink.sources.osm import read_osm
from geolink.sources.places import sample_extract
from geolink.sources.shard_files import TileObjects
from geolink.sources.tile_objects import ObjectIndex
from geolink.tile_graphs import TileGraphs

COUNTS = {"building": 50, "highway": 20, "natural": 5}


@pytest.fixture(scope="module")
def helsinki():
    """Entities of central Helsinki, and two tiles of it."""
    lon, lat = 24.9414, 60.1690
    crs = utm_crs(lon, lat)
    x, y, *_ = reproject_bounds(Bounds(lon, lat, lon, lat), WGS84, crs)
    tiles = [Bounds(x + i, y, x + i + 224, y + 224) for i in (0, 250)]
    return read_osm(sample_extract(), Bounds(x, y, x + 474, y + 224), crs=crs), tiles


@pytest.fixture(scope="module")
def real(helsinki):
    """The objects of the two tiles, in tile units."""
    entities, tiles = helsinki
    index = ObjectIndex(entities, entities.crs)
    return [index.within(tile) for tile in tiles]


def frames_of(objects, geometry):
    """The frames of polygons, lines and points that `build_graph` takes."""
    kinds = shapely.get_dimensions(geometry)
    return [
        gpd.GeoDataFrame(
            {
                "osm_id": objects.ids[kinds == kind],
                "tags": [objects.tags[i] for i in np.flatnonzero(kinds == kind)],
            },
            geometry=gpd.GeoSeries(geometry[kinds == kind]),
        )
        for kind in (2, 1, 0)
    ]


def assert_graph_of_changed_geometry(found, objects, view, encoder, counts, **options):
    linear, shift = view.matrix()
    changed = [affine_transform(g, [*linear.ravel(), *shift]) for g in objects.geometry]
    frames = frames_of(objects, np.array(changed, dtype=object))
    expected = build_graph(*frames, UNIT, tags=encoder, key_counts=counts, **options)
    for kind in NODE_TYPES:
        assert torch.equal(found[kind].x, expected[kind].x), kind
        assert torch.allclose(found[kind].keypoints, expected[kind].keypoints, atol=1e-6), kind
        if "coverage" in expected[kind]:
            assert torch.allclose(found[kind].coverage, expected[kind].coverage, atol=1e-5), kind
    for edge in EDGE_TYPES:
        assert edge_set(found[edge]) == edge_set(expected[edge]), edge


VIEWS = {
    "whole": View(),
    "crop": View(0.31, 0.17, 0.52, 0.44),
    "small crop": View(0.05, 0.55, 0.4, 0.45),
    "flip": View(mirror_x=True),
    "quarter turn": View(transpose=True, mirror_x=True),
    "half turn": View(mirror_x=True, mirror_y=True),
    "all": View(0.2, 0.3, 0.6, 0.5, transpose=True, mirror_y=True),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_graph_of_a_view_is_the_graph_of_the_changed_geometry(real, name):
    encoder, counts = TableTagEncoder(), bundled_key_counts()
    graphs = TileGraphs(encoder, counts, coverage_side=14)
    for objects in real:
        found = graphs.build(objects, VIEWS[name])
        assert sum(len(found[kind].x) for kind in NODE_TYPES) > 10
        assert_graph_of_changed_geometry(
            found, objects, VIEWS[name], encoder, counts, coverage_side=14
        )


def test_graphs_of_drawn_views_are_exact_too(real):
    graphs, rng = TileGraphs(StubEncoder(), COUNTS), np.random.default_rng(8)
    for _ in range(5):
        for objects in real:
            view = Augmentation().draw(rng)
            found = graphs.build(objects, view)
            assert_graph_of_changed_geometry(
                found, objects, view, StubEncoder(), COUNTS, coverage_side=None
            )


def test_crops_drop_and_cut_objects(real):
    graphs = TileGraphs(StubEncoder(), COUNTS)
    whole, part = (graphs.build(real[0], view) for view in (View(), View(0, 0, 0.5, 0.5)))
    for kind in NODE_TYPES:
        assert 0 < len(part[kind].x) < len(whole[kind].x)
        assert part[kind].keypoints.min() >= 0
        assert part[kind].keypoints.max() <= 1


def test_a_whole_tile_has_the_graph_of_its_scene(real, helsinki):
    entities, tiles = helsinki
    graphs, scene = TileGraphs(StubEncoder(), COUNTS), SceneGraphs(entities, StubEncoder(), COUNTS)
    for objects, tile in zip(real, tiles, strict=True):
        found, expected = graphs.build(objects), scene.build(tile)
        for kind in NODE_TYPES:
            assert torch.equal(found[kind].x, expected[kind].x)
            assert torch.allclose(found[kind].keypoints, expected[kind].keypoints, atol=1e-5)
            alike = found[kind].object[:, None] == found[kind].object
            assert torch.equal(alike, expected[kind].object[:, None] == expected[kind].object)
        for edge in set(EDGE_TYPES) - {("point", "to", "point")}:
            assert edge_set(found[edge]) == edge_set(expected[edge])
        # Qhull loses digits in UTM coordinates, and finds a few other triangles there.
        near, far = (edge_set(graph["point", "to", "point"]) for graph in (found, expected))
        assert len(near ^ far) < 0.05 * len(near)


TAGS = [
    {"building": "yes", "name": "A", "addr:street": "B"},
    {"name": "only a name", "ref": "7"},
    {"highway": "path", "building": "roof"},
    {"building": "yes", "name": "C"},
    {},
]


def grid_of_points(tags):
    places = np.array([shapely.Point(0.1, (i + 0.5) / len(tags)) for i in range(len(tags))])
    return TileObjects(places, np.arange(len(tags)).astype(str).astype(object), tags)


def test_semantics_are_those_of_encode_tags():
    graphs = TileGraphs(StubEncoder(), COUNTS)
    for tags in (TAGS, TAGS[::-1], TAGS[3:]):
        found = graphs.build(grid_of_points(tags))["point"].x.numpy()
        assert np.array_equal(found, encode_tags(tags, StubEncoder(), COUNTS))


def test_remembered_semantics_are_bounded(monkeypatch):
    monkeypatch.setattr("geolink.graphs.semantics._CACHED_TAGS", 3)
    graphs = TileGraphs(StubEncoder(), COUNTS)
    for i in range(9):
        tags = [{"building": str(i)}, {"building": str(i + 1)}]
        found = graphs.build(grid_of_points(tags))["point"].x.numpy()
        assert np.array_equal(found, encode_tags(tags, StubEncoder(), COUNTS))
        assert len(graphs._semantics._known) <= 3


def test_a_view_without_objects_has_an_empty_graph():
    graph = TileGraphs(StubEncoder(), COUNTS).build(grid_of_points(TAGS), View(0.5, 0, 0.5, 1))
    assert all(len(graph[kind].x) == 0 for kind in NODE_TYPES)
    assert graph["polygon"].x.shape == (0, 4)


def test_graphs_do_not_depend_on_what_was_built_before(real):
    used = TileGraphs(TableTagEncoder(), bundled_key_counts())
    for objects in real:
        used.build(objects)
    for objects in real:
        fresh = TileGraphs(TableTagEncoder(), bundled_key_counts())
        assert_same_graph(used.build(objects), fresh.build(objects))
