import json
import zlib

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from shapely import from_wkt
from synthetic import edge_set

from geolink.errors import CRSError, DroppedEntitiesWarning, GraphError
from geolink.graphs.build import build_graph, graph_from_arrays
from geolink.graphs.schema import (
    EDGE_TYPES,
    KEYPOINT_WIDTHS,
    LINE_CENTROID,
    LINE_FIRST,
    LINE_LAST,
    NODE_TYPES,
    POLYGON_CENTROID,
    POLYGON_INNER,
    RELATIONS,
)
from geolink.graphs.tags import load_key_counts
from geolink.grid import Bounds

TILE = Bounds(0, 0, 10, 10)


class CrcEncoder:
    """The stub of the oracles."""

    name = "crc"
    dim = 512

    def encode(self, strings):
        rows = [np.random.RandomState(zlib.crc32(s.encode())).standard_normal(512) for s in strings]
        return np.array(rows, dtype=np.float32).reshape(len(strings), 512)


def arrays(*, point=(), line=(), polygon=()):
    given = {"point": point, "line": line, "polygon": polygon}
    return {
        kind: np.array([from_wkt(g) if isinstance(g, str) else g for g in shapes], dtype=object)
        for kind, shapes in given.items()
    }


def build(bounds=TILE, identifiers=None, **shapes):
    """A graph whose features are the row numbers of the input."""
    geometries = arrays(**shapes)
    semantics = {
        kind: np.arange(len(g), dtype=np.float32).reshape(-1, 1) for kind, g in geometries.items()
    }
    return graph_from_arrays(geometries, semantics, bounds, identifiers=identifiers)


def named_edges(graph, a, b):
    """{(source, target): relation} of one edge type."""
    edges = graph[a, "to", b]
    assert torch.equal(edges.edge_attr.sum(dim=1), torch.ones(len(edges.edge_attr)))
    names = RELATIONS[a, "to", b]
    codes = edges.edge_attr.argmax(dim=1).tolist()
    pairs = [tuple(pair) for pair in edges.edge_index.T.tolist()]
    assert len(set(pairs)) == len(pairs)
    return {pair: names[code] for pair, code in zip(pairs, codes, strict=True)}


def assert_complete(graph):
    assert set(graph.node_types) == set(NODE_TYPES)
    assert set(graph.edge_types) == set(EDGE_TYPES)
    for kind in NODE_TYPES:
        count = len(graph[kind].x)
        assert graph[kind].x.dtype == graph[kind].keypoints.dtype == torch.float32
        assert graph[kind].keypoints.shape == (count, KEYPOINT_WIDTHS[kind])
        assert graph[kind].source.dtype == torch.int64
        assert len(graph[kind].source) == count
    for a, to, b in EDGE_TYPES:
        edges = graph[a, to, b]
        assert edges.edge_index.dtype == torch.int64
        assert edges.edge_index.shape == (2, len(edges.edge_attr))
        assert edges.edge_attr.dtype == torch.float32
        assert edges.edge_attr.shape[1] == len(RELATIONS[a, to, b])
        if edges.edge_index.numel():
            assert edges.edge_index[0].max() < len(graph[a].x)
            assert edges.edge_index[1].max() < len(graph[b].x)
    assert graph.bounds.dtype == torch.float64
    graph.validate()


def assert_equal_graphs(one, other):
    for kind in NODE_TYPES:
        for name in ("x", "keypoints", "source"):
            assert torch.equal(one[kind][name], other[kind][name]), (kind, name)
    for edge_type in EDGE_TYPES:
        assert torch.equal(one[edge_type].edge_index, other[edge_type].edge_index), edge_type
        assert torch.equal(one[edge_type].edge_attr, other[edge_type].edge_attr), edge_type


@pytest.fixture(params=["graph_helsinki_0_0", "graph_helsinki_1_0"])
def oracle(request, shared_data):
    """Frames, bounds, key counts and the released code's graph of one tile."""
    folder = shared_data / "oracle" / request.param
    frames = {kind: gpd.read_file(folder / "input.gpkg", layer=kind) for kind in NODE_TYPES}
    counts = load_key_counts(shared_data / "geolink_examples/all_tags30_frequency1.json")
    with np.load(folder / "official.npz") as official:
        return frames, counts, dict(official)


def build_oracle(frames, counts, bounds):
    return build_graph(
        frames["polygon"],
        frames["line"],
        frames["point"],
        bounds,
        tags=CrcEncoder(),
        key_counts=counts,
    )


def equal_pairs(frame):
    geometries = frame.geometry.to_numpy()
    i, j = frame.sindex.query(geometries, predicate="intersects")
    same = (i != j) & shapely.equals(geometries[i], geometries[j])
    return list(zip(i[same].tolist(), j[same].tolist(), strict=True))


class TestOracle:
    def test_nodes_and_edges_are_the_released_ones(self, oracle):
        frames, counts, official = oracle
        graph = build_oracle(frames, counts, official["bounds"])
        assert_complete(graph)
        for kind in NODE_TYPES:
            node = graph[kind]
            np.testing.assert_allclose(node.x, official[f"{kind}.semantic"], atol=1e-6)
            compared = POLYGON_CENTROID if kind == "polygon" else slice(None)
            np.testing.assert_allclose(
                node.keypoints[:, compared], official[f"{kind}.keypoints"][:, compared], atol=1e-7
            )
        for a, to, b in EDGE_TYPES:
            edges = graph[a, to, b]
            assert np.array_equal(edges.edge_index, official[f"{a}-{b}.edge_index"]), (a, b)
            assert np.array_equal(edges.edge_attr, official[f"{a}-{b}.edge_attr"]), (a, b)

    def test_inner_points_are_inside(self, oracle):
        frames, counts, official = oracle
        west, south, east, north = official["bounds"]
        graph = build_oracle(frames, counts, official["bounds"])
        inner = graph["polygon"].keypoints[:, POLYGON_INNER].double().numpy().reshape(-1, 3, 2)
        xy = inner * [east - west, south - north] + [west, north]
        polygons = frames["polygon"].geometry.to_numpy()
        # Single precision moves a point by less than a millimetre.
        distance = shapely.distance(polygons[:, None], shapely.points(xy))
        assert distance.max() < 1e-9

    def test_the_order_of_rows_only_renames_nodes(self, oracle):
        frames, counts, official = oracle
        rng = np.random.default_rng(0)
        orders = {kind: rng.permutation(len(frame)) for kind, frame in frames.items()}
        shuffled = {
            kind: frame.iloc[orders[kind]].reset_index(drop=True) for kind, frame in frames.items()
        }
        one = build_oracle(frames, counts, official["bounds"])
        other = build_oracle(shuffled, counts, official["bounds"])
        for kind in NODE_TYPES:
            assert torch.equal(other[kind].x, one[kind].x[orders[kind]])
            assert torch.equal(other[kind].keypoints, one[kind].keypoints[orders[kind]])
        for a, _, b in EDGE_TYPES:
            renamed = {
                (int(orders[a][i]), int(orders[b][j])): name
                for (i, j), name in named_edges(other, a, b).items()
            }
            expected = named_edges(one, a, b)
            # Of two equal geometries, the order of rows says which one covers the other.
            for i, j in equal_pairs(frames[a]) if a == b else ():
                assert {renamed.pop((i, j)), expected.pop((i, j))} <= {"covers", "covered-by"}
            assert renamed == expected, (a, b)

    def test_the_published_samples_build(self, shared_data):
        folder = shared_data / "geolink_examples/osm2graph/a472140250_FI_21"
        frames = {
            kind: gpd.read_file(folder / f"{folder.name}_{kind}.geojson") for kind in NODE_TYPES
        }
        bounds = json.loads((folder / f"{folder.name}.json").read_text())["bbox"]
        graph = build_oracle(frames, {"natural": 9, "leisure": 9}, bounds)
        assert_complete(graph)
        assert {kind: len(graph[kind].x) for kind in NODE_TYPES} == {
            kind: len(frame) for kind, frame in frames.items()
        }


TRIANGLE = "POLYGON ((2 2, 8 2, 7 5, 2 2))"
SQUARE = "POLYGON ((2 2, 6 2, 6 6, 2 6, 2 2))"


class TestRelations:
    @pytest.mark.parametrize(
        ("other", "forth", "back"),
        [
            ("POLYGON ((6 2, 8 2, 8 6, 6 6, 6 2))", "touches", "touches"),
            ("POLYGON ((6 6, 8 6, 8 8, 6 8, 6 6))", "touches", "touches"),
            ("POLYGON ((3 3, 5 3, 5 5, 3 5, 3 3))", "covers", "covered-by"),
            ("POLYGON ((2 2, 5 2, 5 5, 2 5, 2 2))", "covers", "covered-by"),
            ("POLYGON ((1 1, 8 1, 8 8, 1 8, 1 1))", "covered-by", "covers"),
            ("POLYGON ((4 4, 8 4, 8 8, 4 8, 4 4))", "overlaps", "overlaps"),
            ("POLYGON ((7 7, 8 7, 8 8, 7 8, 7 7))", None, None),
        ],
    )
    def test_polygons(self, other, forth, back):
        edges = named_edges(build(polygon=[SQUARE, other]), "polygon", "polygon")
        assert edges.pop((0, 0)) == edges.pop((1, 1)) == "self"
        assert (edges.get((0, 1)), edges.get((1, 0))) == (forth, back)

    def test_equal_polygons_cover_one_another_in_their_order(self):
        edges = named_edges(build(polygon=[SQUARE, SQUARE]), "polygon", "polygon")
        assert (edges[0, 1], edges[1, 0]) == ("covered-by", "covers")

    @pytest.mark.parametrize(
        ("other", "forth", "back"),
        [
            ("LINESTRING (5 1, 5 3)", "touches", "touches"),
            ("LINESTRING (3 0, 3 2)", "overlaps", "overlaps"),  # lines that cross
            ("LINESTRING (4 1, 7 1)", "overlaps", "overlaps"),
            ("LINESTRING (2 1, 4 1)", "covers", "covered-by"),
            ("LINESTRING (0 1, 9 1)", "covered-by", "covers"),
            ("LINESTRING (1 5, 5 5)", None, None),
        ],
    )
    def test_lines(self, other, forth, back):
        edges = named_edges(build(line=["LINESTRING (1 1, 5 1)", other]), "line", "line")
        assert edges.pop((0, 0)) == edges.pop((1, 1)) == "self"
        assert (edges.get((0, 1)), edges.get((1, 0))) == (forth, back)

    @pytest.mark.parametrize(
        ("line", "forth", "back"),
        [
            ("LINESTRING (0 4, 2 4)", "touches", "touches"),
            ("LINESTRING (2 3, 2 5)", "touches", "touches"),
            ("LINESTRING (0 4, 8 4)", "crosses", "crosses"),
            ("LINESTRING (0 4, 4 4)", "crosses", "crosses"),
            ("LINESTRING (3 4, 5 4)", "covered-by", "covers"),
            ("LINESTRING (2 4, 6 4)", "covered-by", "covers"),
            ("LINESTRING (0 8, 8 8)", None, None),
        ],
    )
    def test_line_and_polygon(self, line, forth, back):
        graph = build(line=[line], polygon=[SQUARE])
        assert named_edges(graph, "line", "polygon").get((0, 0)) == forth
        assert named_edges(graph, "polygon", "line").get((0, 0)) == back

    @pytest.mark.parametrize(
        ("point", "forth", "back"),
        [
            ("POINT (2 4)", "touches", "touches"),
            ("POINT (4 4)", "within", "contains"),
            ("POINT (1 1)", None, None),
        ],
    )
    def test_point_and_polygon(self, point, forth, back):
        graph = build(point=[point], polygon=[SQUARE])
        assert named_edges(graph, "point", "polygon").get((0, 0)) == forth
        assert named_edges(graph, "polygon", "point").get((0, 0)) == back

    @pytest.mark.parametrize(
        ("point", "forth", "back"),
        [
            ("POINT (1 1)", "touches", "touches"),
            ("POINT (3 1)", "within", "contains"),
            ("POINT (3 2)", None, None),
        ],
    )
    def test_point_and_line(self, point, forth, back):
        graph = build(point=[point], line=["LINESTRING (1 1, 5 1)"])
        assert named_edges(graph, "point", "line").get((0, 0)) == forth
        assert named_edges(graph, "line", "point").get((0, 0)) == back

    def test_a_point_in_a_hole_is_outside(self):
        ring = "POLYGON ((1 1, 9 1, 9 9, 1 9, 1 1), (3 3, 7 3, 7 7, 3 7, 3 3))"
        graph = build(point=["POINT (5 5)", "POINT (2 2)"], polygon=[ring])
        assert named_edges(graph, "point", "polygon") == {(1, 0): "within"}

    def test_edges_are_in_row_major_order(self):
        squares = [shapely.box(i, 0, i + 2, 9) for i in (4, 0, 2, 6)]
        index = build(polygon=squares)["polygon", "to", "polygon"].edge_index
        pairs = [tuple(pair) for pair in index.T.tolist()]
        assert pairs == sorted(pairs)
        assert len(pairs) == 4 + 2 * 3


class TestNeighbours:
    def test_a_square_with_a_centre(self):
        points = [shapely.Point(*xy) for xy in [(1, 1), (9, 1), (9, 9), (1, 9), (4, 5)]]
        edges = named_edges(build(point=points), "point", "point")
        neighbours = {pair for pair, name in edges.items() if name == "neighbour"}
        rim = {(0, 1), (1, 2), (2, 3), (0, 3)}
        expected = rim | {(i, 4) for i in range(4)}
        assert neighbours == expected | {(j, i) for i, j in expected}
        assert {pair for pair, name in edges.items() if name == "self"} == {
            (i, i) for i in range(5)
        }

    @pytest.mark.parametrize(
        "coordinates",
        [
            [],
            [(1, 1)],
            [(1, 1), (2, 1), (1, 2)],
            [(1, 1)] * 6,
            [(i, i) for i in range(1, 8)],
            [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3)],
        ],
        ids=["none", "one", "three", "same", "collinear", "collinear-with-duplicates"],
    )
    def test_without_a_triangulation_only_self(self, coordinates):
        graph = build(point=[shapely.Point(*xy) for xy in coordinates])
        edges = named_edges(graph, "point", "point")
        assert edges == {(i, i): "self" for i in range(len(coordinates))}

    def test_duplicates_leave_the_others_connected(self):
        coordinates = [(1, 1), (9, 1), (9, 9), (1, 8), (1, 1), (9, 9)]
        edges = named_edges(
            build(point=[shapely.Point(*xy) for xy in coordinates]), "point", "point"
        )
        neighbours = {i for (i, _), name in edges.items() if name == "neighbour"}
        assert neighbours == {0, 1, 2, 3}

    def test_a_regular_grid_has_one_triangulation_in_any_order(self):
        points = np.array([shapely.Point(x, y) for x in range(1, 8) for y in range(1, 8)])
        expected = named_edges(build(point=points), "point", "point")
        for seed in range(5):
            order = np.random.default_rng(seed).permutation(len(points))
            edges = named_edges(build(point=points[order]), "point", "point")
            assert {(order[i], order[j]): name for (i, j), name in edges.items()} == expected


class TestKeypoints:
    def test_units_are_the_tile_with_y_down(self):
        graph = build(
            Bounds(100, 200, 120, 210),
            point=["POINT (100 210)", "POINT (120 200)", "POINT (105 207.5)"],
            line=["LINESTRING (100 200, 110 200, 110 210)"],
            polygon=[shapely.box(110, 205, 120, 210)],
        )
        assert graph["point"].keypoints.tolist() == [[0, 0], [1, 1], [0.25, 0.25]]
        line = graph["line"].keypoints[0]
        assert line[LINE_FIRST].tolist() == [0, 1]
        assert line[LINE_LAST].tolist() == [0.5, 0]
        assert line[LINE_CENTROID].tolist() == pytest.approx([0.375, 0.75])
        assert graph["polygon"].keypoints[0, POLYGON_CENTROID].tolist() == [0.75, 0.25]

    def test_inner_points_lie_at_their_angles_and_distances(self):
        graph = build(polygon=[shapely.box(2, 2, 6, 4)])
        points = graph["polygon"].keypoints[0].double().numpy().reshape(4, 2) * [10, -10] + [0, 10]
        offset = points[:3] - points[3]
        angles = np.degrees(np.arctan2(offset[:, 1], offset[:, 0])) % 360
        np.testing.assert_allclose(angles, [0, 120, 240], atol=1e-3)
        radius = np.hypot(*offset.T)
        half = np.hypot(2, 1) / 2  # all vertices are as far
        # 120 and 240 degrees may have been pulled inside; 0 degrees never leaves this box
        assert radius[0] == pytest.approx(half, abs=1e-5)
        assert (radius <= half + 1e-5).all()

    @pytest.mark.parametrize(
        "shape",
        [
            "POLYGON ((1 1, 9 1, 9 9, 1 9, 1 1), (2 2, 8 2, 8 8, 2 8, 2 2))",
            "POLYGON ((1 1, 9 1, 9 2, 2 2, 2 8, 9 8, 9 9, 1 9, 1 1))",
            "POLYGON ((1 1, 9 1.001, 1 1.002, 1 1))",
            "POLYGON ((0 0, 10 0, 10 10, 5 0.01, 0 10, 0 0))",
        ],
        ids=["ring", "c-shape", "sliver", "v-shape"],
    )
    def test_inner_points_of_odd_shapes_are_inside(self, shape):
        polygon = from_wkt(shape)
        for seed in range(20):
            graph = build(polygon=[polygon], identifiers={"polygon": np.array([seed])})
            inner = graph["polygon"].keypoints[0, POLYGON_INNER].double().numpy().reshape(3, 2)
            points = shapely.points(inner * [10, -10] + [0, 10])
            assert shapely.distance(polygon, points).max() < 2e-6

    def test_names_seed_the_inner_points(self):
        shape = from_wkt(TRIANGLE)
        ids = np.array(["way/1", "way/2", "way/1"], dtype=object)
        graph = build(polygon=[shape] * 3, identifiers={"polygon": ids})
        a, b, c = graph["polygon"].keypoints[:, POLYGON_INNER]
        assert torch.equal(a, c)
        assert not torch.equal(a, b)

    def test_without_names_the_geometry_seeds_them(self):
        one, other = TRIANGLE, "POLYGON ((8 2, 7 5, 2 2, 8 2))"
        alone = build(polygon=[one])["polygon"].keypoints
        after = build(polygon=[SQUARE, other])["polygon"].keypoints[1:]
        torch.testing.assert_close(alone, after, rtol=0, atol=1e-6)


class TestClipping:
    def test_parts_are_cut_exploded_and_traced(self):
        graph = build(
            point=["MULTIPOINT ((1 1), (20 1), (3 1))", "POINT (11 5)", "POINT (10 5)"],
            line=["LINESTRING (-5 1, 5 1, 5 20, 7 20, 7 5)", "LINESTRING (1 1, 2 2)"],
            polygon=["POLYGON ((20 20, 21 20, 21 21, 20 20))", shapely.box(-5, -5, 5, 5)],
        )
        assert graph["point"].source.tolist() == [0, 0, 2]
        assert graph["line"].source.tolist() == [0, 0, 1]
        assert graph["polygon"].source.tolist() == [1]
        for kind in NODE_TYPES:
            assert torch.equal(graph[kind].x[:, 0], graph[kind].source.float())
            assert ((graph[kind].keypoints >= 0) & (graph[kind].keypoints <= 1)).all()
        assert_complete(graph)

    def test_what_only_touches_the_tile_is_left_out(self):
        graph = build(line=["LINESTRING (10 5, 20 5)"], polygon=[shapely.box(10, 0, 12, 10)])
        assert len(graph["line"].x) == len(graph["polygon"].x) == 0

    def test_collections_and_height(self):
        nested = shapely.GeometryCollection(
            [shapely.MultiPolygon([shapely.box(1, 1, 2, 2), shapely.box(3, 3, 4, 4)])]
        )
        graph = build(point=["POINT Z (1 1 5)"], polygon=[nested])
        assert graph["polygon"].source.tolist() == [0, 0]
        assert graph["point"].keypoints.tolist() == [[pytest.approx(0.1), pytest.approx(0.9)]]

    def test_rings_of_lines_are_lines(self):
        graph = build(line=[shapely.LinearRing([(1, 1), (2, 1), (2, 2)])])
        assert graph["line"].keypoints[0, LINE_FIRST].tolist() == pytest.approx([0.1, 0.9])

    def test_inputs_are_not_changed(self):
        geometries = arrays(
            polygon=[shapely.box(-5, -5, 5, 5), None], line=["LINESTRING (0 0, 99 9)"]
        )
        before = {kind: shapes.copy() for kind, shapes in geometries.items()}
        semantics = {kind: np.ones((len(g), 2), np.float32) for kind, g in geometries.items()}
        with pytest.warns(DroppedEntitiesWarning):
            graph = graph_from_arrays(geometries, semantics, TILE)
        for kind in NODE_TYPES:
            assert list(geometries[kind]) == list(before[kind])
            graph[kind].x.zero_()
            assert (semantics[kind] == 1).all()


class TestBadInput:
    def test_unusable_geometries_are_counted_and_left_out(self):
        bowtie = "POLYGON ((0 0, 4 4, 4 0, 0 4, 0 0))"
        with np.errstate(invalid="ignore"):
            nan = shapely.LineString([(1, 1), (np.nan, 2)])
        with pytest.warns(DroppedEntitiesWarning) as caught:
            graph = build(
                point=[None, "POINT EMPTY", "POINT (5 5)", "LINESTRING (0 0, 1 1)"],
                line=[nan, "LINESTRING (1 1, 1 1)", "LINESTRING (1 1, 2 2)"],
                polygon=[bowtie, "POLYGON EMPTY", SQUARE],
            )
        assert [str(w.message).split(" geom")[0] for w in caught] == [
            "3 of 4 point",
            "2 of 3 line",
            "2 of 3 polygon",
        ]
        assert [graph[kind].source.tolist() for kind in NODE_TYPES] == [[2], [2], [2]]
        assert_complete(graph)

    @pytest.mark.parametrize(
        "bounds", [(0, 0, 0, 1), (0, 1, 1, 0), (0, 0, float("nan"), 1), (0, 0, float("inf"), 1)]
    )
    def test_bounds_must_span_an_area(self, bounds):
        with pytest.raises(GraphError, match="west < east"):
            build(bounds)

    def test_rows_must_correspond(self):
        geometries = arrays(point=["POINT (1 1)"])
        semantics = {kind: np.zeros((0, 3), np.float32) for kind in NODE_TYPES}
        with pytest.raises(GraphError, match="1 point geometries"):
            graph_from_arrays(geometries, semantics, TILE)

    def test_an_empty_tile_has_an_empty_graph(self):
        graph = build()
        assert_complete(graph)
        assert graph.num_nodes == graph.num_edges == 0


def frame(rows, crs="EPSG:32635", **columns):
    return gpd.GeoDataFrame(columns, geometry=[from_wkt(row) for row in rows], crs=crs)


class TestFrames:
    COUNTS = {"shop": 100, "addr street": 10}  # noqa: RUF012

    def build(self, points, **kwargs):
        empty = frame([], tags=[])
        return build_graph(
            kwargs.get("polygons", empty),
            empty,
            points,
            TILE,
            tags=CrcEncoder(),
            key_counts=self.COUNTS,
        )

    def test_three_layouts_say_the_same(self):
        where = ["POINT (1 1)", "POINT (2 2)"]
        tags = [{"shop": "bakery", "addr:street": "A: b"}, {"shop": "books"}]
        label = ["shop:bakery;addr street:A: b", "shop:books"]
        columns = {"shop": ["bakery", "books"], "addr:street": ["A: b", None]}
        one = self.build(frame(where, tags=tags))
        assert_equal_graphs(one, self.build(frame(where, label=label)))
        assert_equal_graphs(one, self.build(frame(where, **columns)))
        assert one["point"].x.any()

    def test_missing_tags_are_zero(self):
        graph = self.build(frame(["POINT (1 1)", "POINT (2 2)"], tags=[None, {}]))
        assert not graph["point"].x.any()

    def test_hard_values(self):
        tags = [{"name": "🦊" * 2500, "note": "a;b:c;;", "shop": "x" * 10_000}]
        graph = self.build(frame(["POINT (1 1)"], tags=tags))
        assert torch.isfinite(graph["point"].x).all()

    def test_empty_frames_give_a_complete_graph(self):
        graph = self.build(frame([]))
        assert_complete(graph)
        assert graph["line"].x.shape == (0, 512)

    def test_ids_seed_the_inner_points(self):
        shapes = [TRIANGLE, TRIANGLE]
        same = frame(shapes, osm_id=["way/1", "way/1"], tags=[{}, {}])
        points = frame([], tags=[])
        inner = self.build(points, polygons=same)["polygon"].keypoints
        assert torch.equal(inner[0], inner[1])
        differ = frame(shapes, osm_id=["way/1", "way/2"], tags=[{}, {}])
        inner = self.build(points, polygons=differ)["polygon"].keypoints
        assert not torch.equal(inner[0], inner[1])

    def test_the_same_input_gives_the_same_graph(self):
        polygons = frame([SQUARE, "POLYGON ((1 1, 9 1, 5 9, 1 1))"], tags=[{"shop": "a"}, {}])
        points = frame(["POINT (1 1)", "POINT (2 5)", "POINT (7 2)", "POINT (5 5)"])
        one, other = (self.build(points, polygons=polygons) for _ in range(2))
        assert_equal_graphs(one, other)

    def test_frames_in_two_systems_are_refused(self):
        degrees = frame(["POINT (1 1)"], crs="EPSG:4326", tags=[{}])
        with pytest.raises(CRSError, match="one CRS"):
            self.build(degrees)


def test_points_of_a_utm_zone_have_the_neighbours_that_they_have_near_the_origin():
    rng = np.random.default_rng(4)
    near = np.round(rng.uniform(0, 269, (400, 2)), 2)
    far = near + np.array([385_700.0, 6_672_200.0])

    def edges(xy, west, south):
        points = gpd.GeoDataFrame({"label": ["a:b"] * len(xy)}, geometry=shapely.points(xy))
        empty = gpd.GeoDataFrame({"label": []}, geometry=[])
        bounds = (west, south, west + 269, south + 269)
        graph = build_graph(empty, empty, points, bounds, tags=CrcEncoder(), key_counts={"a": 2})
        return edge_set(graph["point", "to", "point"])

    assert edges(far, 385_700.0, 6_672_200.0) == edges(near, 0.0, 0.0)
