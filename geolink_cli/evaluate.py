"""`geolink evaluate`: a model and labelled data in, figures with intervals and a report out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from geolink_cli import options
from geolink_cli.evaluations import difference_table, figure_table
from geolink_cli.finetune import Mode, Task
from geolink_cli.messages import EXIT_BELOW, progress_bars, show

PROTOCOL, ROBUST, OUTPUTS = "Protocol", "Disturbances", "Outputs"


class Protocol(StrEnum):
    """How a model is measured."""

    segment = "segment"
    knn = "knn"
    linear = "linear"
    finetune = "finetune"
    regress = "regress"
    change = "change"


def _disturbance(metavar: str, words: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        metavar=metavar, help=words, rich_help_panel=ROBUST
    )
    return option


def evaluate(
    city: options.CityOpt = None,
    bbox: options.BboxOpt = None,
    aoi: options.AoiOpt = None,
    boundary: options.BoundaryOpt = None,
    cities: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Several places.", rich_help_panel="Place"),
    ] = None,
    extract: options.ExtractOpt = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder of labelled pictures.", rich_help_panel="Labels"
        ),
    ] = None,
    labels: options.LabelsOpt = None,
    label_column: options.LabelColumnOpt = None,
    label_mapping: options.LabelMappingOpt = None,
    ignore: options.IgnoreOpt = None,
    imagery: options.ImageryOpt = None,
    osm: options.OsmOpt = None,
    model: options.ModelOpt = "geolink-tiny",
    bands: options.BandsOpt = None,
    gsd: options.GsdOpt = None,
    accept_imagery_terms: options.TermsOpt = None,
    protocol: Annotated[
        Protocol, typer.Option(help="How the model is measured.", rich_help_panel=PROTOCOL)
    ] = Protocol.segment,
    task: Annotated[
        Task, typer.Option(help="What to fine-tune to.", rich_help_panel=PROTOCOL)
    ] = Task.segment,
    seeds: Annotated[int, typer.Option(min=1, help="Runs.", rich_help_panel=PROTOCOL)] = 1,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="Parts, where something is learned: blocks, random, or a saved split.",
            rich_help_panel=PROTOCOL,
        ),
    ] = None,
    fraction: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of training samples.", rich_help_panel=PROTOCOL),
    ] = 1.0,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of fine-tuning; default as in the paper.", rich_help_panel=PROTOCOL
        ),
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Which weights fine-tuning changes.", rich_help_panel=PROTOCOL)
    ] = Mode.full,
    boundary_distances: Annotated[
        str, typer.Option(metavar="M,M,...", help="Tolerances.", rich_help_panel=PROTOCOL)
    ] = "3,10",
    block_side: Annotated[
        float,
        typer.Option(min=1.0, metavar="M", help="Spatial blocks.", rich_help_panel=PROTOCOL),
    ] = 250.0,
    draws: Annotated[
        int,
        typer.Option(
            min=1, help="Resamples of blocks that intervals come from.", rich_help_panel=PROTOCOL
        ),
    ] = 1000,
    min_zone_area: Annotated[
        float,
        typer.Option(min=0.0, metavar="M2", help="Smallest zone.", rich_help_panel=PROTOCOL),
    ] = 500.0,
    osm_dropout: Annotated[
        str | None,
        _disturbance("S,S,...", "Objects missing: 0.5, polygon, building=*, or building=*:0.5."),
    ] = None,
    osm_shift: Annotated[str | None, _disturbance("M,M,...", "Objects out of place.")] = None,
    osm_retag: Annotated[str | None, _disturbance("S,S,...", "Objects with wrong tags.")] = None,
    blur: Annotated[str | None, _disturbance("M,M,...", "Image out of focus.")] = None,
    colour: Annotated[str | None, _disturbance("S,S,...", "Image in other colours.")] = None,
    cloud: Annotated[str | None, _disturbance("S,S,...", "Image under cloud.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Record, page, pictures.", rich_help_panel=OUTPUTS),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=VALUE", help="Exit with 5 below it.", rich_help_panel=OUTPUTS),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A.json B.json", help="Compare two reports only.", rich_help_panel=OUTPUTS
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Samples per model call.", rich_help_panel="Common")
    ] = 8,
    workers: Annotated[
        int, typer.Option(min=0, help="Threads that prepare tiles.", rich_help_panel="Common")
    ] = 2,
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
    """Measures a model on labelled data, with intervals.

    Give a place with --labels (polygons, a class raster, or `osm` for OSM's own zones), or a folder
    of labelled pictures with --data. With --protocol finetune and several places (--cities,
    --extract), a model is fine-tuned in each and measured in all. --compare shows the difference of
    two reports instead.

    Examples:
        geolink evaluate --city sample --labels osm --report report
        geolink evaluate --city sample --labels osm --osm-dropout 0.2,0.5
        geolink evaluate --data scenes/ --protocol knn --model geolink-tiny
        geolink evaluate --extract a.osm.pbf --extract b.osm.pbf --labels osm --protocol finetune
        geolink evaluate --imagery a.tif --labels b.gpkg --fail-under miou=0.5
        geolink evaluate --compare old/report.json new/report.json
    """
    from geolink.workflows import evaluate as workflow
    from geolink.workflows.evaluation_request import EvaluateRequest

    if compare is not None:
        found = workflow.compare_reports(*compare)
        table = difference_table(found, classes=verbose > 0)
        show(found.to_dict(), table, found.summary, as_json=as_json)
        return
    request = EvaluateRequest(
        city=city,
        bbox=options.parse_bbox(bbox),
        aoi=aoi,
        boundary=boundary,
        cities=options.parse_names(cities),
        extracts=tuple(extract or ()),
        data=data,
        labels=labels,
        column=label_column,
        mapping=label_mapping,
        ignore=options.parse_names(ignore),
        imagery=imagery,
        osm=osm,
        model=model,
        bands=options.parse_bands(bands),
        gsd=gsd,
        accept_imagery_terms=accept_imagery_terms,
        protocol=protocol.value,
        task=task.value,
        seeds=seeds,
        split=split or "",
        fraction=fraction,
        epochs=epochs,
        mode=mode.value,
        distances_m=options.parse_numbers(boundary_distances),
        block_m=block_side,
        draws=draws,
        min_zone_area_m2=min_zone_area,
        osm_dropout=options.parse_names(osm_dropout),
        osm_shift=options.parse_numbers(osm_shift),
        osm_retag=options.parse_numbers(osm_retag),
        blur=options.parse_numbers(blur),
        colour=options.parse_numbers(colour),
        cloud=options.parse_numbers(cloud),
        report=report,
        fail_under=tuple(fail_under or ()),
        batch_size=batch_size,
        workers=workers,
        device=device.value,
        offline=offline,
        overwrite=overwrite,
        seed=seed,
    )
    with progress_bars() as progress:
        result = workflow.evaluate(request, progress)
    show(result.to_dict(), figure_table(result.report), result.summary, as_json=as_json)
    if result.missed:
        raise typer.Exit(EXIT_BELOW)
