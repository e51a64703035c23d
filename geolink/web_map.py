"""An interactive map in one HTML file: zones over imagery, to pan, zoom and ask.

The file needs nothing else: no library, no network. Names and credits come from outside, so
everything is escaped, and the page forbids itself any script but its own and any request.
"""

import base64
import hashlib
import io
import math
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS
from shapely import Geometry

from geolink.files import atomic_path
from geolink.grid import Bounds, GridSpec
from geolink.legend import Legend
from geolink.preview import SIMULATED_NOTE, area_words, class_areas, legend_rows
from geolink.sources.base import ImageSource

# A page is at most so large: 3 MB of imagery and, as numbers in decimals, 4 MB of zones.
MAX_BYTES = 8_000_000
MAX_ZONES = 20_000
MAX_VERTICES = 300_000
_MAX_SIDE = 2048  # pixels of the imagery
_MAX_JPEG = 2_250_000
_QUALITIES = (85, 70, 50, 30, 10)

# The script's unit of length is the map's longer side over this; outlines are whole numbers of it.
_STEPS = 16_384
# Simplification begins with the size of a pixel of the imagery, and doubles at most so often.
_FIRST_TOLERANCE, _DOUBLINGS = _STEPS / _MAX_SIDE, 6
# Corners that are held while the zones pass by; of more, all are moved to the middles of cells,
# the first of which are of so many steps.
_HELD_VERTICES, _FIRST_CELL = 2_000_000, 4

Polygons = NDArray[np.object_]
Offsets = NDArray[np.integer]


def write_web_map(
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
    """Write zones, over the imagery that they were made from, as an interactive page.

    Of many zones, outlines are simplified and the smallest are not drawn, which the page then
    says; its legend counts all of them. No page exceeds `MAX_BYTES`.

    Args:
        target: the `.html` to make.
        zones: polygons with the columns of `polygons.add_statistics`, in one frame or several, of
            which one at a time is held.
        imagery: shown under the zones; None to leave it out.
        crs: metric CRS of the zones.
        bounds: extent of the map in that CRS, metres.
        legend: names and colours.
        title: what the map shows.
        credits: attributions and licences for the foot of the page.
        overwrite: replace an existing file.

    Raises:
        OutputError: the target cannot be written, or the disk is full.
    """
    unit = max(bounds.width, bounds.height) / _STEPS
    largest = _Largest(bounds, unit)
    areas, count = np.zeros(len(legend)), 0
    for frame in zones:
        largest.add(frame)
        areas += class_areas(frame, legend)
        count += len(frame)
    drawn, tolerance = largest.for_display()
    page = _page(
        title=title,
        credits=[*credits, f"Projection: {crs.name}"],
        warning=SIMULATED_NOTE if imagery is not None and imagery.info.simulated else "",
        notes=list(_notes(drawn, tolerance, count=count, area=areas.sum())),
        rows=legend_rows(areas, legend),
        total=area_words(areas.sum()),
        image=None if imagery is None else _image(imagery, crs, bounds, unit),
        data={
            "width": bounds.width / unit,
            "height": bounds.height / unit,
            "metres": unit,
            "names": legend.names,
            "colors": [c.color for c in legend.classes],
            "zones": list(_zone_records(drawn, bounds, unit)),
        },
    )
    with atomic_path(target, overwrite=overwrite) as part:
        part.write_text(page, encoding="utf-8", newline="\n")


def _page(**content: Any) -> str:  # noqa: ANN401 - what the template asks for
    """The template with its content and its script, which alone is allowed to run."""
    environment = Environment(
        loader=PackageLoader("geolink", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    script = files("geolink").joinpath("assets", "web_map.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("web_map.html.j2").render(
        script=Markup(script), script_hash=digest, **content
    )


class _Largest:
    """The largest of the zones that pass by, with as many corners as a page may have.

    Shared borders stay shared, however they are simplified.
    """

    def __init__(self, bounds: Bounds, unit: float) -> None:
        self._bounds, self._unit = bounds, unit
        self._held: gpd.GeoDataFrame | None = None
        self._cell = 0  # steps a side of the cells that corners were moved to

    def add(self, zones: gpd.GeoDataFrame) -> None:
        """Take further zones; the first of equals are kept."""
        if self._cell:
            zones = self._moved(zones)
        held = zones if self._held is None else pd.concat([self._held, zones], ignore_index=True)
        self._held = held.sort_values("area_m2", ascending=False, kind="stable").head(MAX_ZONES)
        while _corners(self._held).sum() > _HELD_VERTICES:
            self._coarsen()

    def for_display(self) -> tuple[gpd.GeoDataFrame, float]:
        """The zones that are drawn, largest first, and the tolerance of their outlines, metres."""
        assert self._held is not None  # a table has at least one frame
        tolerance = self._unit * self._cell
        for doubling in range(_DOUBLINGS + 1):
            if _corners(self._held).sum() <= MAX_VERTICES:
                break
            if self._cell:
                self._coarsen()
                tolerance = self._unit * self._cell
            else:
                tolerance = self._unit * _FIRST_TOLERANCE * 2**doubling
                outlines = shapely.coverage_simplify(self._held.geometry.to_numpy(), tolerance)
                self._held = self._held.set_geometry(outlines, crs=self._held.crs)
        return self._held[_corners(self._held).cumsum() <= MAX_VERTICES], tolerance

    def _coarsen(self) -> None:
        assert self._held is not None
        self._cell = 2 * self._cell or _FIRST_CELL
        self._held = self._moved(self._held)

    def _moved(self, zones: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        """Every corner in the middle of its cell, a corner of several zones in the same.

        A middle lies well inside one of the cells that are twice as large, so that zones that were
        moved before and others meet there again.
        """
        side = self._unit * self._cell
        origin = np.array([self._bounds.west, self._bounds.south])
        kind, corners, offsets = shapely.to_ragged_array(zones.geometry.to_numpy())
        corners = (np.floor((corners - origin) / side) + 0.5) * side + origin
        corners, left, kept = _without_repeats(corners, *offsets)
        outlines = shapely.from_ragged_array(kind, corners, left)
        return zones[kept].set_geometry(outlines, crs=zones.crs)


def _without_repeats(
    corners: NDArray[np.float64], rings: Offsets, polygons: Offsets
) -> tuple[NDArray[np.float64], tuple[Offsets, Offsets], NDArray[np.bool_]]:
    """Polygons as ragged arrays without repeated corners, and which of them are left.

    A ring of fewer than three different corners goes, and with its shell a polygon.
    """
    ring_of = np.repeat(np.arange(len(rings) - 1), np.diff(rings))
    new = np.append(True, (corners[1:] != corners[:-1]).any(axis=1))
    new[rings[:-1]] = True
    sizes = np.bincount(ring_of[new], minlength=len(rings) - 1)
    polygon_of = np.repeat(np.arange(len(polygons) - 1), np.diff(polygons))
    kept = sizes[polygons[:-1]] > 3
    alive = (sizes > 3) & kept[polygon_of]
    counts = np.bincount(polygon_of[alive], minlength=len(kept))[kept]
    rings, polygons = (np.append(0, np.cumsum(some)) for some in (sizes[alive], counts))
    return corners[new & alive[ring_of]], (rings, polygons), kept


def _corners(zones: gpd.GeoDataFrame) -> NDArray[np.int64]:
    """(len(zones),) numbers of corners."""
    corners: NDArray[np.int64] = shapely.get_num_coordinates(zones.geometry.to_numpy())
    return corners


def _notes(drawn: gpd.GeoDataFrame, tolerance: float, *, count: int, area: float) -> Iterator[str]:
    """What the drawing leaves out of `count` zones of an area, in sentences."""
    if (left_out := count - len(drawn)) > 0:
        share = 1 - drawn["area_m2"].sum() / area
        yield (
            f"The {left_out:,} smallest of {count:,} zones, {100 * share:.1f} % of the area, "
            "are not drawn; the legend counts them."
        )
    if tolerance > 0:
        yield f"Outlines are simplified: they leave out corners smaller than {tolerance:.0f} m."


def _zone_records(
    zones: gpd.GeoDataFrame, bounds: Bounds, unit: float
) -> Iterator[tuple[int, float | None, float | None, str, list[list[int]]]]:
    """Per zone: class, confidence, OSM gain, area in words, and rings."""
    for geometry, *values in zip(
        zones.geometry,
        zones["class_id"],
        zones["confidence"],
        zones["osm_gain"],
        zones["area_m2"],
        strict=True,
    ):
        label, confidence, gain, area = values
        rings = list(_rings(geometry, bounds, unit))
        yield int(label), _rounded(confidence), _rounded(gain), area_words(area), rings


def _rounded(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def _rings(geometry: Geometry, bounds: Bounds, unit: float) -> Iterator[list[int]]:
    """Each ring as x, y of its first corner and then steps to the next, y down, not closed."""
    for ring in shapely.get_rings(shapely.get_parts(geometry)):
        corners = (shapely.get_coordinates(ring)[:-1] - (bounds.west, bounds.north)) / unit
        steps = np.diff(np.rint(corners * (1, -1)).astype(int), axis=0, prepend=0)
        moves = steps.any(axis=1) | (np.arange(len(steps)) == 0)
        yield steps[moves].ravel().tolist()


def _image(imagery: ImageSource, crs: CRS, bounds: Bounds, unit: float) -> dict[str, Any]:
    """The imagery as base64 JPEG, white where there is none, with its size on the page."""
    gsd = max(bounds.width, bounds.height) / _MAX_SIDE
    height, width = (max(math.ceil(side / gsd - 1e-6), 1) for side in (bounds.height, bounds.width))
    tile = imagery.read(GridSpec(crs, bounds.west, bounds.north, gsd, height, width))
    picture = Image.fromarray(np.where(tile.valid, tile.rgb, 255).transpose(1, 2, 0))
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "jpeg", quality=quality, optimize=True)
        if buffer.tell() <= _MAX_JPEG:
            break
    return {
        "data": base64.b64encode(buffer.getvalue()).decode(),
        "width": width * gsd / unit,
        "height": height * gsd / unit,
        "words": ("Simulated imagery" if imagery.info.simulated else "Imagery") + " of the area",
    }
