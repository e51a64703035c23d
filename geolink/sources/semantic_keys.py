"""Which tag keys say what an object is: the others only name or locate it, or keep records."""

import re
from collections.abc import Mapping

# Values of a closed vocabulary.
WORDS = re.compile(r"[a-z]+[0-9]?(?:[ _-][a-z]+[0-9]?)*")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?(?: ?[a-z%]+)?")

# First words of keys that name or locate an object, or keep records of the mapping.
# fmt: off
_RECORDS = frozenset((
    "abbr_name", "addr", "admin_level", "alt_name", "artist_name", "attribution", "bfs",
    "brand", "check_date", "comment", "complete", "contact", "created_by", "crossing_ref",
    "date", "description", "ele", "email", "fax", "FIXME", "fixme", "flickr", "gnis",
    "graffiti", "height_source", "image", "import", "inscription", "int_name", "int_ref",
    "is_in", "ISO3166-1", "ISO3166-2", "iso_3166_2", "lacounty", "layer", "level", "loc_name",
    "local_ref", "mapillary", "name", "nat_name", "nat_ref", "noref", "note", "official_name",
    "old_name", "old_ref", "openGeoDB", "opening_hours", "operator", "phone", "post_code",
    "postal_code", "ref", "reg_name", "remark", "route_ref", "short_name", "source",
    "source_ref", "start_date", "survey", "tiger", "TMC", "todo", "uic_name", "uic_ref", "uri",
    "url", "website", "wikidata", "wikimedia_commons", "wikipedia",
))
# fmt: on


def is_closed(value: str) -> bool:
    """True for values of a closed vocabulary: words of lower-case letters, or a number."""
    return bool(WORDS.fullmatch(value) or _NUMBER.fullmatch(value))


def semantic_keys(counts: Mapping[str, int], closed: Mapping[str, int]) -> dict[str, int]:
    """The keys that say what an object is, with their counts, sorted.

    Such a key occurs at least twice, at least half of its values are closed, and it neither names
    nor locates an object nor keeps records.

    Args:
        counts: number of occurrences per key, colons spelt as spaces.
        closed: number of those whose value `is_closed`.
    """
    return {
        key: count
        for key, count in sorted(counts.items())
        if count >= 2 and closed.get(key, 0) >= count / 2 and key.split(" ")[0] not in _RECORDS
    }
