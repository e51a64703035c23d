"""Which samples train, validate and test: drawn at random, by spatial blocks, or by city.

A split is a record of sample keys. It is a function of the samples and a seed, whatever order the
samples come in, and is kept as a JSON file, so that others can be measured on the same parts.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from geolink.errors import InputError
from geolink.files import atomic_path

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
# Bai et al. 2025, section 4.
SHARES = (0.5, 0.1, 0.4)
_FORMAT, _VERSION = "geolink-split", 1


@dataclass(frozen=True)
class Split:
    """Keys of the samples of each part, in ascending order.

    Attributes:
        train: samples to learn from.
        validation: samples that choose settings and the best state.
        test: samples that are measured.
        left_out: samples of none, such as the buffer between parts.
        method: how it was made, for people.
        seed: of the draw.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    method: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        keys = [*self.train, *self.validation, *self.test, *self.left_out]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"the split names the sample {twice!r} twice; each has one part")

    def part(self, name: Part) -> tuple[str, ...]:
        """The keys of one part."""
        keys: tuple[str, ...] = getattr(self, name)
        return keys

    def require(self, keys: Sequence[str]) -> None:
        """Check that the split is one of these samples.

        Raises:
            InputError: it names a sample that is not among them, or a part is empty.
        """
        known = set(keys)
        for name in PARTS:
            if unknown := sorted(set(self.part(name)) - known):
                raise InputError(
                    f"the split's {name} part has the sample {unknown[0]!r}, which the data does "
                    "not have; use the split of these data"
                )
            if not self.part(name) and name != "validation":
                raise InputError(f"the split has no {name} samples; make another")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        parts = {name: list(getattr(self, name)) for name in (*PARTS, "left_out")}
        head = {"format": _FORMAT, "version": _VERSION, "method": self.method, "seed": self.seed}
        return {**head, **parts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            InputError: the record is of another kind or lacks a part.
        """
        if data.get("format") != _FORMAT or data.get("version") != _VERSION:
            raise InputError(f"it is no {_FORMAT} of version {_VERSION}")
        parts = {name: data.get(name, []) for name in (*PARTS, "left_out")}
        for name, keys in parts.items():
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise InputError(f"its {name} part is no list of sample names")
        method, seed = data.get("method", ""), data.get("seed", 0)
        if not isinstance(method, str) or not isinstance(seed, int):
            raise InputError("its method or its seed is of the wrong type")
        return cls(**{k: tuple(v) for k, v in parts.items()}, method=method, seed=seed)


def save_split(split: Split, path: Path, *, overwrite: bool = False) -> None:
    """Writes a split as JSON.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    with atomic_path(path, overwrite=overwrite) as part:
        text = json.dumps(split.to_dict(), indent=1, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")


def load_split(path: Path) -> Split:
    """Reads a split that `save_split` wrote.

    Raises:
        InputError: the file is not readable, or holds no split.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the split {path} is not readable as JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"the split {path} holds no JSON object; make it with --split")
    try:
        return Split.from_dict(data)
    except InputError as error:
        raise InputError(f"the split {path} cannot be used: {error}") from None


def random_split(
    keys: Sequence[str],
    *,
    shares: tuple[float, float, float] = SHARES,
    seed: int = 0,
    classes: Sequence[int] | None = None,
) -> Split:
    """Samples drawn at random, 50/10/40 as in GeoLink (Bai et al. 2025, section 4).

    Neighbouring tiles of one place then stand on both sides, which flatters every figure; use
    `block_split` for tiles of a place.

    Args:
        keys: names of the samples, each once.
        shares: of train, validation and test; they sum up to 1.
        seed: of the draw.
        classes: class of each sample, so that every part has every class in the same share.

    Raises:
        InputError: there are too few samples for three parts.
    """
    order = _shuffled(keys, seed)
    groups: dict[int, list[str]] = {}
    class_of = dict(zip(keys, classes, strict=True)) if classes is not None else {}
    for key in order:
        groups.setdefault(class_of.get(key, 0), []).append(key)
    parts: dict[Part, list[str]] = {name: [] for name in PARTS}
    for _, members in sorted(groups.items()):
        for name, chosen in zip(PARTS, _cut(members, shares), strict=True):
            parts[name] += chosen
    return _checked(parts, (), f"random {_percent(shares)}", seed)


def block_split(
    positions: Mapping[str, tuple[float, float]],
    *,
    block_m: float,
    buffer_m: float,
    shares: tuple[float, float, float] = SHARES,
    seed: int = 0,
) -> Split:
    """Whole squares of ground drawn at random, with a gap between those of different parts.

    Neighbouring tiles look alike and share objects, so that tiles drawn one by one leak from train
    to test. A training or validation tile within the buffer of a test tile, or a training tile
    within that of a validation tile, is left out.

    Args:
        positions: x and y of each sample's centre, metres.
        block_m: side of the squares.
        buffer_m: least distance between the centres of samples of different parts, along either
            axis; the side of a tile is enough for tiles not to touch.
        shares: of train, validation and test, by number of samples.
        seed: of the draw.

    Raises:
        InputError: there are fewer blocks than parts, or the buffer leaves a part empty.
    """
    if not (block_m > 0 and buffer_m >= 0):
        raise InputError("blocks need a positive side, and their buffer must not be negative")
    keys = sorted(positions)
    xy = np.array([positions[key] for key in keys], float).reshape(-1, 2)
    blocks = blocks_of(xy, block_m)
    names = np.unique(blocks)
    if len(names) < len(PARTS):
        raise InputError(
            f"the samples lie in {len(names)} blocks of {block_m:g} m, and three parts need at "
            "least three; take a larger area or smaller blocks, or split at random"
        )
    part_of_block = _blocks_to_parts(blocks, len(names), shares, seed)
    part = part_of_block[blocks]
    close = np.zeros(len(keys), bool)
    for later in (1, 2):  # validation, test
        close |= (part < later) & _near(xy, xy[part == later], buffer_m)
    parts: dict[Part, list[str]] = {
        name: [keys[i] for i in np.flatnonzero((part == number) & ~close)]
        for number, name in enumerate(PARTS)
    }
    left_out = tuple(keys[i] for i in np.flatnonzero(close))
    method = f"blocks of {block_m:g} m, buffer {buffer_m:g} m, {_percent(shares)}"
    return _checked(parts, left_out, method, seed)


def city_split(
    cities: Mapping[str, str],
    *,
    test: Sequence[str],
    validation: Sequence[str] = (),
    validation_share: float = 0.1,
    seed: int = 0,
) -> Split:
    """Whole cities to test on; the others train, but for those, or a random share, that validate.

    Args:
        cities: city of each sample.
        test: cities to test on.
        validation: cities to validate on; the state is then chosen for cities that are new to it.
        validation_share: share of the other cities' samples, where no city is named.
        seed: of the draw.

    Raises:
        InputError: a city is unknown or named twice, or no city is left to train on.
    """
    known = sorted(set(cities.values()))
    if twice := sorted(set(test) & set(validation)):
        raise InputError(f"the city {twice[0]!r} cannot both test and validate; name it once")
    if unknown := sorted({*test, *validation} - set(known)):
        raise InputError(f"there is no city {unknown[0]!r} in the data; it has {', '.join(known)}")
    tested = [key for key in cities if cities[key] in test]
    others = _shuffled([key for key in cities if cities[key] not in (*test, *validation)], seed)
    if not others:
        raise InputError("no city is left to train on; test on fewer of them")
    method = f"test on {', '.join(sorted(test))}"
    if validation:
        method += f", validate on {', '.join(sorted(validation))}"
        validated = [key for key in cities if cities[key] in validation]
    else:
        count = min(max(round(validation_share * len(others)), 1), len(others) - 1)
        validated, others = others[:count], others[count:]
    parts: dict[Part, list[str]] = {"train": others, "validation": validated, "test": tested}
    return _checked(parts, (), method, seed)


def few_shot(
    keys: Sequence[str],
    counts: NDArray[np.integer | np.floating],
    fraction: float,
    *,
    seed: int = 0,
) -> tuple[str, ...]:
    """A class-balanced fraction of the training samples.

    Samples are drawn one by one, each for the class that has the least so far among those with
    samples left, with a probability in proportion to the class's part of the sample. For samples
    of one class each, that is the same number of every class as far as there are enough.

    Args:
        keys: (n,) samples to draw from.
        counts: (n, classes) how much of each class a sample holds (pixels, or 1 for its class).
        fraction: share of the samples to keep, 0-1; never fewer than one sample per class.
        seed: of the draw.

    Returns:
        The keys drawn, ascending.

    Raises:
        InputError: the fraction is no share, or nothing is labelled.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"the fraction of the labels is between 0 and 1, got {fraction:g}")
    if not counts.sum() > 0:
        raise InputError("no training sample has a label, so none can be chosen")
    if fraction == 1:
        return tuple(sorted(keys))
    order = np.argsort(np.asarray(keys, dtype=object), kind="stable")
    weight = np.asarray(counts, float)[order]
    rng = np.random.default_rng(seed)
    free = np.ones(len(order), bool)
    have = np.zeros(weight.shape[1])
    wanted = max(math.ceil(fraction * len(order) - 1e-9), int((weight.sum(axis=0) > 0).sum()))
    for _ in range(min(wanted, len(order))):
        left = weight[free].sum(axis=0) > 0
        if not left.any():  # only samples without labels remain
            break
        rarest = np.where(left, have, np.inf).argmin()
        chance = weight[:, rarest] * free
        chosen = rng.choice(len(order), p=chance / chance.sum())
        free[chosen] = False
        have += weight[chosen]
    return tuple(keys[i] for i in order[~free])


def blocks_of(xy: NDArray[np.float64], block_m: float) -> NDArray[np.int64]:
    """(n,) number of the square of ground that each (n, 2) position is in, from 0 without gaps."""
    cells = np.floor(xy / block_m).astype(np.int64)
    _, numbers = np.unique(cells, axis=0, return_inverse=True)
    return numbers.reshape(-1)


def _blocks_to_parts(
    blocks: NDArray[np.int64], count: int, shares: tuple[float, float, float], seed: int
) -> NDArray[np.int64]:
    """(blocks,) number of the part of each: in random order, to the part that lacks most."""
    sizes = np.bincount(blocks, minlength=count)
    order = np.random.default_rng(seed).permutation(count)
    wanted = np.asarray(_shares(shares)) * len(blocks)
    have, members = np.zeros(3), np.zeros(3, np.int64)
    part = np.zeros(count, np.int64)
    for position, block in enumerate(order):
        lack = wanted - have
        empty = (members == 0) & (wanted > 0)
        if empty.sum() >= count - position:  # the last blocks go to parts that have none
            lack = np.where(empty, np.inf, -np.inf)
        part[block] = lack.argmax()
        have[part[block]] += sizes[block]
        members[part[block]] += 1
    return part


def _near(
    xy: NDArray[np.float64], others: NDArray[np.float64], distance: float
) -> NDArray[np.bool_]:
    """(n,) True where one of the other positions is closer than `distance` along both axes."""
    near = np.zeros(len(xy), bool)
    for other in others:
        near |= np.abs(xy - other).max(axis=1) < distance
    return near


def _shuffled(keys: Sequence[str], seed: int) -> list[str]:
    ordered = sorted(keys)
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]


def _cut(members: list[str], shares: tuple[float, float, float]) -> list[list[str]]:
    """The members in three runs, whose lengths are the shares as near as whole numbers get."""
    ends = [round(end * len(members)) for end in np.cumsum(_shares(shares))]
    return [members[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _shares(shares: tuple[float, float, float]) -> tuple[float, float, float]:
    if len(shares) != 3 or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise InputError(f"the shares of train, validation and test must sum up to 1, got {shares}")
    return shares


def _percent(shares: tuple[float, float, float]) -> str:
    return "/".join(f"{100 * share:g}" for share in shares)


def _checked(
    parts: Mapping[Part, Sequence[str]], left_out: tuple[str, ...], method: str, seed: int
) -> Split:
    """The split of these parts, none of which may be empty but the validation's."""
    for name in ("train", "test"):
        if not parts[name]:
            raise InputError(
                f"no {name} samples are left by the split ({method}); take a larger "
                "area, more samples or smaller blocks, or split at random"
            )
    ordered = {name: tuple(sorted(keys)) for name, keys in parts.items()}
    return Split(**ordered, left_out=left_out, method=method, seed=seed)
