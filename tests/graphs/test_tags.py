import json
import multiprocessing
import sqlite3
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from geolink.errors import InputError
from geolink.graphs.tags import (
    CachedTagEncoder,
    TableTagEncoder,
    bundled_key_counts,
    encode_tags,
    load_key_counts,
    tag_strings,
)


class StubEncoder:
    """Vectors that follow from the string alone; remembers what it was asked."""

    name = "stub"
    dim = 8

    def __init__(self):
        self.asked = []

    def encode(self, strings):
        self.asked.extend(strings)
        seeds = [zlib.crc32(string.encode()) for string in strings]
        rows = [np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds]
        return np.array(rows, dtype=np.float32).reshape(len(strings), self.dim)


@pytest.fixture(scope="module")
def table():
    return TableTagEncoder()


def similarity(table, a, b):
    x, y = table.encode([a, b])
    return float(x @ y)


class TestStrings:
    def test_inner_colons_of_keys_become_spaces(self):
        tags = {"addr:street": "Main Street", "shop": "bakery"}
        assert tag_strings(tags) == ["addr street:Main Street", "shop:bakery"]

    def test_values_are_kept_as_they_are(self):
        tags = {"website": "https://x.org/a;b", "name": "🦊 Fox; Bar", "note": "x" * 10_000}
        assert tag_strings(tags) == [f"{key}:{value}" for key, value in tags.items()]

    def test_missing_tags_and_values_give_nothing(self):
        assert tag_strings(None) == tag_strings({}) == tag_strings({"shop": None}) == []

    def test_values_that_are_not_text_are_written_out(self):
        assert tag_strings({"lanes": 2}) == ["lanes:2"]


class TestWeightedMean:
    COUNTS = {"building": 100, "addr street": 10}  # noqa: RUF012

    def test_weights_are_log_counts(self):
        stub = StubEncoder()
        features = encode_tags([{"building": "yes", "addr:street": "A"}], stub, self.COUNTS)
        building, street = stub.encode(["building:yes", "addr street:A"])
        np.testing.assert_allclose(features[0], (2 * building + street) / 3, rtol=1e-5)

    def test_unknown_keys_weigh_nothing(self):
        stub = StubEncoder()
        features = encode_tags([{"building": "yes", "odd": "x"}], stub, self.COUNTS)
        np.testing.assert_allclose(features[0], stub.encode(["building:yes"])[0], rtol=1e-6)

    def test_only_unknown_keys_weigh_the_same(self):
        stub = StubEncoder()
        features = encode_tags([{"odd": "x", "even": "y"}], stub, {"odd": 1})
        expected = stub.encode(["odd:x", "even:y"]).mean(axis=0)
        np.testing.assert_allclose(features[0], expected, rtol=1e-5)

    def test_objects_without_tags_are_zero(self):
        features = encode_tags([None, {"building": "yes"}, {}], StubEncoder(), self.COUNTS)
        assert features.shape == (3, 8)
        assert not features[[0, 2]].any()
        assert features[1].any()

    @pytest.mark.parametrize("tags", [[], [{}, None]])
    def test_nothing_to_encode(self, tags):
        features = encode_tags(tags, StubEncoder(), self.COUNTS)
        assert features.shape == (len(tags), 8)
        assert features.dtype == np.float32

    def test_each_string_is_asked_for_once(self):
        stub = StubEncoder()
        encode_tags([{"building": "yes"}] * 50 + [{"building": "no"}], stub, self.COUNTS)
        assert sorted(stub.asked) == ["building:no", "building:yes"]

    def test_an_object_does_not_depend_on_the_others(self):
        tags = [{"building": "yes", "addr:street": str(i), "odd": "x"} for i in range(20)]
        together = encode_tags(tags, StubEncoder(), self.COUNTS)
        alone = [encode_tags([row], StubEncoder(), self.COUNTS)[0] for row in tags]
        backwards = encode_tags(tags[::-1], StubEncoder(), self.COUNTS)[::-1]
        assert np.array_equal(together, alone)
        assert np.array_equal(together, backwards)


class TestKeyCounts:
    def test_round_trip_in_either_spelling(self, tmp_path):
        path = tmp_path / "counts.json"
        path.write_text(json.dumps({"addr:street": 3, "social_facility for": 2}))
        assert load_key_counts(path) == {"addr street": 3, "social_facility for": 2}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not JSON"),
            ("[1]", "no JSON object"),
            ('{"shop": 0}', "'shop' as 0"),
            ('{"shop": 1.5}', "'shop' as 1.5"),
            ('{"shop": true}', "'shop' as True"),
            ('{"shop": "many"}', "'shop' as 'many'"),
        ],
    )
    def test_broken_tables_are_refused(self, tmp_path, text, message):
        path = tmp_path / "counts.json"
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            load_key_counts(path)

    def test_a_missing_table_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"nowhere\.json"):
            load_key_counts(tmp_path / "nowhere.json")

    def test_published_table(self, shared_data):
        counts = load_key_counts(shared_data / "geolink_examples/all_tags30_frequency1.json")
        assert len(counts) == 2790
        assert counts["addr street"] == 104821

    def test_bundled_table_counts_what_things_are(self):
        counts = bundled_key_counts()
        assert counts["building"] > counts["shop"] > 1
        assert "building levels" in counts
        assert not counts.keys() & {"name", "addr street", "website", "operator", "source"}


class TestTable:
    def test_shape_and_type(self, table):
        vectors = table.encode(["shop:bakery", "landuse:residential"])
        assert vectors.shape == (2, table.dim) == (2, 384)
        assert vectors.dtype == np.float32
        assert table.encode([]).shape == (0, 384)

    def test_known_tags_have_unit_length(self, table):
        lengths = np.linalg.norm(table.encode(["shop:bakery", "natural:water", "name"]), axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-3)

    def test_an_unknown_value_is_like_its_key(self, table):
        unknown = "shop:unheard-of"
        shops = [similarity(table, unknown, f"shop:{kind}") for kind in ("bakery", "books", "pet")]
        others = ["natural:water", "highway:primary", "landuse:farmland", "leisure:park"]
        assert min(shops) > max(similarity(table, unknown, other) for other in others) + 0.1

    def test_case_and_blanks_do_not_matter(self, table):
        known, odd = table.encode(["shop:bakery", " Shop:Bakery "])
        assert np.array_equal(known, odd)

    def test_several_values_are_averaged(self, table):
        several, a, b = table.encode(["cuisine:pizza;burger", "cuisine:pizza", "cuisine:burger"])
        expected = (a + b) / np.linalg.norm(a + b)
        np.testing.assert_allclose(several, expected, atol=1e-5)
        assert np.array_equal(several, table.encode(["cuisine: pizza ; burger;"])[0])

    def test_names_and_numbers_get_their_key(self, table):
        key, name, emoji, long = table.encode(
            ["name", "name:Foo", "name:🦊", "name:" + "é" * 10_000]
        )
        assert np.array_equal(key, name)
        assert np.array_equal(key, emoji)
        assert np.array_equal(key, long)
        levels, five = table.encode(["building levels", "building levels:5"])
        assert np.array_equal(levels, five)

    def test_an_unknown_key_is_like_what_it_begins_with(self, table):
        longer, unknown = table.encode(["shop never seen:x", "shop:unheard-of"])
        assert np.array_equal(longer, unknown)

    @pytest.mark.parametrize("string", ["zzz:zzz", "", ":", ";", "::", "no colon at all"])
    def test_anything_else_is_the_mean_of_the_table(self, table, string):
        default, other = table.encode(["qqq:qqq", string])
        assert np.array_equal(default, other)
        assert np.linalg.norm(default) == pytest.approx(1, abs=1e-5)

    def test_equal_tables_have_equal_names(self, table, tmp_path):
        assert table.name == TableTagEncoder().name
        assert table.name != TableTagEncoder(write_table(tmp_path, ["a", "a:b"])).name

    def test_a_string_does_not_depend_on_the_others(self, table):
        strings = ["shop:bakery", "shop:x", "zzz:z", "cuisine:a;b"]
        assert np.array_equal(table.encode(strings)[::-1], table.encode(strings[::-1]))

    def test_a_table_with_a_row_too_few_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="2 strings for 1 vectors"):
            TableTagEncoder(write_table(tmp_path, ["a", "b"], rows=1))

    def test_a_damaged_table_is_refused(self, tmp_path):
        path = write_table(tmp_path, ["a"])
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(InputError, match="damaged"):
            TableTagEncoder(path)
        with pytest.raises(InputError, match="cannot be read"):
            TableTagEncoder(tmp_path / "none.safetensors")


def write_table(folder, strings, rows=None):
    path = folder / "table.safetensors"
    vectors = np.eye(len(strings), 4, dtype=np.float16)[:rows]
    text = np.frombuffer("\n".join(strings).encode(), dtype=np.uint8)
    save_file({"strings": text, "vectors": vectors}, path)
    return path


class TestCache:
    STRINGS = ("shop:bakery", "name:🦊; 'x'", "note:" + "y" * 10_000)

    def test_each_string_is_encoded_once(self, tmp_path):
        stub = StubEncoder()
        first = CachedTagEncoder(stub, tmp_path / "deep" / "tags.sqlite")
        expected = first.encode(self.STRINGS)
        assert np.array_equal(first.encode(self.STRINGS), expected)
        later = CachedTagEncoder(stub, tmp_path / "deep" / "tags.sqlite")
        assert np.array_equal(later.encode(self.STRINGS), expected)
        assert sorted(stub.asked) == sorted(self.STRINGS)
        assert np.array_equal(expected, StubEncoder().encode(self.STRINGS))

    def test_repeated_strings_and_order(self, tmp_path):
        cached = CachedTagEncoder(StubEncoder(), tmp_path / "tags.sqlite")
        strings = ["b:1", "a:1", "b:1"]
        assert np.array_equal(cached.encode(strings), StubEncoder().encode(strings))
        assert cached.encode([]).shape == (0, 8)
        assert (cached.name, cached.dim) == ("stub", 8)

    def test_more_strings_than_one_statement_takes(self, tmp_path):
        strings = [f"key:{i}" for i in range(2000)]
        CachedTagEncoder(StubEncoder(), tmp_path / "tags.sqlite").encode(strings)
        stub = StubEncoder()
        CachedTagEncoder(stub, tmp_path / "tags.sqlite").encode(strings)
        assert stub.asked == []

    def test_encoders_do_not_share_vectors(self, tmp_path):
        other = StubEncoder()
        other.name = "other"
        CachedTagEncoder(StubEncoder(), tmp_path / "tags.sqlite").encode(self.STRINGS)
        CachedTagEncoder(other, tmp_path / "tags.sqlite").encode(self.STRINGS)
        assert len(other.asked) == len(self.STRINGS)

    @pytest.mark.parametrize("damage", ["text", "truncated"])
    def test_a_damaged_file_is_made_anew(self, tmp_path, caplog, damage):
        path = tmp_path / "tags.sqlite"
        CachedTagEncoder(StubEncoder(), path).encode([f"key:{i}" for i in range(500)])
        data = path.read_bytes()
        path.write_bytes(b"not a database at all" * 99 if damage == "text" else data[:9000])
        again = CachedTagEncoder(StubEncoder(), path)
        expected = StubEncoder().encode(["key:1"])
        assert np.array_equal(again.encode(["key:1"]), expected)
        assert "made anew" in caplog.text
        stub = StubEncoder()
        assert np.array_equal(CachedTagEncoder(stub, path).encode(["key:1"]), expected)
        assert stub.asked == []

    def test_a_vector_of_the_wrong_length_is_encoded_again(self, tmp_path):
        path = tmp_path / "tags.sqlite"
        CachedTagEncoder(StubEncoder(), path).encode(["a:1"])
        with sqlite3.connect(path) as database:
            database.execute("UPDATE tags SET vector = x'0000'")
        database.close()
        vectors = CachedTagEncoder(StubEncoder(), path).encode(["a:1"])
        assert np.array_equal(vectors, StubEncoder().encode(["a:1"]))

    def test_without_a_writable_place_it_goes_on(self, tmp_path, caplog):
        (tmp_path / "file").touch()
        cached = CachedTagEncoder(StubEncoder(), tmp_path / "file" / "tags.sqlite")
        assert cached.encode(["a:1"]).shape == (1, 8)
        assert "cannot be used" in caplog.text

    def test_two_processes_share_it(self, tmp_path):
        path = tmp_path / "tags.sqlite"
        context = multiprocessing.get_context("fork")
        jobs = [context.Process(target=fill, args=(path, start)) for start in (0, 100)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        assert [job.exitcode for job in jobs] == [0, 0]
        stub = StubEncoder()
        strings = [f"key:{i}" for i in range(300)]
        expected = StubEncoder().encode(strings)
        assert np.array_equal(CachedTagEncoder(stub, path).encode(strings), expected)
        assert stub.asked == []


def fill(path, start):
    cached = CachedTagEncoder(StubEncoder(), path)
    for i in range(start, start + 200):
        cached.encode([f"key:{i}"])
