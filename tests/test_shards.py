import pickle
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from synthetic import StubEncoder, assert_same_graph, tile_sample, write_shards
from torch.utils.data import DataLoader

from geolink.augment import Augmentation, open_picture
from geolink.errors import InputError
from geolink.shards import Draw, PairDataset, PretrainSample, ShardDataset
from geolink.sources.pairs import find_pairs
from geolink.sources.shard_files import shard_index
from geolink.tile_graphs import TileGraphs

COUNTS = {"building": 50, "highway": 20, "natural": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("set") / "shards", 14, per_shard=4)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def opened(folder, **options):
    options = {"augmentation": Augmentation(), "side": 48, **options}
    return ShardDataset(folder, encoder=StubEncoder(), **options)


def same(a, b):
    assert a.key == b.key
    assert a.skipped == b.skipped
    assert torch.equal(a.image, b.image)
    assert_same_graph(a.graph, b.graph)


def test_every_sample_is_there_once(folder):
    data = opened(folder)
    keys = [data[Draw(0, index)].key for index in range(len(data))]
    assert len(data) == 14 == len(set(keys))
    sample = data[Draw(0, 3)]
    assert sample.image.shape == (3, 48, 48)
    assert sample.image.dtype == torch.uint8
    for index in (-1, 14):
        with pytest.raises(IndexError):
            data[Draw(0, index)]


def test_a_draw_depends_on_seed_epoch_and_sample_only(folder):
    data, again = opened(folder, seed=1), opened(folder, seed=1)
    for index in (5, 2, 13):
        same(data[Draw(3, index)], again[Draw(3, index)])
    first = data[Draw(3, 5)]
    same(data[Draw(3, 5)], first)
    assert not torch.equal(data[Draw(4, 5)].image, first.image)
    assert not torch.equal(opened(folder, seed=2)[Draw(3, 5)].image, first.image)
    assert not torch.equal(data[Draw(3, 6)].image, first.image)


def test_views_follow_the_key_not_the_place_in_the_set(folder, tmp_path):
    other = write_shards(tmp_path / "other", 14, per_shard=14)
    same(opened(other)[Draw(2, 9)], opened(folder)[Draw(2, 9)])


@pytest.mark.parametrize("window", [1, 2, 100])
def test_the_order_is_a_permutation_that_visits_few_shards_at_a_time(folder, window):
    data = opened(folder)
    order = data.order(7, 1, window=window)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(14))
    assert order.tolist() == opened(folder).order(7, 1, window=window).tolist()
    assert order.tolist() != data.order(7, 2, window=window).tolist()
    assert order.tolist() != data.order(8, 1, window=window).tolist()
    shards = order // 4
    if window == 1:
        assert np.count_nonzero(np.diff(shards)) == 3  # one shard after the other
    elif window == 2:
        halves = [set(shards[:8].tolist()), set(shards[8:].tolist())]
        assert all(len(half) <= 3 for half in halves)
    else:
        assert np.count_nonzero(np.diff(shards)) > 4


class Batches:
    """Draws of an epoch, batch by batch."""

    def __init__(self, data, epoch, size):
        order = data.order(0, epoch)
        self.batches = [
            [Draw(epoch, int(index)) for index in order[start : start + size]]
            for start in range(0, len(order), size)
        ]

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def as_list(samples):
    return samples


def test_batches_do_not_depend_on_workers(folder):
    data = opened(folder)
    sampler = Batches(data, epoch=1, size=4)
    load = partial(DataLoader, data, batch_sampler=sampler, collate_fn=as_list)
    alone = list(load())
    together = list(load(num_workers=2))
    assert [len(batch) for batch in together] == [4, 4, 4, 2]
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            same(a, b)


def test_a_set_travels_to_other_processes(folder):
    data = opened(folder)
    expected = data[Draw(1, 4)]
    same(pickle.loads(pickle.dumps(data))[Draw(1, 4)], expected)


def test_image_and_graph_are_of_one_view(folder, monkeypatch):
    data = opened(folder, key_counts=COUNTS)
    drawn, draw = [], Augmentation.draw
    monkeypatch.setattr(
        Augmentation, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1]
    )
    for epoch, index in ((0, 3), (1, 3), (5, 11)):
        sample, stored = data[Draw(epoch, index)], tile_sample(index)
        expected = TileGraphs(StubEncoder(), COUNTS).build(stored.objects, drawn[-1])
        assert_same_graph(sample.graph, expected)
        pixels = drawn[-1].image(open_picture(stored.image), 48)
        assert (sample.image.numpy() == pixels).all()


# --- damage -------------------------------------------------------------------------------------


def flip(path, entry, member=0):
    data = bytearray(path.read_bytes())
    data[entry.members[member].offset + 30] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_sample_is_replaced_and_named(folder, copy):
    path = copy / "shard-000001.tar"
    flip(path, shard_index(path)[2])
    reasons = []
    whole, data = opened(folder), opened(copy, on_skip=reasons.append)
    for index in set(range(14)) - {6}:
        same(data[Draw(1, index)], whole[Draw(1, index)])
    assert reasons == []
    replaced = data[Draw(1, 6)]
    assert "made-up_00006 of shard-000001.tar is damaged" in replaced.skipped[0]
    assert reasons == [replaced.skipped[0]]
    assert data.skipped == {reasons[0]: 1}
    same(opened(copy)[Draw(1, 6)], replaced)
    assert replaced.key != "made-up_00006"
    # The replacement is not the view that the other sample has in this epoch itself.
    index = int(replaced.key[-5:])
    assert not torch.equal(data[Draw(1, index)].image, replaced.image)


@pytest.mark.parametrize("damage", ["missing", "truncated", "text"])
def test_a_damaged_shard_is_skipped_and_the_others_stay(folder, copy, damage):
    path = copy / "shard-000002.tar"
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("no tar")
    else:
        path.write_bytes(path.read_bytes()[: shard_index(path)[1].members[0].offset])
    whole, data = opened(folder), opened(copy)
    lost = range(9, 12) if damage == "truncated" else range(8, 12)
    replaced = {index: data[Draw(0, index)] for index in lost}
    assert all("shard-000002.tar" in sample.skipped[0] for sample in replaced.values())
    assert not {sample.key for sample in replaced.values()} & {f"made-up_{i:05d}" for i in lost}
    for index in set(range(14)) - set(lost):
        same(data[Draw(0, index)], whole[Draw(0, index)])
    assert data.order(0, 0).tolist() == whole.order(0, 0).tolist()


def test_a_set_that_is_all_damage_is_an_error(copy):
    for path in copy.glob("*.tar"):
        path.unlink()
    with pytest.raises(InputError, match="in a row cannot be read"):
        opened(copy)[Draw(0, 0)]


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no manifest\.json"):
        opened(tmp_path)


# --- without shards -----------------------------------------------------------------------------


def test_pairs_are_read_without_shards(small_scene):
    sources = find_pairs(small_scene / "ortho.tif", small_scene / "osm.gpkg", side=64)
    data = PairDataset(sources, encoder=StubEncoder(), augmentation=Augmentation(), side=64)
    assert len(data) == 25 - sum(data.tally.dropped.values())
    sample = data[Draw(0, 1)]
    assert isinstance(sample, PretrainSample)
    assert sample.image.shape == (3, 64, 64)
    same(data[Draw(0, 1)], sample)
    assert sorted(data.order(1, 2).tolist()) == list(range(len(data)))


def test_no_pair_at_all_is_an_error():
    with pytest.raises(InputError, match="not one pair"):
        PairDataset([], encoder=StubEncoder())
