import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import CRS
from synthetic import CRS_35N, NORTH, WEST, StubEncoder, assert_same_graph, osm_entities

from geolink.datasets.base import join
from geolink.datasets.kept import KeptSamples
from geolink.datasets.scenes import SceneCells, SceneTiles
from geolink.errors import CoverageError, InputError
from geolink.graphs.scene import SceneGraphs
from geolink.grid import GridSpec
from geolink.legend import IGNORE, UFZ, new_legend
from geolink.samples import SceneSampler
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.reference import CellValues, PolygonLabels
from geolink.tiles import TilePlan

CRS_ = CRS.from_user_input(CRS_35N)
GRID = GridSpec(CRS_, WEST, NORTH, 1.0, 300, 300)
PLAN = TilePlan(GRID, 64, 0)


class Grey:
    info = SourceInfo("grey", simulated=True)

    def read(self, grid):
        rgb = np.full((3, *grid.shape), 90, np.uint8)
        return ImageTile(rgb, np.ones(grid.shape, bool))


def sampler(labels=None):
    entities = osm_entities()
    return SceneSampler(
        Grey(), entities, SceneGraphs(entities, StubEncoder(), {"building": 9}), labels=labels
    )


def polygons(*boxes):
    shapes = [shapely.box(WEST + w, NORTH - s, WEST + e, NORTH - n) for w, n, e, s in boxes]
    return PolygonLabels(gpd.GeoDataFrame(geometry=shapes, crs=CRS_), [4] * len(shapes))


def tiles(labels=None, city="town"):
    ids = range(len(PLAN))
    return SceneTiles(sampler(labels), PLAN, ids, legend=UFZ, city=city, sources=[Grey.info])


def test_only_tiles_with_labels_are_samples():
    data = tiles(polygons((0, 0, 64, 64), (70, 0, 72, 2)))  # a whole tile, and 4 pixels of another
    assert data.keys == ("town/000000",)
    item = data.items["town/000000"]
    assert item.city == "town"
    assert item.position == (WEST + 32, NORTH - 32)
    sample = data.sample("town/000000")
    assert (sample.label == 4).all()
    np.testing.assert_array_equal(data.counts(data.keys)[0], np.bincount([4] * 64**2, minlength=9))
    assert data.simulated
    assert data.gsd_range == (1.0, 1.0)


def test_disturbed_tiles_keep_pixels_and_labels_and_lose_what_gave_them():
    class Trees:
        def entities(self, entities, where=""):
            keep = np.array(["tree" in t.values() for t in entities.point["tags"]])
            return entities.select({"point": keep})

    data = tiles()
    other = data.disturbed(Trees())
    assert other.keys == data.keys
    counts = {}
    for name, some in (("before", data), ("after", other)):
        samples = [some.sample(key) for key in some.keys]
        counts[name] = [sum(len(s.graph[k].x) for s in samples) for k in ("point", "polygon")]
        if name == "after":
            assert not any(mask.any() for s in samples for mask in s.givers.values())
    assert counts["after"][0] < counts["before"][0]
    assert 0 < counts["after"][1] < counts["before"][1]
    for key in data.keys:
        np.testing.assert_array_equal(data.label(key), other.label(key))


def test_users_labels_are_given_by_no_object():
    sample = tiles(polygons((0, 0, 300, 300))).sample("town/000000")
    assert not any(giver.any() for giver in sample.givers.values())


def test_osm_labels_know_their_givers():
    data = tiles()
    givers = [data.sample(key).givers for key in data.keys]
    assert any(mask.any() for one in givers for mask in one.values())
    for key in data.keys:
        np.testing.assert_array_equal(data.label(key), data.sample(key).label)
        assert (data.label(key) != IGNORE).any()


def test_labels_elsewhere_are_refused():
    with pytest.raises(CoverageError, match="none of the 25 tiles of town has labels"):
        tiles(polygons((900, 900, 950, 950)))


def test_cities_join_and_must_agree():
    labels = polygons((0, 0, 300, 300))
    both = join([tiles(labels, "a"), tiles(labels, "b")])
    assert len(both) == 50
    assert both.sample("b/000001").label.shape == (64, 64)
    with pytest.raises(InputError, match="same name"):
        join([tiles(labels, "a"), tiles(labels, "a")])
    other = tiles(labels, "b")
    other.legend = new_legend("x", ["a", "b"])
    with pytest.raises(InputError, match="cannot be joined"):
        join([tiles(labels, "a"), other])


def cells(*centres):
    centres = np.array(centres, float).reshape(-1, 2)
    return CellValues(
        keys=tuple(f"cell{i}" for i in range(len(centres))),
        centres=centres,
        sides=np.zeros(len(centres)),
        values=np.arange(len(centres)) + 0.5,
        crs=CRS_,
    )


def test_cells_are_images_around_their_centre():
    inside, outside = (WEST + 100, NORTH - 150), (WEST + 10, NORTH - 10)
    data = SceneCells(sampler(), GRID, cells(outside, inside), name="pop", side=64, city="town")
    assert data.keys == ("town/cell1",)
    assert data.items["town/cell1"].position == inside
    sample = data.sample("town/cell1")
    assert sample.rgb.shape == (3, 64, 64)
    assert sample.label.tolist() == [1.5]
    assert data.counts(data.keys).tolist() == [[1]]
    with pytest.raises(CoverageError, match="none of the 1 cells"):
        SceneCells(sampler(), GRID, cells(outside), name="pop", side=64, city="town")


class Cut:
    """Counts how often a sample is cut."""

    def __init__(self, data):
        self.data, self.calls = data, []
        for name in ("task", "legend", "items", "gsd_range", "sources", "label"):
            setattr(self, name, getattr(data, name))

    def sample(self, key):
        self.calls.append(key)
        return self.data.sample(key)


def test_a_sample_is_cut_once_and_always_the_same(tmp_path):
    source = Cut(tiles())
    kept = KeptSamples(source, tmp_path)
    key = kept.keys[0]
    first, second = kept.sample(key), kept.sample(key)
    again = KeptSamples(source, tmp_path).sample(key)
    assert source.calls == [key]
    for other in (second, again):
        np.testing.assert_array_equal(first.rgb, other.rgb)
        np.testing.assert_array_equal(first.label, other.label)
        assert_same_graph(first.graph, other.graph)
    cut = source.data.sample(key)
    np.testing.assert_array_equal(first.rgb, cut.rgb)
    assert {k: v.tolist() for k, v in first.givers.items()} == {
        k: v.tolist() for k, v in cut.givers.items()
    }
    assert kept.keys == source.data.keys
    assert kept.simulated


def test_a_damaged_file_is_named(tmp_path):
    kept = KeptSamples(tiles(), tmp_path)
    kept.sample(kept.keys[0])
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=f"{file.name} is damaged"):
        kept.sample(kept.keys[0])
