"""Tile scores to files: rasters, zones, GeoPackage, preview."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from rasterio.windows import Window

from geolink.files import atomic_path
from geolink.gpkg import write_geopackage
from geolink.grid import Bounds
from geolink.legend import Legend
from geolink.mosaic import TileStore, blend, tile_frame
from geolink.polygons import zone_statistics, zones
from geolink.preview import write_preview
from geolink.rasters import write_class_map, write_probabilities
from geolink.workflows.progress import Progress
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import Scene

# Zone outlines may leave the pixel edges by about this many pixels.
TOLERANCE_PX = 2.0


def write_outputs(
    request: PredictRequest,
    scene: Scene,
    store: TileStore,
    legend: Legend,
    metadata: dict[str, Any],
    out: Path,
    progress: Progress,
) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Writes everything that a request asks for; files appear when all are complete.

    Returns:
        The layers `zones` and `tiles`.
    """
    read = partial(blend, store, scene.plan)
    steps = ["class map", "zones", "statistics", "rasters", "preview", "GeoPackage"]

    def begin(step: str) -> None:
        progress("outputs", steps.index(step), len(steps))

    begin("class map")
    class_map = store.path / "classes.tif"
    tags = {"GEOLINK": json.dumps(metadata, ensure_ascii=False)}
    common: dict[str, Any] = {"legend": legend, "metadata": tags, "overwrite": True}
    write_class_map(class_map, scene.grid, lambda window: read(window).classes, **common)
    begin("zones")
    outlines = zones(
        class_map,
        scene.aoi,
        min_area_m2=request.min_zone_area_m2,
        tolerance_m=TOLERANCE_PX * scene.grid.gsd,
    )
    begin("statistics")
    frame = zone_statistics(outlines, scene.grid, read, legend=legend, entities=scene.entities)
    tiles = tile_frame(store, scene.plan, np.array(scene.tiles))
    with ExitStack() as complete:

        def part(target: Path) -> Path:
            return complete.enter_context(atomic_path(target, overwrite=request.overwrite))

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
            write_preview(
                part(request.preview),
                frame,
                scene.imagery if readable else None,
                bounds=Bounds(*scene.aoi.bounds),
                legend=legend,
                title=metadata["title"],
                credits=credits(metadata),
                overwrite=True,
            )
        begin("GeoPackage")
        write_geopackage(geopackage, frame, tiles, legend=legend, metadata=metadata, overwrite=True)
    progress("outputs", len(steps), len(steps))
    return frame, tiles


def credits(metadata: dict[str, Any]) -> list[str]:
    """One line per source: what, of when, whose, under which licence; then the software."""
    lines = []
    for name, source in (("Imagery", metadata["imagery"]), ("OSM", metadata["osm"])):
        if source:
            parts = (source[key] for key in ("description", "date", "attribution", "licence"))
            lines.append(f"{name}: {', '.join(filter(None, parts))}")
    return [*lines, metadata["software"]]
