import geopandas as gpd
import pandas as pd
import pytest

from geolink.sources.tags import frame_tags, parse_label


@pytest.mark.parametrize(
    ("label", "tags"),
    [
        ("building:yes", {"building": "yes"}),
        ("shop:craft;craft:printer", {"shop": "craft", "craft": "printer"}),
        ("addr street:Main Street", {"addr:street": "Main Street"}),
        ("url:https://a.b/c", {"url": "https://a.b/c"}),
        ("cuisine:thai;sushi;name:X", {"cuisine": "thai;sushi", "name": "X"}),
        ("name:🦆 café", {"name": "🦆 café"}),
        ("name:" + "x" * 10_000, {"name": "x" * 10_000}),
        ("landuse", {}),
        (":no key", {}),
        ("name:", {}),
        ("", {}),
        (None, {}),
        (float("nan"), {}),
    ],
)
def test_labels(label: object, tags: dict[str, str]) -> None:
    assert parse_label(label) == tags


def test_a_label_column_holds_all_tags() -> None:
    frame = pd.DataFrame({"label": ["a:b", None], "note": ["x", "y"]})
    assert frame_tags(frame) == [{"a": "b"}, {}]


def test_tag_columns_leave_out_identifiers_numbers_and_blanks() -> None:
    frame = gpd.GeoDataFrame(
        {"osm_id": ["1", "2"], "highway": ["path", None], "name": [" ", "B"], "z_order": [3, 4]},
        geometry=gpd.points_from_xy([0, 1], [0, 1]),
    )
    assert frame_tags(frame) == [{"highway": "path"}, {"name": "B"}]


@pytest.mark.parametrize(
    "cell", ['{"a:b": "c", "n": 1, "e": null}', {"a:b": "c", "n": 1, "e": None}]
)
def test_a_tags_column_adds_to_tag_columns(cell: object) -> None:
    frame = pd.DataFrame({"tags": [cell], "highway": ["path"]})
    assert frame_tags(frame) == [{"a:b": "c", "n": "1", "highway": "path"}]


@pytest.mark.parametrize("cell", ["not json", "[1, 2]", None, float("nan")])
def test_an_unreadable_tags_cell_is_no_tags(cell: object) -> None:
    assert frame_tags(pd.DataFrame({"tags": [cell]}, dtype=object)) == [{}]
