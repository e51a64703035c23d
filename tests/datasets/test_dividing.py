import numpy as np
import pytest

from geolink.datasets.base import Item, LabelledData
from geolink.datasets.dividing import fewer_labels, require_classes, split_data, telling_samples
from geolink.errors import InputError
from geolink.legend import IGNORE, new_legend
from geolink.splits import save_split


class Grid(LabelledData):
    """Tiles of 10 m in two cities, whose class is that of their column."""

    def __init__(self, side=12, classes=3, placed=True, cities=("a", "b")):
        self.classes = classes
        items = [
            Item(f"{city}/{row:02d}{col:02d}", city, (10.0 * col, 10.0 * row) if placed else None)
            for city in cities
            for row in range(side)
            for col in range(side)
        ]
        legend = new_legend("test", [f"class{i}" for i in range(3)])
        super().__init__("segment", legend, items, gsd_range=(1.0, 1.0))

    def sample(self, key):
        raise NotImplementedError

    def label(self, key):
        if not self.classes:
            return np.full((2, 2), IGNORE, np.uint8)
        return np.full((2, 2), int(key[-2:]) % self.classes, np.uint8)


def test_blocks_are_drawn_per_city_with_a_buffer():
    data = Grid()
    split = split_data(data, side=10)
    for city in ("a", "b"):
        place = {key: np.array(data.items[key].position) for key in data.keys if key[0] == city}
        train = np.array([place[key] for key in split.train if key[0] == city])
        test = np.array([place[key] for key in split.test if key[0] == city])
        assert len(train)
        assert len(test)
        apart = np.abs(train[:, None] - test[None]).max(axis=2)
        assert apart.min() >= 20  # a tile between
    assert set(split.train) | set(split.validation) | set(split.test) | set(split.left_out) == set(
        data.keys
    )
    assert split == split_data(data, side=10)
    assert split != split_data(data, side=10, seed=1)


def test_too_few_blocks_are_those_of_a_city():
    with pytest.raises(InputError, match="in a: the samples lie in 1 blocks of 9000 m"):
        split_data(Grid(), side=10, block_m=9000.0)


def test_without_places_there_are_no_blocks():
    data = Grid(placed=False)
    with pytest.raises(InputError, match="no place on the ground"):
        split_data(data)
    assert len(split_data(data, "random").train) == 144


def test_cities_are_held_out():
    split = split_data(Grid(), test_cities=["b"])
    assert {key[0] for key in split.test} == {"b"}
    assert {key[0] for key in split.train} == {"a"}


def test_a_saved_split_is_used_again_for_the_same_data(tmp_path):
    split = split_data(Grid(), "random")
    save_split(split, tmp_path / "split.json")
    assert split_data(Grid(), str(tmp_path / "split.json")) == split
    with pytest.raises(InputError, match="does not have"):
        split_data(Grid(side=5), str(tmp_path / "split.json"))


class Rows(Grid):
    """The grid's tiles, of which a row more is labelled in every column, half of it as class 0."""

    def label(self, key):
        label = np.full((12, 2), IGNORE, np.uint8)
        rows = int(key[-2:])
        label[:rows] = 1
        label[: rows // 2] = 0
        return label


def test_training_samples_tell_something():
    data = Rows()
    split = split_data(data, "random")
    telling = telling_samples(data, split, labelled=0.25, uniform=0.5)
    assert {int(key[-2:]) for key in telling.train} == {4, 6, 8, 10}
    assert set(telling.train) | set(telling.left_out) == set(split.train)
    assert (telling.validation, telling.test) == (split.validation, split.test)
    assert str(len(telling.train)) in telling.method
    assert telling_samples(data, split).train == split.train


def test_something_must_be_told():
    data = Rows()
    with pytest.raises(InputError, match="99% of its pixels with at most 50% of one class"):
        telling_samples(data, split_data(data, "random"), labelled=0.99, uniform=0.5)


def test_fewer_labels_are_balanced():
    data = Grid()
    split = split_data(data, "random")
    few = fewer_labels(data, split, 0.1)
    assert len(few.train) == 15
    assert few.test == split.test
    counts = data.counts(few.train).sum(axis=0)
    assert counts.max() - counts.min() <= 4  # one tile
    assert set(few.train) | set(few.left_out) == set(split.train)


@pytest.mark.parametrize(("classes", "match"), [(0, "have no labels"), (1, "'class0' only")])
def test_nothing_to_tell_apart_is_refused(classes, match):
    data = Grid(classes=classes)
    with pytest.raises(InputError, match=match):
        require_classes(data, split_data(data, "random"))
