import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from synthetic import StubEncoder, write_picture

from geolink.datasets.folders import (
    PictureChanges,
    PictureClasses,
    PictureSegments,
    PictureValues,
)
from geolink.datasets.pictures import PictureGraphs
from geolink.errors import InputError
from geolink.legend import IGNORE, new_legend
from geolink.sources.class_table import class_table
from geolink.tile_graphs import TileGraphs

SIDE = 32
KINDS = ("point", "line", "polygon")


def picture(path, *, color=(10, 20, 30), side=SIDE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), color).save(path)


def numbers(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


class TestClasses:
    def test_folders_are_classes(self, tmp_path):
        for name, count in (("harbour", 2), ("forest", 3)):
            for i in range(count):
                picture(tmp_path / name / f"{i}.png", color=(count, 0, 0), side=40)
        (tmp_path / "notes").mkdir()  # no picture, no class
        data = PictureClasses(tmp_path, side=SIDE)
        assert data.legend.names == ("forest", "harbour")
        assert len(data) == 5
        sample = data.sample("harbour/1")
        assert sample.rgb.shape == (3, SIDE, SIDE)
        assert sample.rgb[0, 0, 0] == 2
        assert sample.graph is None
        assert int(sample.label) == 1
        np.testing.assert_array_equal(data.counts(["forest/0", "harbour/0"]), [[1, 0], [0, 1]])

    def test_one_class_is_none(self, tmp_path):
        picture(tmp_path / "only" / "a.png")
        with pytest.raises(InputError, match="1 folders of pictures"):
            PictureClasses(tmp_path)

    def test_a_broken_picture_is_named(self, tmp_path):
        picture(tmp_path / "a" / "0.png")
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "0.png").write_bytes(b"\x89PNG broken")
        with pytest.raises(InputError, match=r"0\.png is not a readable picture"):
            PictureClasses(tmp_path).sample("b/0")

    def test_osm_comes_from_the_files_beside(self, tmp_path, shared_data):
        for name in ("one", "two"):
            source = shared_data / "geolink_examples" / "osm2graph" / "n4503852781_DE_"
            shutil.copytree(source, tmp_path / name)
        graphs = PictureGraphs(TileGraphs(StubEncoder(), {"building": 10}), tmp_path)
        data = PictureClasses(tmp_path, graphs=graphs)
        key = "one/n4503852781_DE_"
        graph = data.sample(key).graph
        assert sum(len(graph[kind].x) for kind in ("point", "line", "polygon")) > 0
        record = tmp_path / "one" / "n4503852781_DE_.json"
        record.write_text(json.dumps({"bbox": [9, 9, 1, 1]}))
        assert data.sample(key).graph is None


class Change:
    """Moves objects by a distance, or leaves them out."""

    def __init__(self, metres=None):
        self.metres, self.seen = metres, []

    def entities(self, entities, where=""):
        self.seen.append((where, len(entities)))
        if self.metres is None:
            return entities.select({k: np.zeros(len(entities.frame(k)), bool) for k in KINDS})
        frames = {k: entities.frame(k) for k in KINDS}
        moved = {k: f.set_geometry(f.translate(self.metres)) for k, f in frames.items()}
        return replace(entities, **moved)

    def graph(self, graph, where):
        raise AssertionError("the objects are at hand")


class TestDisturbed:
    @pytest.fixture
    def data(self, tmp_path):
        """Two pictures of a scene that is 300 m wide, each with its OSM beside it."""
        for name in ("one", "two"):
            write_picture(tmp_path / name, "a")
        graphs = PictureGraphs(TileGraphs(StubEncoder(), {"building": 10}), tmp_path)
        return PictureClasses(tmp_path, graphs=graphs, side=SIDE)

    def test_objects_move_by_metres_on_the_ground(self, data):
        change = Change(metres=30.0)
        before, after = (
            d.sample("one/a").graph["point"].keypoints for d in (data, data.disturbed(change))
        )
        assert len(before) == 3
        np.testing.assert_allclose((after - before)[:, 0], 0.1, atol=4e-3)
        np.testing.assert_allclose((after - before)[:, 1], 0.0, atol=2e-3)
        assert change.seen == [("a", 12)]

    def test_nothing_is_left_of_objects_that_are_dropped(self, data):
        graph = data.disturbed(Change()).sample("two/a").graph
        assert all(len(graph[kind].x) == 0 for kind in KINDS)
        assert len(data.sample("two/a").graph["polygon"].x) > 0  # the data itself is as it was

    def test_without_objects_nothing_changes(self, tmp_path):
        picture(tmp_path / "img" / "a.png")
        numbers(tmp_path / "label" / "a.png", np.zeros((SIDE, SIDE)))
        assert PictureSegments(tmp_path, side=SIDE).disturbed(Change()).sample("a").graph is None


class TestSegments:
    def test_ignored_numbers_have_no_class(self, tmp_path):
        picture(tmp_path / "img" / "a.png")
        values = np.zeros((SIDE, SIDE))
        values[0], values[1], values[2] = 1, 9, 255
        numbers(tmp_path / "label" / "a.png", values)
        table = class_table((), source="two", legend=new_legend("two", ["no", "yes"]), ignore="9")
        data = PictureSegments(tmp_path, table=table, side=SIDE)
        label = data.sample("a").label
        assert (label[0] == 1).all()
        assert (label[1:3] == IGNORE).all()
        np.testing.assert_array_equal(data.counts(["a"]), [[29 * SIDE, SIDE]])

    def test_labels_are_resampled_to_the_nearest(self, tmp_path):
        picture(tmp_path / "images" / "a.png", side=64)
        numbers(tmp_path / "masks" / "a.png", np.kron([[0, 8], [8, 0]], np.ones((32, 32))))
        label = PictureSegments(tmp_path, side=SIDE).label("a")
        assert label.shape == (SIDE, SIDE)
        assert set(np.unique(label)) == {0, 8}

    def test_what_is_missing_is_named(self, tmp_path):
        with pytest.raises(InputError, match="no folder img or images"):
            PictureSegments(tmp_path)
        picture(tmp_path / "img" / "a.png")
        (tmp_path / "label").mkdir()
        with pytest.raises(InputError, match="has no pictures"):
            PictureSegments(tmp_path)
        numbers(tmp_path / "label" / "b.png", np.zeros((SIDE, SIDE)))
        with pytest.raises(InputError, match=r"'a' .* no counterpart"):
            PictureSegments(tmp_path)

    def test_colours_are_no_classes(self, tmp_path):
        picture(tmp_path / "img" / "a.png")
        picture(tmp_path / "label" / "a.png")
        with pytest.raises(InputError, match=r"has colours \(RGB\)"):
            PictureSegments(tmp_path, side=SIDE).label("a")

    def test_the_published_tiles_load(self, shared_data):
        data = PictureSegments(shared_data / "geolink_examples" / "ufz")
        assert len(data) == 3
        for key in data.keys:
            sample = data.sample(key)
            assert sample.rgb.shape == (3, 224, 224)
            assert set(np.unique(sample.label)) <= {*range(9), IGNORE}


class TestChanges:
    def test_pairs_of_dates(self, tmp_path):
        picture(tmp_path / "A" / "x.png", color=(1, 1, 1))
        picture(tmp_path / "B" / "x.png", color=(2, 2, 2))
        numbers(tmp_path / "label" / "x.png", np.eye(SIDE) * 255)
        data = PictureChanges(tmp_path, side=SIDE)
        sample = data.sample("x")
        assert sample.rgb.shape == (2, 3, SIDE, SIDE)
        assert [int(date.mean()) for date in sample.rgb] == [1, 2]
        np.testing.assert_array_equal(sample.label, np.eye(SIDE))
        assert data.legend.names == ("unchanged", "changed")

    def test_a_date_without_the_other_is_named(self, tmp_path):
        picture(tmp_path / "A" / "x.png")
        picture(tmp_path / "B" / "y.png")
        with pytest.raises(InputError, match="'x'"):
            PictureChanges(tmp_path)


class TestValues:
    def table(self, folder, text):
        (folder / "values.csv").write_text(text)

    def test_numbers_of_pictures(self, tmp_path):
        for name in ("a", "b"):
            picture(tmp_path / "tiles" / f"{name}.png")
        self.table(tmp_path, "file,pop,co2\ntiles/a.png,3,0.5\ntiles/b.png,4,1\n")
        data = PictureValues(tmp_path, side=SIDE)
        assert data.legend.names == ("pop", "co2")
        np.testing.assert_allclose(data.sample("tiles/a").label, [3, 0.5])
        assert PictureValues(tmp_path, columns=["co2"]).label("tiles/b").tolist() == [1]

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "needs the column `file`"),
            ("name,pop\na.png,1\n", "needs the column `file`"),
            ("file,pop\na.png,\n", "line 2 .* lacks a number"),
            ("file,pop\na.png,nan\n", "line 2 .* lacks a number"),
            ("file,pop\na.png,many\n", "line 2 .* lacks a number"),
            ("file,pop\nb.png,1\n", r"names 'b\.png', which is not in the folder"),
            ("file,pop\n../a.png,1\n", r"names '\.\./a\.png', which is not in the folder"),
        ],
    )
    def test_bad_tables_are_refused(self, tmp_path, text, match):
        picture(tmp_path / "a.png")
        self.table(tmp_path, text)
        with pytest.raises(InputError, match=match):
            PictureValues(tmp_path)

    def test_a_missing_table_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"values\.csv is not a readable CSV"):
            PictureValues(tmp_path)
