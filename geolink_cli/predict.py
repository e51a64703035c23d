"""`geolink predict`: a place name in, a styled GeoPackage of its zones out."""

from pathlib import Path
from typing import Annotated

import typer

from geolink_cli import options
from geolink_cli.messages import EXIT_INCOMPLETE, progress_bars, show
from geolink_cli.summaries import plan_table, zone_table

OUTPUTS, TILING = "Outputs", "Tiling and zones"


def predict(
    city: options.CityOpt = None,
    bbox: options.BboxOpt = None,
    aoi: options.AoiOpt = None,
    boundary: options.BoundaryOpt = None,
    imagery: options.ImageryOpt = None,
    osm: options.OsmOpt = None,
    model: options.ModelOpt = "geolink-tiny",
    bands: options.BandsOpt = None,
    no_osm: Annotated[
        bool,
        typer.Option(
            "--no-osm", help="Imagery alone, same as --osm none.", rich_help_panel="Sources"
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="GeoPackage to write; default PLACE.gpkg.", rich_help_panel=OUTPUTS),
    ] = None,
    raster: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tif", help="Class map as COG.", rich_help_panel=OUTPUTS),
    ] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tif", help="Probabilities as COG.", rich_help_panel=OUTPUTS),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Map as a picture (.png) or an interactive page (.html).",
            rich_help_panel=OUTPUTS,
        ),
    ] = None,
    gsd: options.GsdOpt = None,
    accept_imagery_terms: options.TermsOpt = None,
    overlap: Annotated[
        float,
        typer.Option(min=0.0, max=0.5, help="Share of a tile.", rich_help_panel=TILING),
    ] = 0.25,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Tiles per model call.", rich_help_panel=TILING)
    ] = 8,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Threads that prepare tiles; 0: none.", rich_help_panel=TILING),
    ] = 2,
    processes: Annotated[
        bool,
        typer.Option(
            "--processes",
            help="Prepare tiles in processes, not threads: for a GPU.",
            rich_help_panel=TILING,
        ),
    ] = False,
    min_zone_area: Annotated[
        float,
        typer.Option(min=0.0, metavar="M2", help="Smallest zone.", rich_help_panel=TILING),
    ] = 500.0,
    resume: Annotated[
        bool, typer.Option(help="Go on with an interrupted run.", rich_help_panel=TILING)
    ] = True,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDR",
            help="A dask scheduler whose workers score the tiles: tcp://HOST:8786 or tls://...",
            rich_help_panel=TILING,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan only.", rich_help_panel=OUTPUTS)
    ] = False,
    device: options.DeviceOpt = options.Device.auto,
    offline: options.OfflineOpt = False,
    overwrite: options.OverwriteOpt = False,
    seed: options.SeedOpt = 0,
    as_json: options.JsonOpt = False,
    config: options.ConfigOpt = None,
    verbose: options.VerboseOpt = 0,
    quiet: options.QuietOpt = False,
    debug: options.DebugOpt = False,
) -> None:
    """Maps the functional zones of a place.

    Give a place (--city, --bbox or --aoi), or only --imagery FILE to map the whole raster. What is
    not here is fetched once and kept: OSM of the place, Sentinel-2 unless other imagery is named,
    the model. The result is a GeoPackage in the place's UTM zone that QGIS opens coloured, with a
    legend.

    Examples:
        geolink predict --city sample
        geolink predict --city singapore
        geolink predict --imagery ortho.tif --osm extract.osm.pbf --preview map.png
    """
    from geolink.workflows import predict as workflow
    from geolink.workflows.request import PredictRequest

    request = PredictRequest(
        city=city,
        bbox=options.parse_bbox(bbox),
        aoi=aoi,
        boundary=boundary,
        imagery=imagery,
        osm=options.osm_spec(osm, no_osm=no_osm),
        model=model,
        bands=options.parse_bands(bands),
        out=out,
        raster=raster,
        probabilities=probabilities,
        preview=preview,
        gsd=gsd,
        accept_imagery_terms=accept_imagery_terms,
        overlap=overlap,
        batch_size=batch_size,
        workers=workers,
        processes=processes,
        min_zone_area_m2=min_zone_area,
        resume=resume,
        device=device.value,
        offline=offline,
        overwrite=overwrite,
        seed=seed,
        scheduler=scheduler,
    )
    if dry_run:
        plan = workflow.plan(request)
        show(plan.to_dict(), plan_table(plan), plan.summary, as_json=as_json)
        return
    with progress_bars() as progress:
        result = workflow.predict(request, progress)
    show(result.to_dict(), zone_table(result), result.summary, as_json=as_json)
    if result.tiles.get("failed"):
        raise typer.Exit(EXIT_INCOMPLETE)
