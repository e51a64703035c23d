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
import shapely
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from shapely import Geometry

from geolink.files import atomic_path
from geolink.grid import Bounds, GridSpec
from geolink.legend import Legend
from geolink.preview import SIMULATED_NOTE, area_words, legend_rows
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

Polygons = NDArray[np.object_]


def write_web_map(
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
    """Write zones, over the imagery that they were made from, as an interactive page.

    Of many zones, outlines are simplified and the smallest are not drawn, which the page then
    says; its legend counts all of them. No page exceeds `MAX_BYTES`.

    Args:
        target: the `.html` to make.
        zones: polygons in a metric CRS, with the columns of `polygons.add_statistics`.
        imagery: shown under the zones; None to leave it out.
        bounds: extent of the map in the CRS of the zones, metres.
        legend: names and colours.
        title: what the map shows.
        credits: attributions and licences for the foot of the page.
        overwrite: replace an existing file.

    Raises:
        OutputError: the target cannot be written, or the disk is full.
    """
    unit = max(bounds.width, bounds.height) / _STEPS
    drawn, tolerance = _for_display(zones, unit)
    page = _page(
        title=title,
        credits=[*credits, f"Projection: {zones.crs.name}"],
        warning=SIMULATED_NOTE if imagery is not None and imagery.info.simulated else "",
        notes=list(_notes(zones, drawn, tolerance)),
        rows=legend_rows(zones, legend),
        total=area_words(zones["area_m2"].sum()),
        image=None if imagery is None else _image(imagery, zones, bounds, unit),
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


def _for_display(zones: gpd.GeoDataFrame, unit: float) -> tuple[gpd.GeoDataFrame, float]:
    """The zones that are drawn, largest first, and the tolerance that they were simplified with.

    Shared borders stay shared.
    """
    drawn = zones.sort_values("area_m2", ascending=False, kind="stable").head(MAX_ZONES)
    outlines: Polygons = drawn.geometry.to_numpy()
    tolerance = 0.0
    for doubling in range(_DOUBLINGS + 1):
        if shapely.get_num_coordinates(outlines).sum() <= MAX_VERTICES:
            break
        tolerance = unit * _FIRST_TOLERANCE * 2**doubling
        outlines = shapely.coverage_simplify(outlines, tolerance)
    fits = shapely.get_num_coordinates(outlines).cumsum() <= MAX_VERTICES
    return drawn.set_geometry(outlines, crs=zones.crs)[fits], tolerance


def _notes(zones: gpd.GeoDataFrame, drawn: gpd.GeoDataFrame, tolerance: float) -> Iterator[str]:
    """What the drawing leaves out, in sentences."""
    if (count := len(zones) - len(drawn)) > 0:
        share = 1 - drawn["area_m2"].sum() / zones["area_m2"].sum()
        yield (
            f"The {count:,} smallest of {len(zones):,} zones, {100 * share:.1f} % of the area, "
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


def _image(
    imagery: ImageSource, zones: gpd.GeoDataFrame, bounds: Bounds, unit: float
) -> dict[str, Any]:
    """The imagery as base64 JPEG, white where there is none, with its size on the page."""
    gsd = max(bounds.width, bounds.height) / _MAX_SIDE
    height, width = (max(math.ceil(side / gsd - 1e-6), 1) for side in (bounds.height, bounds.width))
    tile = imagery.read(GridSpec(zones.crs, bounds.west, bounds.north, gsd, height, width))
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
