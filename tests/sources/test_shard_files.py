import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import shapely
import webdataset
from synthetic import tile_sample

from geolink.errors import InputError
from geolink.sources.shard_files import TileObjects, read_sample, shard_index, write_shard

SAMPLES = [tile_sample(number) for number in range(3)]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard-000000.tar"
    write_shard(path, SAMPLES)
    return path


def assert_same(found, expected):
    assert (found.key, found.image, found.suffix) == (expected.key, expected.image, expected.suffix)
    assert shapely.equals_identical(found.objects.geometry, expected.objects.geometry).all()
    assert found.objects.ids.tolist() == expected.objects.ids.tolist()
    assert found.objects.tags == expected.objects.tags
    assert found.meta == expected.meta


def test_samples_come_back_as_they_were(shard):
    entries = shard_index(shard)
    assert [entry.key for entry in entries] == [sample.key for sample in SAMPLES]
    for entry, sample in zip(entries, SAMPLES, strict=True):
        assert_same(read_sample(shard, entry), sample)


def test_a_sample_without_objects_comes_back(tmp_path):
    none = TileObjects(np.array([], dtype=object), np.array([], dtype=object), [])
    path = tmp_path / "empty.tar"
    write_shard(path, [replace(SAMPLES[0], objects=none)])
    assert len(read_sample(path, shard_index(path)[0]).objects) == 0


def test_equal_samples_give_equal_bytes(shard, tmp_path):
    again = tmp_path / "again.tar"
    write_shard(again, [tile_sample(number) for number in range(3)])
    assert again.read_bytes() == shard.read_bytes()


def test_members_carry_neither_time_nor_owner(shard):
    with tarfile.open(shard) as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


# webdataset leaves the last shard of an iteration open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_a_shard(shard):
    found = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in found] == [sample.key for sample in SAMPLES]
    for sample, expected in zip(found, SAMPLES, strict=True):
        assert sample["png"].size == (64, 64)
        assert sample["json"]["tags"] == expected.objects.tags
        assert len(shapely.get_parts(shapely.from_wkb(sample["wkb"]))) == len(expected.objects)


@pytest.mark.parametrize("key", ["", "a.b", "../up", "a/b", "a b", "ä", "x" * 81])
def test_keys_that_are_no_safe_names_are_refused(key, tmp_path):
    with pytest.raises(InputError, match="no key"):
        write_shard(tmp_path / "shard.tar", [replace(SAMPLES[0], key=key)])


def test_a_key_may_not_occur_twice(tmp_path):
    with pytest.raises(InputError, match="no key"):
        write_shard(tmp_path / "shard.tar", [SAMPLES[0], SAMPLES[0]])


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("member", [0, 1], ids=["image", "wkb"])
def test_a_flipped_byte_is_found(shard, member):
    entries = shard_index(shard)
    flip(shard, entries[1].members[member].offset + 40)
    with pytest.raises(InputError, match=rf"{SAMPLES[1].key} of shard-000000.tar.*checksum"):
        read_sample(shard, entries[1])
    assert_same(read_sample(shard, entries[2]), SAMPLES[2])


def test_a_truncated_shard_keeps_what_is_whole(shard):
    last = shard_index(shard)[2]
    shard.write_bytes(shard.read_bytes()[: last.members[1].offset + 10])
    entries = shard_index(shard)
    assert_same(read_sample(shard, entries[1]), SAMPLES[1])
    assert len(entries) == 3
    with pytest.raises(InputError, match="its 'wkb' is missing"):
        read_sample(shard, entries[2])


def test_what_is_behind_a_damaged_header_is_lost(shard):
    flip(shard, shard_index(shard)[1].members[0].offset - 512 + 148)  # the header's checksum
    entries = shard_index(shard)
    assert [entry.key for entry in entries] == [SAMPLES[0].key]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100], ids=["empty", "text"])
def test_what_is_no_tar_is_refused(tmp_path, content):
    path = tmp_path / "shard.tar"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"shard\.tar cannot be read"):
        shard_index(path)


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.tar cannot be read"):
        shard_index(tmp_path / "gone.tar")


def rewritten(path, change):
    """The shard's first sample with its JSON record changed."""
    entry = shard_index(path)[0]
    data = path.read_bytes()
    files = {m.suffix: data[m.offset : m.offset + m.size] for m in entry.members}
    record = json.loads(files["json"])
    change(record)
    files["json"] = json.dumps(record).encode()
    with tarfile.open(path, "w") as tar:
        for suffix, content in files.items():
            info = tarfile.TarInfo(f"{entry.key}.{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return shard_index(path)[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("crc32"),
        lambda record: record.pop("meta"),
        lambda record: record["tags"].pop(),
        lambda record: record.update(tags=3),
        lambda record: record["tags"].__setitem__(0, ["x"]),
        lambda record: record["tags"].__setitem__(0, {"building": ["yes"]}),
        lambda record: record.update(ids=None),
    ],
)
def test_records_that_make_no_sense_are_refused(shard, change):
    entry = rewritten(shard, change)
    with pytest.raises(InputError, match="damaged"):
        read_sample(shard, entry)
