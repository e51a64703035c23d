"""Tile scores to files: rasters, zones, GeoPackage, preview."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from rasterio.windows import Window

from geolink.files import atomic_path, full_disk_named, scratch_beside
from geolink.gpkg import METADATA_ITEM, json_text, write_geopackage
from geolink.grid import Bounds
from geolink.legend import Legend
from geolink.mosaic import TileStore, blend, tile_frame
from geolink.outlines import MAX_TOLERANCE_PX
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


def write_outputs(
    request: PredictRequest,
    scene: Scene,
    store: TileStore,
    legend: Legend,
    metadata: dict[str, Any],
    out: Path,
    progress: Progress,
) -> tuple[pd.DataFrame, gpd.GeoDataFrame]:
    """Writes everything that a request asks for; files appear when all are complete.

    Returns:
        Class, confidence, area and gain of each zone, and the layer `tiles`.
    """
    with (
        full_disk_named(out),
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE),
        scratch_beside(store.path / "zones.sqlite") as folder,
        ZoneTable(folder / "zones.sqlite", scene.grid.crs) as zones,
    ):
        return _write_with(zones, request, scene, store, legend, metadata, out, progress)


def _write_with(
    zones: ZoneTable,
    request: PredictRequest,
    scene: Scene,
    store: TileStore,
    legend: Legend,
    metadata: dict[str, Any],
    out: Path,
    progress: Progress,
) -> tuple[pd.DataFrame, gpd.GeoDataFrame]:
    """As `write_outputs`, with an empty table for the zones."""
    read = partial(blend, store, scene.plan)
    steps = ["class map", "zones", "statistics", "rasters", "preview", "GeoPackage"]

    def begin(step: str) -> None:
        progress("outputs", steps.index(step), len(steps))

    begin("class map")
    class_map = store.path / "classes.tif"
    tags = {METADATA_ITEM: json_text(metadata)}
    common: dict[str, Any] = {"legend": legend, "metadata": tags, "overwrite": True}
    keep_classes(class_map, scene.grid, lambda window: read(window).classes)
    begin("zones")
    find_zones(
        class_map,
        scene.aoi,
        zones,
        min_area_m2=request.min_zone_area_m2,
        tolerance_m=MAX_TOLERANCE_PX * scene.grid.gsd,
    )
    begin("statistics")
    add_statistics(zones, scene.grid, read, legend=legend, entities=scene.osm)
    tiles = tile_frame(store, scene.plan, np.array(scene.tiles))
    written: dict[Path, Path] = {}
    with ExitStack() as complete:

        def part(target: Path) -> Path:
            overwrite = may_replace(request, out, target)
            written[target] = complete.enter_context(atomic_path(target, overwrite=overwrite))
            return written[target]

        geopackage = part(out)  # entered first, so it appears last
        begin("rasters")
        common["area"] = scene.aoi
        if request.raster:
            with rasterio.open(class_map) as classes:  # blended already
                write_class_map(
                    part(request.raster),
                    scene.grid,
                    lambda window: classes.read(1, window=Window.from_slices(*window.slices)),
                    **common,
                )
        if request.probabilities:
            write_probabilities(part(request.probabilities), scene.grid, read, **common)
        begin("preview")
        if request.preview:
            readable = not (tiles["status"] == "failed").any()
            is_page = request.preview.suffix.lower() == ".html"
            draw = write_web_map if is_page else write_preview
            draw(
                part(request.preview),
                zones.frames(),
                scene.imagery if readable else None,
                crs=scene.grid.crs,
                bounds=Bounds(*scene.aoi.bounds),
                legend=legend,
                title=metadata["title"],
                credits=credits(metadata),
                overwrite=True,
            )
        begin("GeoPackage")
        write_geopackage(
            geopackage, zones.frames(), tiles, legend=legend, metadata=metadata, overwrite=True
        )
        note_outputs(out, written)
    progress("outputs", len(steps), len(steps))
    return zones.figures(), tiles


def credits(metadata: dict[str, Any]) -> list[str]:
    """One line per source: what, of when, whose, under which licence; then the software."""
    lines = []
    for name, source in (("Imagery", metadata["imagery"]), ("OSM", metadata["osm"])):
        if source:
            parts = (source[key] for key in ("description", "date", "attribution", "licence"))
            lines.append(f"{name}: {', '.join(filter(None, parts))}")
    return [*lines, metadata["software"]]
