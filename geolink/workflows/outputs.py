"""Tile scores to files: rasters, zones, GeoPackage, preview."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from rasterio.windows import Window

from geolink.arcs import MAX_TOLERANCE_PX
from geolink.files import atomic_path, full_disk_named, scratch_beside
from geolink.gpkg import METADATA_ITEM, json_text, write_geopackage
from geolink.grid import Bounds, PixelWindow
from geolink.legend import Legend
from geolink.mosaic import Blend, TileStore, blend, tile_frame
from geolink.polygons import add_statistics, find_zones
from geolink.preview import write_preview
from geolink.rasters import keep_classes, write_class_map, write_probabilities
from geolink.web_map import write_web_map
from geolink.workflows.progress import Progress
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import Scene
from geolink.workflows.work_folder import may_replace, note_outputs
from geolink.zone_table import ZoneTable

# GDAL keeps blocks of rasters in memory, a share of all there is unless it is told; bytes.
GDAL_CACHE = 32_000_000

_STEPS = ("class map", "zones", "statistics", "rasters", "preview", "GeoPackage")


@dataclass(frozen=True)
class ScoredMap:
    """A map whose tiles have been scored, but that is not drawn yet.

    Attributes:
        request: what is asked for.
        scene: the place.
        store: scores of its tiles.
        legend: the classes.
        metadata: of the map, as plain data.
    """

    request: PredictRequest
    scene: Scene
    store: TileStore
    legend: Legend
    metadata: dict[str, Any]

    def read(self, window: PixelWindow) -> Blend:
        """The blended scores of a part of the grid."""
        return blend(self.store, self.scene.plan, window)


def write_outputs(
    scored: ScoredMap, out: Path, progress: Progress
) -> tuple[pd.DataFrame, gpd.GeoDataFrame]:
    """Writes everything that a request asks for; files appear when all are complete.

    Returns:
        Class, confidence, area and gain of each zone, and the layer `tiles`.
    """
    store, scene = scored.store, scored.scene

    def begin(step: str) -> None:
        progress("outputs", _STEPS.index(step), len(_STEPS))

    with (
        full_disk_named(out),
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE),
        scratch_beside(store.path / "zones.sqlite") as folder,
        ZoneTable(folder / "zones.sqlite", scene.grid.crs) as zones,
    ):
        class_map = store.path / "classes.tif"
        begin("class map")
        keep_classes(class_map, scene.grid, lambda window: scored.read(window).classes)
        _fill(zones, scored, class_map, begin)
        tiles = tile_frame(store, scene.plan, np.array(scene.tiles))
        _write(zones, tiles, scored, class_map, out, begin)
        progress("outputs", len(_STEPS), len(_STEPS))
        return zones.figures(), tiles


def _fill(
    zones: ZoneTable, scored: ScoredMap, class_map: Path, begin: Callable[[str], None]
) -> None:
    """Puts the zones of a class map into a table, with what is known of them."""
    scene = scored.scene
    begin("zones")
    find_zones(
        class_map,
        scene.aoi,
        zones,
        min_area_m2=scored.request.min_zone_area_m2,
        tolerance_m=MAX_TOLERANCE_PX * scene.grid.gsd,
    )
    begin("statistics")
    add_statistics(zones, scene.grid, scored.read, legend=scored.legend, entities=scene.osm)


def _write(
    zones: ZoneTable,
    tiles: gpd.GeoDataFrame,
    scored: ScoredMap,
    class_map: Path,
    out: Path,
    begin: Callable[[str], None],
) -> None:
    """Writes the files of a map, which all appear at the end."""
    request, legend, metadata = scored.request, scored.legend, scored.metadata
    written: dict[Path, Path] = {}
    with ExitStack() as complete:

        def part(target: Path) -> Path:
            overwrite = may_replace(request, out, target)
            written[target] = complete.enter_context(atomic_path(target, overwrite=overwrite))
            return written[target]

        geopackage = part(out)  # entered first, so it appears last
        begin("rasters")
        if request.raster:
            _write_class_map(part(request.raster), scored, class_map)
        if request.probabilities:
            write_probabilities(
                part(request.probabilities), scored.scene.grid, scored.read, **_of_rasters(scored)
            )
        begin("preview")
        if request.preview:
            readable = not (tiles["status"] == "failed").any()
            _draw(part(request.preview), zones, scored, readable=readable)
        begin("GeoPackage")
        write_geopackage(
            geopackage, zones.frames(), tiles, legend=legend, metadata=metadata, overwrite=True
        )
        note_outputs(out, written)


def _write_class_map(target: Path, scored: ScoredMap, class_map: Path) -> None:
    with rasterio.open(class_map) as classes:  # blended already
        write_class_map(
            target,
            scored.scene.grid,
            lambda window: classes.read(1, window=Window.from_slices(*window.slices)),
            **_of_rasters(scored),
        )


def _of_rasters(scored: ScoredMap) -> dict[str, Any]:
    """What all rasters of a map have in common."""
    return {
        "legend": scored.legend,
        "metadata": {METADATA_ITEM: json_text(scored.metadata)},
        "overwrite": True,
        "area": scored.scene.aoi,
    }


def _draw(target: Path, zones: ZoneTable, scored: ScoredMap, *, readable: bool) -> None:
    """Draws the map as a picture or a page; over the image, where that can be read."""
    scene = scored.scene
    is_page = target.suffix.lower() == ".html"
    draw = write_web_map if is_page else write_preview
    draw(
        target,
        zones.frames(),
        scene.imagery if readable else None,
        crs=scene.grid.crs,
        bounds=Bounds(*scene.aoi.bounds),
        legend=scored.legend,
        title=scored.metadata["title"],
        credits=credits(scored.metadata),
        overwrite=True,
    )


def credits(metadata: dict[str, Any]) -> list[str]:
    """One line per source: what, of when, whose, under which licence; then the software."""
    lines = []
    for name, source in (("Imagery", metadata["imagery"]), ("OSM", metadata["osm"])):
        if source:
            parts = (source[key] for key in ("description", "date", "attribution", "licence"))
            lines.append(f"{name}: {', '.join(filter(None, parts))}")
    return [*lines, metadata["software"]]
