"""A picture of the map for people: zones beside the imagery, with legend, scale and credits."""

import textwrap
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon, Rectangle
from numpy.typing import NDArray

from geolink.files import atomic_path
from geolink.grid import Bounds, GridSpec
from geolink.legend import Legend
from geolink.rasters import burn
from geolink.sources.base import ImageSource, ImageTile

# Pixels. The figure is at most MAX_SIDE high and wide.
MAX_SIDE = 1600
_DPI = 100
_MARGIN, _GAP, _TITLE, _FOOTER, _LEGEND = 30, 24, 84, 92, 290

_INK, _PAPER, _WARNING = "#222222", "#ffffff", "#b3261e"
_NO_DATA = (0.93, 0.93, 0.93)
# Share of the class colour over the grey imagery, and of the ink in a border between zones.
_TINT, _BORDER = 0.75, 0.55

RGB = NDArray[np.float32]


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels from the upper left."""

    width: int
    height: int
    panel_width: int
    panel_height: int
    panels: tuple[tuple[int, int], ...]  # (x, y) of each panel


def write_preview(
    target: Path,
    zones: gpd.GeoDataFrame,
    imagery: ImageSource | None,
    *,
    bounds: Bounds,
    legend: Legend,
    title: str,
    credits: Iterable[str],
    overwrite: bool,
) -> None:
    """Draw zones, beside the imagery that they were made from, into a PNG.

    Args:
        target: the `.png` to make.
        zones: polygons with `class_id` and `area_m2` in a metric CRS.
        imagery: shown at left or above, and in grey under the zones; None to leave it out.
        bounds: extent of the map in the CRS of the zones, metres.
        legend: names and colours.
        title: what the map shows.
        credits: attributions and licences for the foot of the page.
        overwrite: replace an existing file.

    Raises:
        OutputError: the target cannot be written, or the disk is full.
    """
    layout = _layout(bounds.width / bounds.height, 1 if imagery is None else 2)
    grid = _panel_grid(bounds, layout, zones)
    tile = None if imagery is None else imagery.read(grid)
    simulated = imagery is not None and imagery.info.simulated
    figure = Figure(figsize=(layout.width / _DPI, layout.height / _DPI), dpi=_DPI, facecolor=_PAPER)
    pictures = [_zone_picture(zones, tile, grid, legend)]
    if tile is not None:
        pictures.insert(0, np.where(tile.valid, tile.rgb / np.float32(255), 1).transpose(1, 2, 0))
    axes = [
        _panel(figure, layout, place, picture)
        for place, picture in zip(layout.panels, pictures, strict=True)
    ]
    if tile is not None:
        caption = "simulated imagery" if simulated else "imagery"
        _caption(axes[0], caption, _WARNING if simulated else _INK)
        _caption(axes[1], "zones", _INK)
    _scale_bar(axes[-1], grid)
    _north_arrow(axes[-1], grid)
    _words(figure, layout, title=title, credits=credits, simulated=simulated)
    _legend(figure, layout, zones, legend)
    with atomic_path(target, overwrite=overwrite) as part, warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(part, format="png", dpi=_DPI, metadata={"Software": None})


def _layout(aspect: float, panels: int) -> _Layout:
    """The arrangement, side by side or stacked, in which panels of this aspect are largest."""
    free_width = MAX_SIDE - 2 * _MARGIN - _GAP - _LEGEND
    free_height = MAX_SIDE - _TITLE - _FOOTER
    best = (0, 0)
    for across, down in {(panels, 1), (1, panels)}:
        width = (free_width - (across - 1) * _GAP) / across
        width = min(width, (free_height - (down - 1) * _GAP) / down * aspect, 1100.0)
        best = max(best, (int(max(width, 1)), across))
    panel_width, across = best
    panel_height = max(int(panel_width / aspect), 1)
    places = tuple(
        (
            _MARGIN + (i % across) * (panel_width + _GAP),
            _TITLE + (i // across) * (panel_height + _GAP),
        )
        for i in range(panels)
    )
    width = places[-1][0] + panel_width + _GAP + _LEGEND + _MARGIN
    height = max(places[-1][1] + panel_height, _TITLE + 400) + _FOOTER
    return _Layout(width, height, panel_width, panel_height, places)


def _panel_grid(bounds: Bounds, layout: _Layout, zones: gpd.GeoDataFrame) -> GridSpec:
    """The grid of a panel's pixels."""
    gsd = max(bounds.width / layout.panel_width, bounds.height / layout.panel_height)
    return GridSpec(
        zones.crs, bounds.west, bounds.north, gsd, layout.panel_height, layout.panel_width
    )


def _zone_picture(
    zones: gpd.GeoDataFrame, tile: ImageTile | None, grid: GridSpec, legend: Legend
) -> RGB:
    """(height, width, 3) colours of the zones over pale grey imagery, drawn at double size."""
    fine = GridSpec(grid.crs, grid.west, grid.north, grid.gsd / 2, grid.height * 2, grid.width * 2)
    owner = burn(zones.geometry, range(len(zones)), fine, fill=-1)
    colors = np.array([c.rgb for c in legend.classes]) / 255
    of_owner = np.vstack([colors[zones["class_id"].to_numpy()], _NO_DATA])  # owner -1: last row
    of_owner = of_owner.astype(np.float32)
    picture = of_owner[owner]
    if tile is not None:
        grey = 0.4 + 0.6 / 255 * tile.rgb.mean(axis=0, dtype=np.float32)
        grey = grey.repeat(2, axis=0).repeat(2, axis=1)[..., None]
        picture = np.where(owner[..., None] >= 0, _TINT * picture + (1 - _TINT) * grey, picture)
    border = np.zeros(owner.shape, bool)
    border[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    border[1:] |= owner[1:] != owner[:-1]
    picture[border] *= 1 - _BORDER
    height, width = grid.shape
    smooth: RGB = picture.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    return smooth


def _panel(figure: Figure, layout: _Layout, place: tuple[int, int], picture: RGB) -> Axes:
    """Axes that show one picture, pixel by pixel."""
    x, y = place
    width, height = layout.panel_width, layout.panel_height
    rectangle = (
        x / layout.width,
        1 - (y + height) / layout.height,
        width / layout.width,
        height / layout.height,
    )
    axes = figure.add_axes(rectangle)
    axes.imshow(picture, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=_INK, linewidth=0.8)
    return axes


def _caption(axes: Axes, text: str, color: str) -> None:
    axes.annotate(
        text,
        (0, 1),
        xytext=(8, -8),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        fontsize=11,
        color=_PAPER,
        bbox={"facecolor": color, "edgecolor": "none", "pad": 4, "alpha": 0.85},
    )


def _scale_bar(axes: Axes, grid: GridSpec) -> None:
    """A bar of a round length, about a quarter of the panel, at the lower left."""
    metres = _round_length(grid.width * grid.gsd / 4)
    length, thick = metres / grid.gsd, 7
    left, base = 22, grid.height - 22
    _plate(axes, left - 12, base - 36, length + 24, 48)
    for half, color in enumerate((_INK, _PAPER)):
        corner = (left + half * length / 2, base - thick)
        axes.add_patch(
            Rectangle(corner, length / 2, thick, facecolor=color, edgecolor=_INK, linewidth=0.8)
        )
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    axes.text(left + length / 2, base - thick - 4, label, ha="center", va="bottom", fontsize=10)


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))


def _north_arrow(axes: Axes, grid: GridSpec) -> None:
    """An arrow up at the upper right; up is grid north."""
    x = grid.width - 32
    _plate(axes, x - 18, 14, 36, 64)
    axes.add_patch(Polygon([(x, 20), (x + 11, 52), (x, 45), (x - 11, 52)], facecolor=_INK))
    axes.text(x, 65, "N", ha="center", va="center", fontsize=11, fontweight="bold", color=_INK)


def _plate(axes: Axes, x: float, y: float, width: float, height: float) -> None:
    """A pale ground that keeps what stands on it legible; pixels of the panel."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=_PAPER, edgecolor="none", alpha=0.85))


def _words(
    figure: Figure, layout: _Layout, *, title: str, credits: Iterable[str], simulated: bool
) -> None:
    """Title, the note on simulated imagery, and the credits."""
    left, lines = _MARGIN / layout.width, max(layout.width // 8, 40)
    shown = textwrap.shorten(title, max(layout.width // 13, 20), placeholder=" …")
    style: dict[str, Any] = {"va": "top", "ha": "left", "parse_math": False}
    figure.text(left, 1 - 18 / layout.height, shown, fontsize=18, color=_INK, **style)
    if simulated:
        note = (
            "Simulated imagery: rendered from OpenStreetMap, not observed. No basis for decisions."
        )
        figure.text(left, 1 - 54 / layout.height, note, fontsize=11, color=_WARNING, **style)
    text = textwrap.fill(" · ".join(credits), lines, max_lines=3, placeholder=" …")
    below = (_FOOTER - 16) / layout.height
    figure.text(left, below, text, fontsize=9, color="#555555", linespacing=1.4, **style)


def _legend(figure: Figure, layout: _Layout, zones: gpd.GeoDataFrame, legend: Legend) -> None:
    """The classes that occur, each with its share of the area."""
    areas = zones["area_m2"].groupby(zones["class_id"]).sum()
    handles = [
        Patch(
            facecolor=c.color,
            edgecolor=_INK,
            linewidth=0.5,
            label=f"{c.name}  {100 * areas[c.id] / areas.sum():.1f} %",
        )
        for c in legend.classes
        if c.id in areas.index
    ]
    right = (layout.panels[-1][0] + layout.panel_width + _GAP) / layout.width
    figure.legend(
        handles=handles,
        title="Zone, share of area",
        loc="upper left",
        bbox_to_anchor=(right, 1 - _TITLE / layout.height),
        borderaxespad=0,
        frameon=False,
        alignment="left",
        fontsize=12,
        title_fontsize=12,
        labelspacing=0.7,
        handlelength=1.6,
        handleheight=1.1,
    )
