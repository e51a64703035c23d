import json
import random

import numpy as np
import pytest

from geolink.errors import InputError, OutputError
from geolink.splits import (
    Split,
    block_split,
    blocks_of,
    city_split,
    few_shot,
    load_split,
    random_split,
    save_split,
)

KEYS = [f"tile_{i:03d}" for i in range(100)]
# Tiles of 224 m, ten by ten.
POSITIONS = {key: (224.0 * (i % 10), 224.0 * (i // 10)) for i, key in enumerate(KEYS)}


def shuffled(values):
    values = list(values)
    random.Random(0).shuffle(values)
    return values


def parts(split):
    return [set(split.train), set(split.validation), set(split.test)]


def test_a_random_split_is_50_10_40_and_whole():
    split = random_split(KEYS)
    assert [len(part) for part in parts(split)] == [50, 10, 40]
    assert set.union(*parts(split)) == set(KEYS)


def test_the_order_of_the_samples_does_not_matter_and_the_seed_does():
    assert random_split(KEYS, seed=3) == random_split(shuffled(KEYS), seed=3)
    assert random_split(KEYS, seed=3).test != random_split(KEYS, seed=4).test
    turned = {key: POSITIONS[key] for key in shuffled(KEYS)}
    options = {"block_m": 500.0, "buffer_m": 224.0}
    assert block_split(POSITIONS, **options) == block_split(turned, **options)
    assert block_split(POSITIONS, **options) != block_split(POSITIONS, **options, seed=1)


def test_a_stratified_split_has_every_class_in_every_part():
    classes = [i % 5 for i in range(100)]
    split = random_split(KEYS, classes=classes)
    for part, each in zip(parts(split), (10, 2, 8), strict=True):
        found = np.bincount([classes[KEYS.index(key)] for key in part], minlength=5)
        assert found.tolist() == [each] * 5


@pytest.mark.parametrize("seed", range(5))
def test_no_tile_of_one_part_touches_one_of_another(seed):
    split = block_split(POSITIONS, block_m=700.0, buffer_m=225.0, seed=seed)
    groups = parts(split)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        for a in groups[i]:
            for b in groups[j]:
                gap = np.abs(np.subtract(POSITIONS[a], POSITIONS[b])).max()
                assert gap > 225.0, (a, b)
    assert len(split.left_out) > 0
    assert set.union(*groups) | set(split.left_out) == set(KEYS)
    # The buffer is taken from what trains, never from what is measured.
    whole = block_split(POSITIONS, block_m=700.0, buffer_m=0.0, seed=seed)
    assert split.test == whole.test


def test_block_shares_are_near_those_asked_for():
    many = {f"{x} {y}": (x * 100.0, y * 100.0) for x in range(60) for y in range(60)}
    split = block_split(many, block_m=300.0, buffer_m=0.0)
    assert [round(len(part) / 3600, 2) for part in parts(split)] == [0.5, 0.1, 0.4]


def test_blocks_are_whole():
    split = block_split(POSITIONS, block_m=500.0, buffer_m=0.0)
    block = dict(zip(KEYS, blocks_of(np.array(list(POSITIONS.values())), 500.0), strict=True))
    owners = [{block[key] for key in part} for part in parts(split)]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]


def test_three_blocks_make_three_parts():
    positions = {"a": (0.0, 0.0), "b": (1000.0, 0.0), "c": (2000.0, 0.0)}
    split = block_split(positions, block_m=500.0, buffer_m=0.0)
    assert [len(part) for part in parts(split)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_m": 10_000.0, "buffer_m": 0.0}, "1 blocks of 10000 m"),
        ({"block_m": 500.0, "buffer_m": 5000.0}, "no train samples are left"),
        ({"block_m": 0.0, "buffer_m": 0.0}, "positive side"),
        ({"block_m": 500.0, "buffer_m": 0.0, "shares": (0.5, 0.5, 0.5)}, "sum up to 1"),
    ],
)
def test_impossible_blocks_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        block_split(POSITIONS, **options)


def test_too_few_samples_are_refused():
    with pytest.raises(InputError, match="samples are left"):
        random_split(["a"])


def test_cities_are_tested_whole():
    cities = {key: ("oslo", "bern", "rome")[i % 3] for i, key in enumerate(KEYS)}
    split = city_split(cities, test=["bern"])
    assert {cities[key] for key in split.test} == {"bern"}
    assert len(split.test) == 33
    assert {cities[key] for key in (*split.train, *split.validation)} == {"oslo", "rome"}
    assert len(split.validation) == 7


def test_unknown_or_all_cities_are_refused():
    cities = dict.fromkeys(KEYS, "oslo")
    with pytest.raises(InputError, match="no city 'bern' in the data; it has oslo"):
        city_split(cities, test=["bern"])
    with pytest.raises(InputError, match="no city is left"):
        city_split(cities, test=["oslo"])


def test_few_shots_hold_the_same_number_of_every_class():
    classes = np.array([0] * 70 + [1] * 20 + [2] * 10)
    chosen = few_shot(KEYS, np.eye(3)[classes], 0.12)
    assert np.bincount(classes[[KEYS.index(key) for key in chosen]]).tolist() == [4, 4, 4]
    assert chosen == tuple(sorted(chosen))


def test_a_rare_class_gives_what_it_has():
    classes = np.array([0] * 98 + [1] * 2)
    chosen = few_shot(KEYS, np.eye(2)[classes], 0.1)
    assert np.bincount(classes[[KEYS.index(key) for key in chosen]]).tolist() == [8, 2]


def test_few_tiles_balance_pixels():
    rng = np.random.default_rng(0)
    pixels = rng.dirichlet([5, 1, 0.2], 100) * 50_176
    chosen = [KEYS.index(key) for key in few_shot(KEYS, pixels, 0.2)]
    share = pixels[chosen].sum(axis=0) / pixels[chosen].sum()
    assert len(chosen) == 20
    assert share.min() > 2 * pixels.sum(axis=0).min() / pixels.sum()


def test_few_shots_follow_the_seed_alone():
    counts = np.eye(4)[np.arange(100) % 4]
    order = shuffled(range(100))
    turned = few_shot([KEYS[i] for i in order], counts[order], 0.2)
    assert turned == few_shot(KEYS, counts, 0.2)
    assert turned != few_shot(KEYS, counts, 0.2, seed=1)


def test_the_whole_is_a_fraction_too_and_samples_without_labels_are_not_drawn():
    counts = np.eye(4)[np.arange(100) % 4]
    assert few_shot(KEYS, counts, 1.0) == tuple(KEYS)
    counts[10:] = 0
    assert few_shot(KEYS, counts, 0.5) == tuple(KEYS[:10])


@pytest.mark.parametrize(
    ("counts", "fraction", "message"),
    [
        (np.ones((100, 2)), 0.0, "between 0 and 1, got 0"),
        (np.ones((100, 2)), 1.1, "got 1.1"),
        (np.zeros((100, 2)), 0.1, "no training sample has a label"),
    ],
)
def test_impossible_fractions_are_refused(counts, fraction, message):
    with pytest.raises(InputError, match=message):
        few_shot(KEYS, counts, fraction)


def test_a_split_is_kept_in_a_file(tmp_path):
    split = block_split(POSITIONS, block_m=700.0, buffer_m=225.0, seed=7)
    save_split(split, tmp_path / "split.json")
    assert load_split(tmp_path / "split.json") == split
    with pytest.raises(OutputError, match="exists"):
        save_split(split, tmp_path / "split.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no JSON object"),
        ("{}", "no geolink-split of version 1"),
        ('{"format": "geolink-split", "version": 1, "train": [1]}', "train part is no list"),
        (
            '{"format": "geolink-split", "version": 1, "train": ["a"], "test": ["a"]}',
            "the sample 'a' twice",
        ),
        (
            '{"format": "geolink-split", "version": 1, "train": ["a"], "seed": "0"}',
            "of the wrong type",
        ),
        ("[" * 10_000, "not readable as JSON"),
    ],
)
def test_a_broken_file_is_refused_in_one_sentence(tmp_path, text, message):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_split(tmp_path / "split.json")
    with pytest.raises(InputError, match="not readable"):
        load_split(tmp_path / "none.json")


def test_a_split_of_other_data_is_refused():
    split = random_split(KEYS)
    split.require(KEYS)
    with pytest.raises(InputError, match="which the data does not have"):
        split.require(KEYS[:50])
    with pytest.raises(InputError, match="no test samples"):
        Split(("a",), (), ()).require(["a"])


def test_the_record_is_plain_json():
    assert json.loads(json.dumps(random_split(KEYS).to_dict()))["method"] == "random 50/10/40"


def test_cities_can_validate():
    cities = {key: ("oslo", "bern", "rome")[i % 3] for i, key in enumerate(KEYS)}
    split = city_split(cities, test=["bern"], validation=["rome"])
    parts = (split.train, split.validation, split.test)
    assert [{cities[key] for key in part} for part in parts] == [{"oslo"}, {"rome"}, {"bern"}]
    with pytest.raises(InputError, match="'bern' cannot both test and validate"):
        city_split(cities, test=["bern"], validation=["bern"])
    with pytest.raises(InputError, match="no city 'paris'"):
        city_split(cities, test=["bern"], validation=["paris"])
