import pytest

from geolink.sources.semantic_keys import is_closed, semantic_keys


@pytest.mark.parametrize("value", ["yes", "fast_food", "grade2", "tower-like", "30", "2.5 m", "-1"])
def test_words_and_numbers_are_closed(value):
    assert is_closed(value)


@pytest.mark.parametrize(
    "value", ["Mannerheimintie", "", "https://x.org", "Mo-Fr 08:00", "ä", "a;b"]
)
def test_names_and_texts_are_not(value):
    assert not is_closed(value)


def test_keys_that_say_what_an_object_is_are_kept():
    counts = {"shop": 9, "building": 4, "name": 8, "addr street": 6, "once": 1, "colour text": 4}
    closed = {"shop": 9, "building": 2, "name": 8, "addr street": 6, "once": 1, "colour text": 1}
    assert list(semantic_keys(counts, closed).items()) == [("building", 4), ("shop", 9)]
