"""`geolink fetch`: what a map needs into the cache, and a look after the cache."""

from typing import Annotated

import typer

from geolink_cli import options
from geolink_cli.messages import progress_bars, show
from geolink_cli.summaries import entry_table, plan_table

CACHE = "Cache"


def fetch(
    city: options.CityOpt = None,
    bbox: options.BboxOpt = None,
    aoi: options.AoiOpt = None,
    boundary: options.BoundaryOpt = None,
    imagery: options.ImageryOpt = None,
    osm: options.OsmOpt = None,
    model: options.ModelOpt = "geolink-tiny",
    bands: options.BandsOpt = None,
    gsd: options.GsdOpt = None,
    accept_imagery_terms: options.TermsOpt = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be fetched.", rich_help_panel=CACHE),
    ] = False,
    listing: Annotated[
        bool, typer.Option("--list", help="Show the cache.", rich_help_panel=CACHE)
    ] = False,
    remove: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Delete an entry, or all of a place.", rich_help_panel=CACHE
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check all hashes.", rich_help_panel=CACHE)
    ] = False,
    offline: options.OfflineOpt = False,
    overwrite: options.OverwriteOpt = False,
    as_json: options.JsonOpt = False,
    config: options.ConfigOpt = None,
    verbose: options.VerboseOpt = 0,
    quiet: options.QuietOpt = False,
    debug: options.DebugOpt = False,
) -> None:
    """Fetches what the map of a place needs, so that `predict` runs without the network.

    With --city, local files given as --imagery and --osm are registered under that name; a box or
    an area file beside it is what the name then stands for. What was interrupted goes on.

    Examples:
        geolink fetch --city singapore
        geolink fetch --city singapore --imagery sentinel2:2025-01-01/2025-06-30 --dry-run
        geolink fetch --city harbour --imagery ortho.tif --osm extract.osm.pbf
        geolink fetch --list
    """
    from geolink.workflows import fetch as workflow
    from geolink.workflows.request import FetchRequest

    if listing or verify or remove is not None:
        result = workflow.look_after(remove=remove, verify=verify)
    else:
        request = FetchRequest(
            city=city,
            bbox=options.parse_bbox(bbox),
            aoi=aoi,
            boundary=boundary,
            imagery=imagery,
            osm=osm,
            model=model,
            bands=options.parse_bands(bands),
            gsd=gsd,
            accept_imagery_terms=accept_imagery_terms,
            offline=offline,
            overwrite=overwrite,
        )
        if dry_run:
            plan = workflow.plan(request)
            show(plan.to_dict(), plan_table(plan), plan.summary, as_json=as_json)
            return
        with progress_bars() as progress:
            result = workflow.fetch(request, progress)
    show(result.to_dict(), entry_table(result), result.summary, as_json=as_json)
