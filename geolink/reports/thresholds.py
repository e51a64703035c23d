"""Least values that figures must reach, for checks that run without a reader."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geolink.errors import ConfigError
from geolink.reports.record import Report, better


@dataclass(frozen=True)
class Shortfall:
    """A figure of the main condition that is below what was asked for, or not known."""

    figure: str
    value: float
    wanted: float

    @property
    def sentence(self) -> str:
        """For people."""
        found = "unknown" if math.isnan(self.value) else f"{self.value:.4f}"
        return f"{self.figure} is {found}, below {self.wanted:g}"


def parse_thresholds(texts: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Least values by figure, from texts such as `miou=0.5`.

    Args:
        texts: one per figure.
        known: names of the figures that there will be.

    Raises:
        ConfigError: a text has another form, or names a figure that is unknown or for which higher
            is not better.
    """
    usable = [name for name in known if better(name) == "higher"]
    thresholds = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not equals or not math.isfinite(value):
            raise ConfigError(f"--fail-under takes METRIC=VALUE, such as miou=0.5, not {text!r}")
        if name not in usable:
            problem = "is better when lower" if name in known else "is no figure of this protocol"
            raise ConfigError(f"{name!r} {problem}; --fail-under knows {_in_short(usable)}")
        thresholds[name] = value
    return thresholds


def shortfalls(report: Report, thresholds: Mapping[str, float]) -> list[Shortfall]:
    """What misses its threshold; a figure that is not known misses it too."""
    values = {name: report.main.figures[name].value for name in thresholds}
    return [
        Shortfall(name, values[name], wanted)
        for name, wanted in thresholds.items()
        if not values[name] >= wanted
    ]


def _in_short(names: Sequence[str]) -> str:
    """Names of figures, those of single classes by one example each."""
    heads = dict.fromkeys(name.partition(".")[0] for name in names if "." in name)
    overall = [name for name in names if "." not in name]
    return ", ".join([*overall, *(f"{head}.CLASS" for head in heads)])
