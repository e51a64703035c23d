"""Splits of labelled data, by whatever says which samples belong together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geolink.datasets.base import LabelledData
from geolink.errors import InputError, place_named
from geolink.splits import PARTS, Split, block_split, city_split, few_shot, load_split, random_split

BLOCKS, RANDOM = "blocks", "random"


def split_data(
    data: LabelledData,
    how: str = BLOCKS,
    *,
    seed: int = 0,
    block_m: float | None = None,
    side: int = 224,
    test_cities: Sequence[str] = (),
    validation_cities: Sequence[str] = (),
) -> Split:
    """Which samples train, validate and test.

    Args:
        data: the samples.
        how: `blocks` of ground in every city, with a buffer of one tile between parts; `random`;
            or the path of a split that was saved. Data without positions can only be split at
            random.
        seed: of the draw.
        block_m: side of the blocks in metres; four tiles by default.
        side: of a tile, pixels.
        test_cities: cities to test on, instead of drawing.
        validation_cities: cities to validate on, beside cities to test on.

    Raises:
        InputError: the split cannot be made, or the file is of other data.
    """
    if how not in (BLOCKS, RANDOM):
        split = load_split(Path(how))
        split.require(data.keys)
        return split
    if test_cities:
        cities = {key: item.city for key, item in data.items.items()}
        return city_split(cities, test=test_cities, validation=validation_cities, seed=seed)
    if how == BLOCKS:
        return _by_blocks(data, seed=seed, block_m=block_m, side=side)
    classes = None
    if data.task == "classify":
        classes = [int(data.label(key)) for key in data.keys]
    return random_split(data.keys, seed=seed, classes=classes)


def fewer_labels(data: LabelledData, split: Split, fraction: float, *, seed: int = 0) -> Split:
    """The split with a class-balanced fraction of its training samples.

    Raises:
        InputError: the fraction is no share, or nothing is labelled.
    """
    keys = few_shot(split.train, data.counts(split.train), fraction, seed=seed)
    left_out = sorted({*split.left_out, *split.train} - set(keys))
    method = f"{split.method}, {fraction:.3g} of the training samples"
    return Split(keys, split.validation, split.test, tuple(left_out), method, split.seed)


def telling_samples(
    data: LabelledData, split: Split, *, labelled: float = 0.0, uniform: float = 1.0
) -> Split:
    """The split without training samples whose labels teach little.

    Where most of a city has no zone, most tiles have streets only, and a model would learn that
    everything between houses is a street.

    Args:
        data: labelled pictures.
        split: validation and test samples stay as they are.
        labelled: least share of a picture's pixels that have a class.
        uniform: greatest share of these that may have the same class.

    Raises:
        InputError: no training sample is left.
    """
    counts = data.counts(split.train)
    known = counts.sum(axis=1)
    enough = known >= labelled * data.label(split.train[0]).size
    mixed = counts.max(axis=1, initial=0) <= uniform * known
    keys = tuple(np.array(split.train)[enough & mixed].tolist())
    if not keys:
        raise InputError(
            f"none of the {len(split.train):,} training samples is labelled on {labelled:.0%} of "
            f"its pixels with at most {uniform:.0%} of one class; ask for less"
        )
    left_out = tuple(sorted({*split.left_out, *split.train} - set(keys)))
    method = f"{split.method}, {len(keys)} telling training samples"
    return Split(keys, split.validation, split.test, left_out, method, split.seed)


def _by_blocks(data: LabelledData, *, seed: int, block_m: float | None, side: int) -> Split:
    """Blocks of each city, joined: the cities' coordinates have nothing to do with each other."""
    if any(item.position is None for item in data.items.values()):
        raise InputError("these samples have no place on the ground, so split them at random")
    tile = side * (data.gsd_range[1] if data.gsd_range else 1.0)
    parts: list[Split] = []
    cities = sorted({item.city for item in data.items.values()})
    for city in cities:
        positions = {
            key: item.position
            for key, item in data.items.items()
            if item.city == city and item.position is not None
        }
        # Centres that are two tiles apart leave one tile between.
        with place_named(city, several=len(cities) > 1):
            parts.append(
                block_split(positions, block_m=block_m or 4 * tile, buffer_m=2 * tile, seed=seed)
            )
    joined = {
        name: tuple(sorted(key for part in parts for key in part.part(name))) for name in PARTS
    }
    left_out = tuple(sorted(key for part in parts for key in part.left_out))
    return Split(**joined, left_out=left_out, method=parts[0].method, seed=seed)


def require_classes(data: LabelledData, split: Split) -> None:
    """Check that there is something to tell apart in the training samples.

    Raises:
        InputError: nothing is labelled, or everything is of one class or one number.
    """
    if data.task == "regress":
        _require_numbers(data, split)
        return
    pixels = data.counts(split.train).sum(axis=0)
    if not pixels.any():
        raise InputError(
            f"the {len(split.train)} training samples have no labels; check the ignored values"
        )
    if np.count_nonzero(pixels) == 1:
        only = data.legend.names[int(pixels.argmax())]
        raise InputError(
            f"the {len(split.train)} training samples have the class {only!r} only; a model needs "
            "two or more to tell apart"
        )


def _require_numbers(data: LabelledData, split: Split) -> None:
    values = np.stack([data.label(key) for key in split.train])
    alike = np.flatnonzero(values.min(axis=0) == values.max(axis=0)).tolist()
    if alike:
        raise InputError(
            f"{data.legend.names[alike[0]]!r} is the same in all {len(values)} training samples; a "
            "model needs numbers that differ"
        )
