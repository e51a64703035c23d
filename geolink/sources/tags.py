"""Tags of vector files: one dict per object, keys as OSM spells them."""

import json
from collections.abc import Mapping

import pandas as pd

# Columns that identify or version an object, and say nothing about what it is.
RECORD_COLUMNS = frozenset(
    {
        *("@id", "@type", "fid", "full_id", "id", "ogc_fid", "osm_id", "osm_type", "osm_way_id"),
        *("osmid", "lat", "lon", "changeset", "timestamp", "uid", "user", "version", "visible"),
    }
)


def frame_tags(frame: pd.DataFrame) -> list[dict[str, str]]:
    """The tags of every row of a table, from whichever of three layouts it has.

    A `label` column (`key:value;key:value`) holds all tags. Otherwise every string column that is
    not an identifier is a tag, and a `tags` column (dicts or JSON objects) adds to them. Missing
    and blank values are no tags.
    """
    if "label" in frame:
        return [parse_label(label) for label in frame["label"]]
    rows = [_mapping(value) for value in frame["tags"]] if "tags" in frame else None
    tags: list[dict[str, str]] = rows or [{} for _ in range(len(frame))]
    for column in _tag_columns(frame):
        for row, value in zip(tags, frame[column], strict=True):
            if isinstance(value, str) and value.strip():
                row[column] = value
    return tags


def parse_label(label: object) -> dict[str, str]:
    """Tags from the published form `key:value;key:value`.

    In it the colons inside a key are spelt as spaces (`addr street:Foo`) and are restored here. A
    piece without a colon continues the value before it, whose own semicolon split it off.
    """
    tags: dict[str, str] = {}
    if not isinstance(label, str):
        return tags
    last = None
    for piece in label.split(";"):
        key, colon, value = piece.partition(":")
        if colon and key.strip():
            last = key.strip().replace(" ", ":")
            tags[last] = value.strip()
        elif last is not None:
            tags[last] += ";" + piece
    return {key: value for key, value in tags.items() if value}


def _tag_columns(frame: pd.DataFrame) -> list[str]:
    return [
        column
        for column in frame.columns
        if column not in RECORD_COLUMNS
        and column not in ("geometry", "tags")
        and (pd.api.types.is_string_dtype(frame[column]) or frame[column].dtype == object)
    ]


def _mapping(value: object) -> dict[str, str]:
    """A `tags` cell: a dict, a JSON object, or nothing usable."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    if not isinstance(value, Mapping):
        return {}
    return {str(k): str(v) for k, v in value.items() if v is not None and str(v).strip()}
