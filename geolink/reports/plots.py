"""Pictures of what an evaluation found; each is a matplotlib figure, made from a report alone."""

import io
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from geolink.legend import Legend
from geolink.metrics.calibration import Reliability
from geolink.metrics.classification import ClassificationTally
from geolink.metrics.confusion import ConfusionMatrix
from geolink.metrics.segmentation import SegmentationTally
from geolink.metrics.tally import Measured, ratio
from geolink.reports.record import Condition, Kind, Report

DPI = 130
_INK, _FAINT, _PAPER = "#222222", "#b9bec5", "#ffffff"
FIRST, SECOND = "#1f5fa8", "#d98200"

# What the level of a condition is, for the axis below its curve.
LEVELS: Mapping[Kind, str] = {
    "osm_dropout": "share of OSM objects removed",
    "osm_shift": "OSM objects shifted by (m)",
    "osm_retag": "share of OSM objects retagged",
    "blur": "blur of the image (m)",
    "colour": "change of the image's colours",
    "cloud": "share of the image under cloud",
}
_SHARES = ("osm_dropout", "osm_retag", "cloud")
# The figure that curves and bars show, by kind of tallies, and its name for people.
HEADLINE = {
    "segmentation": ("miou", "mean IoU"),
    "classification": ("accuracy", "accuracy"),
    "regression": ("r2", "r²"),
}


def png_bytes(plot: Plot) -> bytes:
    """The figure as a PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        plot.savefig(buffer, format="png", dpi=DPI, facecolor=_PAPER, metadata={"Software": None})
    return buffer.getvalue()


def report_plots(report: Report) -> dict[str, Plot]:
    """The pictures that a report has something for, by name."""
    plots: dict[str, Plot] = {}
    confusion = confusion_of(report.main.whole)
    if confusion is not None:
        plots["confusion"] = confusion_plot(confusion, report.legend)
    if curves := reliabilities_of(report.main.whole):
        plots["reliability"] = reliability_plot(curves)
    if without := report.of_kind("no_osm"):
        plots["classes"] = class_plot(report.main, without[0], report.legend)
    if curves_of(report):
        plots["robustness"] = robustness_plot(report)
    if report.of_kind("transfer"):
        plots["transfer"] = transfer_plot(report)
    for plot in plots.values():
        sign(plot, report.title)
    return plots


def sign(plot: Plot, title: str) -> None:
    """Says at the foot of a picture what it is of, and so whether imagery was simulated."""
    plot.supxlabel(title, fontsize=8, color="#7a828b", x=0.01, ha="left", parse_math=False)


def confusion_of(tally: Measured) -> ConfusionMatrix | None:
    """The confusion matrix of a tally that has one."""
    if isinstance(tally, SegmentationTally | ClassificationTally):
        return tally.confusion
    return None


def reliabilities_of(tally: Measured) -> dict[str, Reliability]:
    """The tables of confidence and correctness of a tally, by what they count."""
    if isinstance(tally, SegmentationTally):
        return {"pixels": tally.pixels, "mapped zones": tally.polygons}
    return {"samples": tally.samples} if isinstance(tally, ClassificationTally) else {}


def curves_of(report: Report) -> dict[Kind, list[Condition]]:
    """The conditions with a level, by kind and then level."""
    kinds = {kind: [c for c in report.of_kind(kind) if c.level is not None] for kind in LEVELS}
    return {
        kind: sorted(found, key=lambda c: c.level or 0.0) for kind, found in kinds.items() if found
    }


def confusion_plot(matrix: ConfusionMatrix, legend: Legend) -> Plot:
    """Where each class of the reference went, in percent of the class."""
    shares = 100 * ratio(matrix.counts, matrix.referenced[:, None])
    count = len(legend)
    plot = _plot(2.6 + 0.52 * count, 2.0 + 0.46 * count)
    axes = plot.add_subplot()
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, col), share in np.ndenumerate(shares):
        if share >= 0.5:
            color = _PAPER if share > 55 else _INK
            axes.text(col, row, f"{share:.0f}", ha="center", va="center", color=color, fontsize=9)
    parts = ratio(matrix.referenced, matrix.pixels)
    rows = [
        f"{name}  {part:.1%}" if part > 0 else f"{name}  -"
        for name, part in zip(legend.names, parts, strict=True)
    ]
    axes.set_yticks(range(count), rows)
    axes.set_xticks(range(count), legend.names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set(xlabel="mapped as", ylabel="reference class, share of all")
    axes.set_title("Percent of each reference class", loc="left")
    axes.tick_params(length=0)
    _frame(axes, visible=False)
    for edge in np.arange(count + 1) - 0.5:
        axes.axhline(edge, color=_PAPER, linewidth=1)
        axes.axvline(edge, color=_PAPER, linewidth=1)
    return plot


def reliability_plot(curves: Mapping[str, Reliability]) -> Plot:
    """Share that is right against stated confidence, and how often each is stated."""
    plot = _plot(5.6, 5.4)
    upper, lower = plot.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=_FAINT, linewidth=1.2, zorder=1)
    upper.text(0.03, 0.06, "perfect", color="#7a828b", rotation=0, fontsize=9)
    for (name, curve), color in zip(curves.items(), (FIRST, SECOND), strict=False):
        bins = len(curve.count)
        shown = curve.count > 0
        label = f"{name}, ECE {curve.ece:.3f}"
        upper.plot(
            curve.mean_confidence[shown],
            curve.accuracy[shown],
            marker="o",
            markersize=4,
            color=color,
            label=label,
        )
        share = ratio(curve.count, curve.count.sum())
        middles = (np.arange(bins) + 0.5) / bins
        lower.step(middles, share, where="mid", color=color, linewidth=1.6)
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    upper.set_title("Does the confidence hold?", loc="left")
    upper.legend(frameon=False, loc="upper left")
    lower.set(xlabel="stated confidence", ylabel="how often", ylim=(0, None))
    for axes in (upper, lower):
        _percent(axes, "y")
        _percent(axes, "x")
        _frame(axes)
    return plot


def class_plot(main: Condition, without: Condition, legend: Legend) -> Plot:
    """IoU (or F1) per class with OSM and without, with intervals over places where known."""
    stem = "iou" if f"iou.{legend.names[0]}" in main.figures else "f1"
    names = [n for n in legend.names if np.isfinite(main.figures[f"{stem}.{n}"].value)]
    plot = _plot(7.2, 1.5 + 0.42 * max(len(names), 1))
    axes = plot.add_subplot()
    rows = np.arange(len(names))[::-1]
    before, after = ([c.figures[f"{stem}.{name}"].value for name in names] for c in (without, main))
    axes.hlines(rows, before, after, color=_FAINT, linewidth=3, zorder=1)
    for condition, color, offset in ((without, SECOND, -0.13), (main, FIRST, 0.13)):
        values = [condition.figures[f"{stem}.{name}"] for name in names]
        for row, figure in zip(rows, values, strict=True):
            axes.plot(figure.over_places, [row + offset] * 2, color=color, linewidth=1, alpha=0.7)
        axes.scatter(
            [f.value for f in values], rows, s=42, color=color, label=condition.name, zorder=2
        )
    axes.set_yticks(rows, names)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(names) - 0.4), xlabel="IoU" if stem == "iou" else "F1")
    axes.set_title("What OSM adds, class by class", loc="left")
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 1.14), ncols=2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    _frame(axes)
    return plot


def robustness_plot(report: Report) -> Plot:
    """The headline figure against each kind of disturbance, with intervals over places."""
    curves = curves_of(report)
    figure, label = HEADLINE[report.measures]
    across = 2 if len(curves) == 4 else min(len(curves), 3)
    down = -(-len(curves) // across)
    plot = _plot(max(3.4 * across, 5.2), 3.3 * down)
    panels = np.atleast_1d(plot.subplots(down, across, sharey=True, squeeze=False)).ravel()
    floor = next(iter(report.of_kind("no_osm")), None)
    for axes, (kind, conditions) in zip(panels, curves.items(), strict=False):
        _curve(axes, [report.main, *conditions], figure)
        if floor is not None and kind.startswith("osm"):
            value = floor.figures[figure].value
            axes.axhline(value, color=SECOND, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.text(
                0.02,
                value,
                "without OSM",
                color=SECOND,
                fontsize=9,
                va="top",
                transform=axes.get_yaxis_transform(),
            )
        axes.set_xlabel(LEVELS[kind])
        if kind in _SHARES:
            _percent(axes, "x")
        _frame(axes)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for axes in panels[::across]:
        axes.set_ylabel(label)
    panels[0].set_ylim(bottom=min(0.0, panels[0].get_ylim()[0]))
    plot.suptitle("How much disturbance it bears", x=0.01, ha="left", fontsize=12)
    return plot


def transfer_plot(report: Report) -> Plot:
    """The headline figure by place that a model was trained on and place that was measured."""
    figure, label = HEADLINE[report.measures]
    cells = report.of_kind("transfer")
    rows = list(dict.fromkeys(str(c.trained_on) for c in cells))
    cols = list(dict.fromkeys(str(c.place) for c in cells))
    values = np.full((len(rows), len(cols)), np.nan)
    for cell in cells:
        at = rows.index(str(cell.trained_on)), cols.index(str(cell.place))
        values[at] = cell.figures[figure].value
    plot = _plot(2.8 + 1.1 * len(cols), 1.9 + 0.6 * len(rows))
    axes = plot.add_subplot()
    top = max(float(np.nanmax(values, initial=0.0)), 1e-9)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1.25 * top, aspect="auto")
    for (row, col), value in np.ndenumerate(values):
        color = _PAPER if value > 0.75 * top else _INK
        text = f"{value:.3f}" if np.isfinite(value) else "-"
        axes.text(col, row, text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(cols)), cols, rotation=25, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel="measured on", ylabel="trained on")
    axes.set_title(f"From place to place: {label}", loc="left")
    axes.tick_params(length=0)
    _frame(axes, visible=False)
    return plot


def _curve(axes: Axes, conditions: Sequence[Condition], figure: str) -> None:
    """Points at each level, joined, with bars from the low to the high end."""
    levels = [condition.level or 0.0 for condition in conditions]
    found = [condition.figures[figure] for condition in conditions]
    values = np.array([f.value for f in found])
    ends: NDArray[np.float64] = np.array([f.over_places for f in found])
    axes.plot(levels, values, color=FIRST, marker="o", markersize=5)
    axes.vlines(levels, ends[:, 0], ends[:, 1], color=FIRST, linewidth=1.2, alpha=0.7)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _plot(width: float, height: float) -> Plot:
    return Plot(figsize=(width, height), layout="constrained")


def _percent(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _frame(axes: Axes, *, visible: bool = True) -> None:
    """Only the two axes that are read, in a quiet colour."""
    for name, spine in axes.spines.items():
        spine.set_visible(visible and name in ("left", "bottom"))
        spine.set_color("#8a9199")
