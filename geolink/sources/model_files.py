"""The files that a model is made of, as they lie at any origin.

What belongs to the weights comes along: the card of our own, the published key counts of released
ones. Whatever a server says is data that nobody vouches for.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geolink.errors import UnavailableError
from geolink.files import sha256_of

WEIGHTS = "model.safetensors"
CARD = "card.json"
# The published count table belongs beside the released weights, under its published name.
RELEASED_KEY_COUNTS = "all_tags30_frequency1.json"
RELEASED_SUFFIXES = (".pth", ".pt")


@dataclass(frozen=True)
class FoundModel:
    """A model that was brought into a folder.

    Attributes:
        weights: name of the weight file.
        source: where it came from.
        licence: of the weights, None where unknown.
        date: of the weights, None where unknown.
        details: for the record.
    """

    weights: str
    source: str
    licence: str | None = None
    date: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def json_object(payload: bytes) -> dict[str, Any]:
    """The JSON object in a file's content; empty where there is none."""
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def weights_name(name: str) -> str:
    """`name` if it is a plain one of a weight file, else nothing."""
    plain = re.fullmatch(r"\w[\w .()+-]{0,99}\.(safetensors|pth|pt)", name)
    return name if plain else ""


def is_released(weights: str) -> bool:
    """Whether a weight file is one of the published pickles, going by its name."""
    return weights.endswith(RELEASED_SUFFIXES)


def no_card(name: str) -> UnavailableError:
    """The error of weights of our own format that come without a card."""
    return UnavailableError(f"{name} has no {CARD} beside its weights, without which they are mute")


def text_of(card: Mapping[str, Any], name: str) -> str | None:
    """A text in a card that nobody has checked, None where there is none."""
    value = card.get(name)
    return value if isinstance(value, str) and value else None


def require_hash(weights: Path, card: Mapping[str, Any], name: str) -> None:
    """Refuse weights that are not the card's; they are deleted, so that they are fetched again."""
    expected = text_of(card, "sha256")
    if expected is not None and sha256_of(weights) != expected:
        weights.unlink()
        raise UnavailableError(
            f"the weights of {name} have another checksum than its card says; "
            "run the same command again, or ask its author"
        )
