"""Whether one evaluation is better than another, or only luckier."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geolink.errors import InputError
from geolink.metrics.intervals import DRAWS, Interval, bootstrap_difference, t_interval
from geolink.reports.record import Report, better


@dataclass(frozen=True)
class Difference:
    """A figure in two reports.

    Attributes:
        figure: its name.
        first: value in the first report.
        second: value in the second.
        over_seeds: 95 % interval of the difference over seeds that both have; unknown otherwise.
        over_places: 95 % interval of the difference by a bootstrap of spatial blocks.
    """

    figure: str
    first: float
    second: float
    over_seeds: Interval
    over_places: Interval

    @property
    def change(self) -> float:
        """Second minus first."""
        return self.second - self.first

    @property
    def is_clear(self) -> bool:
        """True where 0 lies outside of every interval that is known, and one is."""
        known = [i for i in (self.over_seeds, self.over_places) if math.isfinite(i.low)]
        return bool(known) and all(low > 0 or high < 0 for low, high in known)

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `different` (where neither is), or `unclear`."""
        if not self.is_clear:
            return "unclear"
        direction = better(self.figure)
        if direction == "zero":
            return "different"
        return "better" if (self.change > 0) == (direction == "higher") else "worse"


@dataclass(frozen=True)
class Comparison:
    """The main conditions of two reports, figure by figure.

    Attributes:
        first: title of the first report.
        second: title of the second.
        differences: the figures that both have.
        paired: True where both measured the same blocks, so that differences are of each.
        notes: what a reader must know of either.
    """

    first: str
    second: str
    differences: list[Difference]
    paired: bool
    notes: list[str]

    @property
    def summary(self) -> str:
        """One line for people."""
        words = [d.verdict for d in self.differences if "." not in d.figure]
        counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        places = "the same places" if self.paired else "DIFFERENT places"
        return f"second against first, on {places}: {counts}"

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON data; what is not known is null."""
        rows = [
            {
                "figure": d.figure,
                "first": _known(d.first),
                "second": _known(d.second),
                "change": _known(d.change),
                "over_seeds": [_known(end) for end in d.over_seeds],
                "over_places": [_known(end) for end in d.over_places],
                "verdict": d.verdict,
            }
            for d in self.differences
        ]
        return {**asdict(self), "differences": rows, "summary": self.summary}


def compare(first: Report, second: Report, *, draws: int = DRAWS) -> Comparison:
    """Differences of the main conditions, second minus first, with intervals.

    Args:
        first: what is compared with.
        second: what is compared.
        draws: resamples of the bootstrap.

    Raises:
        InputError: the reports measure other things, or have other classes.
    """
    if first.measures != second.measures:
        raise InputError(
            f"a {first.measures} and a {second.measures} cannot be compared; "
            "name two reports of one kind"
        )
    legend = first.legend
    if legend.names != second.legend.names:
        raise InputError(
            f"the reports have other classes ({', '.join(legend.names)} and "
            f"{', '.join(second.legend.names)}); name two of one legend"
        )
    a, b = first.main, second.main
    places = bootstrap_difference(a.blocks, b.blocks, lambda t: t.figures(legend), draws=draws)
    same_seeds = first.seeds == second.seeds
    differences = [
        Difference(
            name,
            a.figures[name].value,
            b.figures[name].value,
            _over_seeds(a.figures[name].runs, b.figures[name].runs, same_seeds),
            places[name],
        )
        for name in a.figures
        if name in b.figures and name in places
    ]
    notes = list(dict.fromkeys((*first.notes, *second.notes)))
    return Comparison(
        first.title, second.title, differences, a.blocks.keys() == b.blocks.keys(), notes
    )


def _over_seeds(first: Sequence[float], second: Sequence[float], same: bool) -> Interval:
    return t_interval([b - a for a, b in zip(first, second, strict=True)] if same else [])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
