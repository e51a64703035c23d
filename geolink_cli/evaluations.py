"""Tables of evaluations and comparisons."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from geolink.reports.words import label, number, spread

if TYPE_CHECKING:
    from geolink.reports.compare import Comparison
    from geolink.reports.record import Report

_STYLES = {"better": "green", "worse": "red", "different": "yellow", "unclear": "dim"}
_MAIN = {"segmentation": "miou", "classification": "accuracy", "regression": "r2"}


def figure_table(report: "Report") -> Table:
    """The figures of the main condition, with intervals, then the main figure of the others."""
    table = Table(title=Text(report.title), title_justify="left", caption=_notes(report.notes))
    table.add_column("figure")
    for heading in ("value", "95 % over seeds", "95 % over places"):
        table.add_column(heading, justify="right")
    for name, figure in report.main.figures.items():
        if "." not in name:
            words = Text.assemble(label(name, report.unit), (f"  {name}", "dim"))
            intervals = spread(figure.over_seeds), spread(figure.over_places)
            table.add_row(words, number(figure.value), *intervals)
    if others := report.conditions[1:]:
        main = _MAIN[report.measures]
        table.add_section()
        table.add_row(Text(f"{label(main)} of", "bold"))
        for condition in others:
            figure = condition.figures[main]
            intervals = spread(figure.over_seeds), spread(figure.over_places)
            table.add_row(Text(condition.name), number(figure.value), *intervals)
    return table


def difference_table(comparison: "Comparison", *, classes: bool) -> Table:
    """Figures of two reports and their difference; those of single classes only if asked for."""
    table = Table(
        title="second against first", title_justify="left", caption=_notes(comparison.notes)
    )
    table.add_column("figure")
    for heading in ("first", "second", "change", "95 % over seeds", "95 % over places"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for d in comparison.differences:
        if classes or "." not in d.figure:
            change = number(d.change)
            table.add_row(
                Text(label(d.figure)),
                number(d.first),
                number(d.second),
                change if change.startswith("-") else f"+{change}",
                spread(d.over_seeds),
                spread(d.over_places),
                Text(d.verdict, _STYLES[d.verdict]),
            )
    return table


def _notes(notes: "tuple[str, ...] | list[str]") -> Text | None:
    return Text("\n".join(notes), justify="left") if notes else None
