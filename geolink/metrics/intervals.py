"""How sure a figure is: intervals over seeds, and over places by resampling blocks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from geolink.metrics.tally import Tally, from_vector, total, vector

T = TypeVar("T", bound=Tally)
Figures = Callable[[T], Mapping[str, float]]

LEVEL = 0.95
DRAWS = 1000
# A figure that is undefined in more of the draws than this has no interval.
_MOST_UNDEFINED = 0.5


class Interval(NamedTuple):
    """Two ends; NaN where too little is known to tell."""

    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"))


def t_interval(values: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Interval of the mean of independent runs by Student's t; unknown for fewer than two."""
    numbers = np.asarray(values, float)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        return UNKNOWN
    error = numbers.std(ddof=1) / np.sqrt(len(numbers))
    reach = float(student_t.ppf((1 + level) / 2, len(numbers) - 1) * error)
    return Interval(float(numbers.mean()) - reach, float(numbers.mean()) + reach)


def bootstrap(
    blocks: Sequence[T], figures: Figures[T], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Percentile intervals of figures over places, from resampled spatial blocks.

    Neighbouring pixels are alike, so that not pixels but blocks of them are drawn with
    replacement; every figure follows from the sums of the blocks drawn.

    Args:
        blocks: one tally per block, all that were measured.
        figures: the named figures of a tally.
        draws: number of resamples.
        seed: of the draws.

    Returns:
        The interval of each figure; unknown where there are fewer than two blocks.
    """
    whole = figures(total(blocks))
    drawn = map(figures, _resampled(blocks, _weights(len(blocks), draws, seed)))
    return _intervals(whole, drawn, len(blocks))


def bootstrap_difference(
    first: Mapping[str, T],
    second: Mapping[str, T],
    figures: Figures[T],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of the figures of `second` minus those of `first`.

    Tallies of the same blocks are drawn together, so that what makes a block hard for both
    cancels out; other blocks are drawn independently, which gives wider intervals.
    """
    paired = first.keys() == second.keys()
    parts = list(first.values())
    others = [second[name] for name in first] if paired else list(second.values())
    weights = _weights(len(parts), draws, seed)
    other_weights = weights if paired else _weights(len(others), draws, seed + 1)

    def gap(pair: tuple[T, T]) -> dict[str, float]:
        a, b = map(figures, pair)
        return {name: b[name] - a[name] for name in a if name in b}

    drawn = zip(_resampled(parts, weights), _resampled(others, other_weights), strict=True)
    whole = gap((total(parts), total(others)))
    return _intervals(whole, map(gap, drawn), min(len(parts), len(others)))


def _resampled(blocks: Sequence[T], weights: NDArray[np.int64]) -> Iterator[T]:
    """The tally of each draw."""
    rows = np.stack([vector(block) for block in blocks])  # (blocks, sums)
    for row in weights.astype(np.float64) @ rows:
        yield from_vector(blocks[0], row)


def _weights(blocks: int, draws: int, seed: int) -> NDArray[np.int64]:
    """(draws, blocks) how often each block is drawn."""
    rng = np.random.default_rng([seed, blocks])
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)


def _intervals(
    whole: Mapping[str, float], drawn: Iterable[Mapping[str, float]], blocks: int
) -> dict[str, Interval]:
    """The central interval of each figure over the draws in which it is defined."""
    if blocks < 2:
        return dict.fromkeys(whole, UNKNOWN)
    names = list(whole)
    table = np.array([[figures[name] for name in names] for figures in drawn])  # (draws, names)
    tails = 100 * (1 - LEVEL) / 2
    return {
        name: _central(column[np.isfinite(column)], len(column), tails)
        for name, column in zip(names, table.T, strict=True)
    }


def _central(defined: NDArray[np.float64], draws: int, tails: float) -> Interval:
    if len(defined) <= _MOST_UNDEFINED * draws:
        return UNKNOWN
    low, high = np.percentile(defined, [tails, 100 - tails])
    return Interval(float(low), float(high))
