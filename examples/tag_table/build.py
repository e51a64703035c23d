"""Builds the tag assets of geolink: the key count table and the table of tag vectors.

    python build.py EXTRACT.osm.pbf [...] [--out geolink/assets/tags]

Tags of every object of the extracts are counted, and all-MiniLM-L6-v2 embeds those that say what an
object is (`pip install geolink[minilm]`). The rule:

- A key is semantic if it occurs at least twice, at least half of its values are words of lower-case
  letters or numbers, and it neither names nor locates an object nor keeps records.
- `key_counts.json` holds the semantic keys.
- `minilm.safetensors` holds the tags of semantic keys whose value is words (`shop:bakery`, not
  `lanes:2`), and each key that occurs at least twice alone (`shop`, also `name`).

The same extracts and library versions give the same bytes.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from geolink.graphs.tags import tag_strings
from geolink.graphs.text_encoders import MiniLmTagEncoder
from geolink.grid import WGS84, reproject_bounds, utm_crs
from geolink.sources.entities import ENTITY_TYPES
from geolink.sources.osm import extract_bounds, read_osm
from geolink.sources.semantic_keys import WORDS, is_closed, semantic_keys

ASSETS = Path(__file__).parents[2] / "geolink" / "assets" / "tags"
MOST_LETTERS = 40  # longer values are sentences


def tags_of(extract: Path) -> Iterator[str]:
    """The tag strings of all objects of an extract."""
    degrees = extract_bounds(extract)
    crs = utm_crs((degrees.west + degrees.east) / 2, (degrees.south + degrees.north) / 2)
    entities = read_osm(extract, reproject_bounds(degrees, WGS84, crs), crs=crs)
    for kind in ENTITY_TYPES:
        for tags in entities.frame(kind)["tags"]:
            yield from tag_strings(tags)


def split(tag: str) -> tuple[str, str]:
    """Key and value of a tag string."""
    key, _, value = tag.partition(":")
    return key, value


def key_counts(tags: Counter[str]) -> Counter[str]:
    """Occurrences of each key."""
    counts: Counter[str] = Counter()
    for tag, count in tags.items():
        counts[split(tag)[0]] += count
    return counts


def telling_keys(tags: Counter[str]) -> dict[str, int]:
    """Count of each key that says what an object is."""
    closed: Counter[str] = Counter()
    for tag, count in tags.items():
        key, value = split(tag)
        closed[key] += count * is_closed(value)
    return semantic_keys(key_counts(tags), closed)


def table_strings(tags: Counter[str], keys: dict[str, int]) -> list[str]:
    """The strings that get a vector, sorted."""
    words = {
        tag
        for tag in tags
        if split(tag)[0] in keys
        and len(split(tag)[1]) <= MOST_LETTERS
        and WORDS.fullmatch(split(tag)[1])
    }
    return sorted(words | {key for key, count in key_counts(tags).items() if count >= 2})


def main() -> None:
    """Reads the command line and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extracts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    tags = Counter(tag for extract in args.extracts for tag in tags_of(extract))
    keys = telling_keys(tags)
    strings = table_strings(tags, keys)
    vectors = MiniLmTagEncoder().encode(strings).astype(np.float16)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "key_counts.json").write_text(json.dumps(keys, indent=0) + "\n", encoding="utf-8")
    text = np.frombuffer("\n".join(strings).encode(), dtype=np.uint8)
    table = save({"strings": text, "vectors": vectors})
    (args.out / "minilm.safetensors").write_bytes(table)
    print(f"{len(keys)} keys, {len(strings)} strings in {args.out}")


if __name__ == "__main__":
    main()
