"""Tables that sum up what a command did or would do."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from geolink.workflows.predict import PredictPlan, PredictResult


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


def plan_table(plan: "PredictPlan") -> Table:
    """What a run would read and write."""
    table = Table(title=plan.title, title_justify="left", show_header=False)
    for name, value in plan.rows():
        table.add_row(name, value)
    return table
