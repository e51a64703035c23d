"""A picture of the map for people: zones beside the imagery, with legend, scale and credits."""

import math
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray
from pyproj import CRS

from geolink.files import atomic_path
from geolink.grid import Bounds, GridSpec
from geolink.legend import Legend
from geolink.rasters import burn
from geolink.sources.base import ImageSource, ImageTile

SIMULATED_NOTE = (
    "Simulated imagery: rendered from OpenStreetMap, not observed. No basis for decisions."
)

# Pixels. The figure is at most MAX_SIDE wide and high, with at most so much for head and foot.
MAX_SIDE = 1600
_DPI = 100
_MARGIN, _GAP, _CAPTION = 30, 24, 24
_HEAD, _FOOT = 190, 350
_MAX_PANEL, _MIN_CELL = 1100, 170

# The column of legend, scale bar and north arrow.
_SIDE, _SWATCH, _NAME, _SHARE = 330, 26, 140, 240
_ROW, _MAX_ROWS = 27, 20

_INK, _SOFT, _PAPER, _WARNING = "#222222", "#555555", "#ffffff", "#b3261e"
# How strongly the imagery shades the zones, the share of ink in a border between them, and the
# pixels from line to line of the hatching where there is no map.
_SHADING, _BORDER, _HATCH = 0.3, 0.6, 8
# The legend explains the hatching unless the zones cover so much of the map.
_COVERED = 0.995

RGB = NDArray[np.float32]


@dataclass(frozen=True)
class LegendRow:
    """A class that occurs: its id, name, colour, and its area in numbers and words."""

    id: int
    name: str
    color: str
    area_m2: float
    share: float

    @property
    def area(self) -> str:
        """The area in words."""
        return area_words(self.area_m2)

    @property
    def percent(self) -> str:
        """The share of all zones in words."""
        return f"{100 * self.share:.1f} %"


@dataclass(frozen=True)
class _Layout:
    """Panels of one size, in pixels from the upper left corner of the first cell.

    A cell is a caption above a panel, and wide enough for the caption.
    """

    gsd: float  # metres per pixel
    panel_width: int
    panel_height: int
    cells: tuple[tuple[int, int], ...]  # x, y
    width: int
    height: int


def write_preview(
    target: Path,
    zones: Iterable[gpd.GeoDataFrame],
    imagery: ImageSource | None,
    *,
    crs: CRS,
    bounds: Bounds,
    legend: Legend,
    title: str,
    credits: Iterable[str],
    overwrite: bool,
) -> None:
    """Draw zones, beside the imagery that they were made from, into a PNG.

    Args:
        target: the `.png` to make.
        zones: polygons with `class_id` and `area_m2`, in one frame or several, of which one at a
            time is held.
        imagery: shown at left or above, and as shades of the zones; None to leave it out.
        crs: metric CRS of the zones.
        bounds: extent of the map in that CRS, metres.
        legend: names and colours.
        title: what the map shows.
        credits: attributions and licences for the foot of the page.
        overwrite: replace an existing file.

    Raises:
        OutputError: the target cannot be written, or the disk is full.
    """
    layout = _layout(bounds, 1 if imagery is None else 2)
    shape = (layout.panel_height, layout.panel_width)
    grid = GridSpec(crs, bounds.west, bounds.north, layout.gsd, *shape)
    tile = None if imagery is None else imagery.read(grid)
    simulated = imagery is not None and imagery.info.simulated
    picture, areas = _zone_picture(zones, tile, grid, legend)
    pictures = {"zones": picture}
    if tile is not None:
        photo = np.where(tile.valid, tile.rgb / np.float32(255), 1).transpose(1, 2, 0)
        pictures = {"simulated imagery" if simulated else "imagery": photo} | pictures
    credits = [*credits, f"Projection: {crs.name}; up is grid north"]
    with atomic_path(target, overwrite=overwrite) as part, warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        sheet = _Sheet(layout)
        sheet.words(title, 18, _INK, most=2)
        if simulated:
            sheet.words(SIMULATED_NOTE, 11, _WARNING, most=3)
        gaps = sum(areas) < _COVERED * bounds.width * bounds.height
        sheet.body(pictures, legend_rows(areas, legend), gaps=gaps)
        for credit in credits:
            sheet.words(credit, 9, _SOFT, most=4)
        sheet.save(part)


def class_areas(zones: gpd.GeoDataFrame, legend: Legend) -> NDArray[np.float64]:
    """(classes,) sums of `area_m2` of zones by `class_id`."""
    classes, areas = (zones[name].to_numpy() for name in ("class_id", "area_m2"))
    return np.bincount(classes, areas, minlength=len(legend)).astype(np.float64)


def legend_rows(areas: Sequence[float] | NDArray[np.float64], legend: Legend) -> list[LegendRow]:
    """The classes that have an area, in order of their ids, which `areas` go by."""
    total = sum(areas)
    return [
        LegendRow(c.id, c.name, c.color, float(areas[c.id]), float(areas[c.id] / total))
        for c in legend.classes
        if areas[c.id] > 0
    ]


def area_words(area_m2: float) -> str:
    """An area to three digits, in the unit that suits it."""
    for unit, size in (("km²", 1e6), ("ha", 1e4)):
        if area_m2 >= size:
            decimals = max(2 - math.floor(math.log10(area_m2 / size)), 0)
            return f"{area_m2 / size:,.{decimals}f} {unit}"
    return f"{area_m2:,.0f} m²"


def _layout(bounds: Bounds, panels: int) -> _Layout:
    """The arrangement, side by side or stacked, in which the panels are largest."""
    free_width = MAX_SIDE - 2 * _MARGIN - _GAP - _SIDE
    free_height = MAX_SIDE - _HEAD - _FOOT
    choices = []
    for across, down in {(panels, 1), (1, panels)}:
        width = min((free_width - (across - 1) * _GAP) / across, _MAX_PANEL)
        height = (free_height - (down - 1) * _GAP) / down - _CAPTION
        choices.append((max(bounds.width / width, bounds.height / height), across))
    gsd, across = min(choices)
    width, height = (math.ceil(side / gsd - 1e-6) for side in (bounds.width, bounds.height))
    right, down = max(width, _MIN_CELL) + _GAP, _CAPTION + height + _GAP
    cells = tuple((i % across * right, i // across * down) for i in range(panels))
    extent = (cells[-1][0] + right - _GAP, cells[-1][1] + down - _GAP)
    return _Layout(gsd, width, height, cells, *extent)


def _zone_picture(
    zones: Iterable[gpd.GeoDataFrame], tile: ImageTile | None, grid: GridSpec, legend: Legend
) -> tuple[RGB, NDArray[np.float64]]:
    """(height, width, 3) colours of the zones, hatched between them, and the areas of the classes.

    Zones are drawn at double size, for fine borders. The imagery shades them, about as much
    lighter as darker, so that their colours remain those of the legend.
    """
    fine = GridSpec(grid.crs, grid.west, grid.north, grid.gsd / 2, grid.height * 2, grid.width * 2)
    owner, class_of, areas = _owners(zones, fine, legend)
    colors = np.array([c.rgb for c in legend.classes], np.float32) / 255
    of_owner = np.vstack([colors[class_of], np.ones((1, 3), np.float32)])
    picture = of_owner[owner]  # owner -1: the last row
    if tile is not None:
        shade = _shades(tile).repeat(2, axis=0).repeat(2, axis=1)[..., None]
        picture = np.where(owner[..., None] >= 0, np.clip(picture * shade, 0, 1), picture)
    rows, cols = np.indices(owner.shape)
    picture[(owner < 0) & ((rows + cols) % (2 * _HATCH) < 2)] = 0.75
    border = np.zeros(owner.shape, bool)
    border[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    border[1:] |= owner[1:] != owner[:-1]
    picture[border] *= 1 - _BORDER
    height, width = grid.shape
    smooth: RGB = picture.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    return smooth, areas


def _owners(
    zones: Iterable[gpd.GeoDataFrame], grid: GridSpec, legend: Legend
) -> tuple[NDArray[np.int32], NDArray[np.intp], NDArray[np.float64]]:
    """(height, width) number of the zone of each pixel, -1 for none; class by number; areas."""
    owner = np.full(grid.shape, -1, np.int32)
    classes: list[NDArray[np.intp]] = [np.zeros(0, np.intp)]
    areas = np.zeros(len(legend))
    count = 0
    for frame in zones:
        numbers = range(count, count + len(frame))
        owner = np.maximum(owner, burn(frame.geometry, numbers, grid, fill=-1))
        classes.append(frame["class_id"].to_numpy(np.intp))
        areas += class_areas(frame, legend)
        count += len(frame)
    return owner, np.concatenate(classes), areas


def _shades(tile: ImageTile) -> NDArray[np.float32]:
    """(height, width) factors about 1 that follow the brightness of the imagery."""
    bright = tile.rgb.mean(axis=0, dtype=np.float32) / 255
    middle = bright[tile.valid].mean() if tile.valid.any() else 0.0
    shades: NDArray[np.float32] = np.where(tile.valid, 1 + _SHADING * (bright - middle), 1)
    return shades.astype(np.float32)


class _Sheet:
    """A page that is filled from above; all lengths are pixels from its upper left corner."""

    def __init__(self, layout: _Layout) -> None:
        self.layout = layout
        self.width = 2 * _MARGIN + layout.width + _GAP + _SIDE
        self.figure = Figure(dpi=_DPI, facecolor=_PAPER)
        self.page: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.page.axis("off")
        self.y = float(_MARGIN)  # the end of what is drawn

    def words(self, text: str, size: float, color: str, *, most: int) -> None:
        """Text over the whole width, in at most so many lines."""
        lines = _wrapped(text, self.width - 2 * _MARGIN, size, most=most)
        self.y = self._lines(lines, _MARGIN, self.y, size, color=color)

    def body(self, pictures: Mapping[str, RGB], rows: list[LegendRow], *, gaps: bool) -> None:
        """The pictures, each below its name, and the column that explains them."""
        self.y += 14
        for (name, picture), (right, down) in zip(pictures.items(), self.layout.cells, strict=True):
            self._panel(picture, name, _MARGIN + right, self.y + down)
        left = _MARGIN + self.layout.width + _GAP
        y = self._legend(rows, left, self.y + _CAPTION, gaps=gaps)
        y = self._scale_bar(left, y + 44)
        self._north_arrow(left + _SIDE - 30, y - 62)
        self.y = max(self.y + self.layout.height, y) + 18

    def save(self, target: Path) -> None:
        """Write the page as PNG, as high as it has become."""
        height = round(self.y + _MARGIN / 2)
        self.figure.set_size_inches(self.width / _DPI, height / _DPI)
        self.page.set(xlim=(0, self.width), ylim=(height, 0), aspect="auto")
        self.figure.savefig(target, format="png", dpi=_DPI, metadata={"Software": None})

    def _lines(self, lines: list[str], x: float, y: float, size: float, **style: Any) -> float:  # noqa: ANN401
        """Lines of text, the first with its top at `y`; where the next would begin."""
        for line in lines:
            self._text(x, y, line, size=size, va="top", **style)
            y += _leading(size)
        return y

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401
        look: dict[str, Any] = {"color": _INK, "parse_math": False} | style
        self.page.text(x, y, text, **look)

    def _box(self, x: float, y: float, width: float, height: float, **style: Any) -> None:  # noqa: ANN401
        look: dict[str, Any] = {"edgecolor": _INK, "linewidth": 0.7} | style
        self.page.add_patch(Rectangle((x, y), width, height, **look))

    def _panel(self, picture: RGB, name: str, x: float, y: float) -> None:
        color = _WARNING if name.startswith("simulated") else _INK
        self._text(x, y + _CAPTION - 7, name, size=11, color=color)
        left, top = round(x), round(y + _CAPTION)  # whole pixels keep the picture's sharp
        height, width = picture.shape[:2]
        extent = (left, left + width, top + height, top)
        self.page.imshow(picture, interpolation="nearest", extent=extent)
        self._box(left, top, width, height, facecolor="none")

    def _legend(self, rows: list[LegendRow], x: float, y: float, *, gaps: bool) -> float:
        """The classes with area and share, and where the legend ends."""
        heads = ((0, "zone", "left"), (_SHARE, "share", "right"), (_SIDE, "area", "right"))
        for right, word, side in heads:
            self._text(x + right, y - 7, word, size=10, color=_SOFT, ha=side)
        for row in _most_of(rows):
            self._box(x, y + 5, _SWATCH, 16, facecolor=row.color)
            lines = _wrapped(row.name, _NAME, 11, most=2)
            for at, word in ((x + _SHARE, row.percent), (x + _SIDE, row.area)):
                self._text(at, y + 5, word, size=11, va="top", ha="right")
            y = max(self._lines(lines, x + _SWATCH + 9, y + 5, 11), y + _ROW)
        if gaps:
            self._box(x, y + 5, _SWATCH, 16, hatch="////", facecolor=_PAPER, edgecolor="#999999")
            self._text(x + _SWATCH + 9, y + 5, "not mapped", size=11, va="top")
            y += _ROW
        self.page.plot((x, x + _SIDE), (y + 5, y + 5), color=_SOFT, linewidth=0.7)
        self._text(x, y + 10, "total", size=11, va="top")
        total = area_words(sum(row.area_m2 for row in rows))
        self._text(x + _SIDE, y + 10, total, size=11, va="top", ha="right")
        return y + 10 + _ROW

    def _scale_bar(self, x: float, y: float) -> float:
        """A bar of a round length, and where it ends."""
        metres = _round_length((_SIDE - 80) * self.layout.gsd)
        length = metres / self.layout.gsd
        label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
        self._text(x, y, "0", size=10)
        self._text(x + length, y, label, size=10, ha="center")
        for half, color in enumerate((_INK, _PAPER)):
            self._box(x + half * length / 2, y + 6, length / 2, 7, facecolor=color)
        return y + 13

    def _north_arrow(self, x: float, y: float) -> None:
        """An arrow up; up is grid north."""
        corners = [(x, y), (x + 12, y + 36), (x, y + 28), (x - 12, y + 36)]
        self.page.add_patch(Polygon(corners, facecolor=_INK, linewidth=0))
        self._text(x, y + 52, "N", size=12, weight="bold", ha="center", va="center")


def _most_of(rows: list[LegendRow]) -> list[LegendRow]:
    """The rows, or of too many the largest and one for the rest."""
    if len(rows) <= _MAX_ROWS:
        return rows
    kept = sorted(rows, key=lambda row: -row.area_m2)[: _MAX_ROWS - 1]
    rest = [row for row in rows if row not in kept]
    area, share = sum(row.area_m2 for row in rest), sum(row.share for row in rest)
    kept = [row for row in rows if row in kept]
    return [*kept, LegendRow(-1, f"{len(rest)} smaller classes", _PAPER, area, share)]


def _wrapped(text: str, width: float, size: float, *, most: int) -> list[str]:
    """At most so many lines, none wider than `width` pixels at `size` points."""
    text = " ".join(text.split())[:2000]
    columns = max(int(width * len(text) / max(_text_width(text, size), 1)), 8)
    while True:
        lines = textwrap.wrap(text, columns, max_lines=most, placeholder=" …")
        if columns <= 8 or all(_text_width(line, size) <= width for line in lines):
            return lines
        columns -= max(columns // 20, 1)


def _text_width(text: str, size: float) -> float:
    """Pixels, as they will be drawn: hinting makes small letters wider."""
    renderer = RendererAgg(1, 1, _DPI)  # type: ignore[no-untyped-call]
    font = FontProperties(size=size)
    width, _, _ = renderer.get_text_width_height_descent(text, font, False)  # type: ignore[no-untyped-call]
    return float(width)


def _leading(size: float) -> float:
    """Pixels from one line to the next, of text of this size in points."""
    return 1.4 * size * _DPI / 72


def _round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most))
