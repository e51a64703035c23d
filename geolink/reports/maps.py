"""Pictures of where a map is right: reference, map and errors side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure as Plot
from matplotlib.patches import Patch
from numpy.typing import NDArray

from geolink.legend import IGNORE, Legend

_MOST_PIXELS = 900
_RIGHT, _WRONG = "#cfe3d4", "#b3261e"
_INK = "#222222"
# Of what is not known; hatched, so that no colour of a class can be taken for it.
_UNKNOWN: Mapping[str, Any] = {"facecolor": "#ffffff", "edgecolor": "#9aa1a9", "hatch": "/////"}


@dataclass(frozen=True)
class MapPair:
    """A reference and a map of the same pixels.

    Attributes:
        name: of the place or tile.
        reference: (height, width) class ids, 255 where unknown.
        predicted: (height, width) class ids, 255 where unmapped.
        gsd: metres per pixel.
    """

    name: str
    reference: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    gsd: float


def error_map(pair: MapPair, legend: Legend, *, title: str = "") -> Plot:
    """Reference, map, and where they differ; nothing is judged where the reference is unknown.

    Args:
        pair: what is shown.
        legend: the classes.
        title: what the map shows; it says so where the imagery is simulated.
    """
    step = -(-max(pair.reference.shape) // _MOST_PIXELS)
    reference, predicted = (a[::step, ::step] for a in (pair.reference, pair.predicted))
    known = (reference != IGNORE) & (predicted != IGNORE)
    verdict = np.where(known, reference != predicted, 2)
    colors = _colors([c.color for c in legend.classes])
    errors = _colors([_RIGHT, _WRONG])
    pictures = {
        "reference": colors[np.where(reference == IGNORE, len(legend), reference)],
        "map": colors[np.where(predicted == IGNORE, len(legend), predicted)],
        "errors": errors[verdict],
    }
    aspect = reference.shape[0] / reference.shape[1]
    stacked = aspect < 0.6
    width = 9.0 if stacked else 11.5
    panel = width - 2.2 if stacked else (width - 0.6) / 3
    height = (3 if stacked else 1) * (panel * aspect + 0.35) + (0.3 if stacked else 1.1)
    plot = Plot(figsize=(width, min(height, 16.0)), layout="constrained")
    panels = plot.subplots(*((3, 1) if stacked else (1, 3)))
    for axes, (name, picture) in zip(panels, pictures.items(), strict=True):
        axes.patch.set(**_UNKNOWN)
        axes.imshow(picture, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, loc="left", fontsize=11)
        for spine in axes.spines.values():
            spine.set(color="#8a9199", linewidth=0.8)
    plot.suptitle(title, x=0.01, ha="left", fontsize=12, parse_math=False)
    _legend(plot, legend, np.union1d(reference, predicted), beside=stacked)
    metres = pair.gsd * max(pair.reference.shape[1], 1)
    panels[-1].set_xlabel(f"{metres:,.0f} m across", fontsize=9, color=_INK, loc="right")
    return plot


def _colors(names: list[str]) -> NDArray[np.float64]:
    """(n + 1, 4) colours, the last one clear, for what is not known."""
    return np.asarray(to_rgba_array([*names, "none"]))


def _legend(plot: Plot, legend: Legend, shown: NDArray[np.uint8], *, beside: bool) -> None:
    """The classes that occur, and the colours of the verdicts."""
    handles = [
        Patch(facecolor=c.color, edgecolor=_INK, linewidth=0.4, label=c.name)
        for c in legend.classes
        if c.id in shown
    ]
    for color, text in ((_RIGHT, "right"), (_WRONG, "wrong")):
        handles.append(Patch(facecolor=color, edgecolor=_INK, linewidth=0.4, label=text))
    handles.append(Patch(**_UNKNOWN, linewidth=0.4, label="not known"))
    place = {"loc": "outside right upper"} if beside else {"loc": "outside lower left", "ncols": 6}
    plot.legend(handles=handles, frameon=False, fontsize=10, **place)
