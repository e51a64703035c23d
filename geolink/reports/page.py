"""A report as one HTML page that needs nothing else: no script, no network, pictures inside.

Names of places, models, classes and files come from outside, so everything is escaped, and the page
forbids itself to load or run anything.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from geolink.metrics.intervals import Interval
from geolink.reports.record import Condition, Report, better
from geolink.reports.words import label, number, spread

_HEADLINE = {
    "segmentation": ("miou", "accuracy", "zones_right", "ece"),
    "classification": ("accuracy", "mean_f1", "kappa", "ece"),
    "regression": ("r2", "rmse", "mae"),
}
CAPTIONS = {
    "confusion": "Where the pixels or samples of each reference class were put.",
    "reliability": "A confidence holds where its curve follows the diagonal.",
    "classes": "Each class with OSM and without; thin lines are 95 % intervals over places.",
    "robustness": "What disturbed OSM or images cost; bars are 95 % intervals over places.",
    "transfer": "Trained on one place, measured on another.",
}


@dataclass(frozen=True)
class Row:
    """One figure, in words."""

    name: str
    label: str
    value: str
    seeds: str
    places: str
    best: str

    @property
    def interval(self) -> str:
        """The interval that says most of those that are known."""
        if self.places != spread(_UNKNOWN):
            return f"{self.places} over places"
        return f"{self.seeds} over seeds" if self.seeds != spread(_UNKNOWN) else ""


_UNKNOWN = Interval(float("nan"), float("nan"))


def html_page(report: Report, pictures: Mapping[str, bytes]) -> str:
    """The page of a report, with PNG pictures by name in their order."""
    environment = Environment(
        loader=PackageLoader("geolink", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    rows = {row.name: row for row in overall_rows(report)}
    columns = [name for name in _HEADLINE[report.measures] if name in rows]
    return environment.get_template("report.html.j2").render(
        report=report,
        headline=[rows[name] for name in columns],
        overall=list(rows.values()),
        classes=list(_class_rows(report)),
        class_columns=[label(stem) for stem in class_stems(report)],
        conditions=[_condition_row(c, columns) for c in report.conditions],
        condition_columns=[label(name) for name in columns],
        pictures=[
            {"caption": _caption(name), "data": base64.b64encode(png).decode()}
            for name, png in pictures.items()
        ],
        facts=list(_facts(report)),
    )


def overall_rows(report: Report) -> Iterable[Row]:
    """The figures of the main condition that are not of one class."""
    for name, figure in report.main.figures.items():
        if "." not in name:
            yield Row(
                name,
                label(name, report.unit),
                number(figure.value),
                spread(figure.over_seeds),
                spread(figure.over_places),
                better(name),
            )


def class_stems(report: Report) -> list[str]:
    """Names of the figures that there are per class."""
    return list(dict.fromkeys(n.partition(".")[0] for n in report.main.figures if "." in n))


def _class_rows(report: Report) -> Iterable[dict[str, Any]]:
    figures = report.main.figures
    for c in report.legend.classes:
        names = [f"{stem}.{c.name}" for stem in class_stems(report)]
        if names:
            cells = [number(figures[name].value) for name in names]
            yield {"name": c.name, "color": c.color, "cells": cells}


def _condition_row(condition: Condition, columns: Iterable[str]) -> dict[str, Any]:
    cells = [number(condition.figures[name].value) for name in columns]
    return {"name": condition.name, "cells": cells}


def _caption(name: str) -> str:
    return CAPTIONS.get(name, f"Reference, map and errors: {name.removeprefix('map ')}.")


def _facts(report: Report) -> Iterable[tuple[str, str]]:
    """What was measured and how, as names and values."""
    yield "software", report.software
    for name, value in report.model.items():
        yield f"model {name}", _plain(value)
    for i, source in enumerate(report.data):
        known = (str(v) for v in source.values() if v not in (None, False, True, ""))
        yield f"source {i + 1}", ", ".join(known)
    yield "seeds", ", ".join(map(str, report.seeds))
    for name, value in report.settings.items():
        yield name.replace("_", " "), _plain(value)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
