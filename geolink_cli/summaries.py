"""Tables that sum up what a command did or would do."""

import math
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from geolink.workflows.fetch import FetchPlan, FetchResult
    from geolink.workflows.finetune import FinetuneResult
    from geolink.workflows.results import PredictPlan, PredictResult


def zone_table(result: "PredictResult") -> Table:
    """Area, share, zones and confidence per class, largest first, each with its map colour."""
    table = Table(title=result.title, title_justify="left", caption=result.caption or None)
    table.add_column("class")
    for heading in ("km²", "share", "zones", "confidence", "OSM gain"):
        table.add_column(heading, justify="right")
    total = sum(c.area_m2 for c in result.classes)
    for c in sorted(result.classes, key=lambda c: -c.area_m2):
        if c.zones:
            table.add_row(
                Text.assemble(("■ ", c.color), c.name),
                f"{c.area_m2 / 1e6:.3f}",
                f"{c.area_m2 / total:.1%}",
                f"{c.zones:,}",
                f"{c.confidence:.2f}",
                f"{c.osm_gain:+.2f}",
            )
    return table


def plan_table(plan: "PredictPlan | FetchPlan") -> Table:
    """What a run would fetch, read and write."""
    table = Table(title=plan.title, title_justify="left", show_header=False)
    for name, value in plan.rows():
        table.add_row(name, value)
    return table


def entry_table(result: "FetchResult") -> Table:
    """Entries of the cache: what, of when, under which licence, how large, from where."""
    table = Table(title=result.title, title_justify="left")
    for heading in ("kind", "name", "date", "licence", "MB", "source"):
        table.add_column(heading, justify="right" if heading == "MB" else "left", overflow="fold")
    for entry in result.entries:
        note = Text(entry.problem, "bold red") if entry.problem else entry.source
        table.add_row(
            entry.kind,
            Text(entry.name),
            entry.info.date or "",
            Text(entry.info.licence or ""),
            f"{entry.size / 1e6:,.1f}",
            note,
        )
    return table


def finetuning_table(result: "FinetuneResult") -> Table:
    """Figures on the test samples beside those on the validation samples, classes coloured."""
    table = Table(title=result.title, title_justify="left")
    for heading in ("figure", "test", "validation"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    colors = dict(zip(result.classes, result.colors, strict=True))
    for name, value in result.test.items():
        figure, _, part = name.partition(".")
        words = Text.assemble(("■ ", colors[part]), f"{figure} {part}") if part else Text(name)
        table.add_row(words, *map(_figure, (value, result.validation.get(name, math.nan))))
    for rate, value in result.trials.items() if len(result.trials) > 1 else ():
        table.add_row(f"at rate {rate}", "", _figure(value))
    return table


def _figure(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
