"""What an evaluation found: conditions, each with figures that say how sure they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np

from geolink._version import __version__
from geolink.errors import InputError
from geolink.legend import IGNORE, Legend
from geolink.metrics.classification import ClassificationTally, tally_classes
from geolink.metrics.intervals import DRAWS, Interval, bootstrap, t_interval
from geolink.metrics.regression import RegressionSums
from geolink.metrics.segmentation import SegmentationTally, tally_map
from geolink.metrics.tally import Measured, total

Protocol = Literal["segment", "knn", "linear", "finetune", "regress", "change"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# What a condition changes; `main` is the one that thresholds and comparisons speak of.
Kind = Literal[
    "main",
    "no_osm",
    "baseline",
    "osm_dropout",
    "osm_shift",
    "osm_retag",
    "blur",
    "colour",
    "cloud",
    "transfer",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAIN: Kind = "main"

TALLIES: dict[str, type[Measured]] = {
    "segmentation": SegmentationTally,
    "classification": ClassificationTally,
    "regression": RegressionSums,
}

# Figures that are better when lower; signed area errors are best at 0. All others: higher.
LOWER_IS_BETTER = ("ece", "zone_ece", "misallocated_area", "rmse", "mae")
SIGNED = ("area_error",)


@dataclass(frozen=True)
class Figure:
    """One number and how sure it is.

    Attributes:
        value: mean over the seeds.
        runs: the value of each seed.
        over_seeds: 95 % interval of the mean by Student's t; unknown for one seed.
        over_places: 95 % interval by a bootstrap of spatial blocks; unknown for one block.
    """

    value: float
    runs: tuple[float, ...]
    over_seeds: Interval
    over_places: Interval


@dataclass(frozen=True)
class Condition:
    """What was measured under one condition.

    Attributes:
        name: for people, unique in a report.
        kind: what the condition changes.
        level: how much of it (a share, metres, pixels), None where that makes no sense.
        figures: by name; those of one class end in `.<class>`.
        blocks: tally of each spatial block, summed over the seeds.
        trained_on: place that the model was trained on, for `transfer`.
        place: place that was measured, for `transfer`.
    """

    name: str
    kind: Kind
    figures: Mapping[str, Figure]
    blocks: Mapping[str, Measured]
    level: float | None = None
    trained_on: str | None = None
    place: str | None = None

    @property
    def whole(self) -> Measured:
        """The tally of all blocks."""
        return total(list(self.blocks.values()))

    @classmethod
    def of(
        cls,
        name: str,
        kind: Kind,
        runs: Sequence[Mapping[str, Measured]],
        legend: Legend,
        *,
        draws: int = DRAWS,
        **where: Any,  # noqa: ANN401 - level, trained_on, place
    ) -> Self:
        """The condition that was measured once per seed.

        Args:
            name: for people.
            kind: what the condition changes.
            runs: per seed, the tally of each spatial block.
            legend: names of the classes.
            draws: resamples of the bootstrap.
            **where: `level`, `trained_on`, `place`.
        """
        names = list(dict.fromkeys(block for run in runs for block in run))
        blocks = {b: total([run[b] for run in runs if b in run]) for b in names}
        values = [total(list(run.values())).figures(legend) for run in runs]
        places = bootstrap(list(blocks.values()), lambda t: t.figures(legend), draws=draws)
        figures = {
            figure: _figure([run[figure] for run in values], places[figure]) for figure in values[0]
        }
        return cls(name, kind, figures, blocks, **where)


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        title: what was measured, for people.
        protocol: how it was measured.
        measures: kind of the tallies, one of `TALLIES`.
        legend: the classes.
        seeds: seed of each run.
        conditions: what was measured; the first is the main one.
        model: name and hash of the model.
        data: what it was measured on: description, licence, attribution, ... of every source.
        settings: the request, without what only concerns the machine.
        notes: what a reader must know, such as simulated imagery or a weak reference.
        unit: of the quantity in a regression.
        software: name and version of what made the report.
    """

    title: str
    protocol: Protocol
    measures: str
    legend: Legend
    seeds: tuple[int, ...]
    conditions: tuple[Condition, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unit: str = ""
    software: str = f"geolink {__version__}"

    def __post_init__(self) -> None:
        if not self.conditions or self.conditions[0].kind != MAIN:
            raise InputError("a report starts with the main condition")

    @property
    def main(self) -> Condition:
        """The condition that thresholds and comparisons speak of."""
        return self.conditions[0]

    def of_kind(self, *kinds: Kind) -> list[Condition]:
        """The conditions of some kinds, in their order."""
        return [c for c in self.conditions if c.kind in kinds]


def empty_tally(measures: str, classes: int, distances_m: Sequence[float] = ()) -> Measured:
    """A tally of a kind in `TALLIES` in which nothing is counted yet."""
    nothing = np.full((1, 1), IGNORE, np.uint8)
    if measures == "segmentation":
        blocks = np.zeros((1, 1), np.intp)
        options: dict[str, Any] = {"classes": classes, "count": 1, "gsd": 1.0}
        confidence = np.zeros((1, 1))
        return tally_map(nothing, nothing, confidence, blocks, **options, distances_m=distances_m)[
            0
        ]
    if measures == "classification":
        return tally_classes(nothing[:0, 0], np.zeros((0, classes)), np.zeros(0, np.intp), count=1)[
            0
        ]
    return RegressionSums.of(np.zeros(0), np.zeros(0))


def figure_names(measures: str, legend: Legend, distances_m: Sequence[float] = ()) -> list[str]:
    """Names of the figures that an evaluation will have, before anything is measured."""
    return list(empty_tally(measures, len(legend), distances_m).figures(legend))


def better(figure: str) -> Literal["higher", "lower", "zero"]:
    """Which way a figure is better."""
    name = figure.partition(".")[0]
    if name in SIGNED:
        return "zero"
    return "lower" if name in LOWER_IS_BETTER else "higher"


def _figure(runs: Sequence[float], places: Interval) -> Figure:
    return Figure(float(np.mean(runs)), tuple(runs), t_interval(runs), places)
