"""`geolink finetune`: labels in, a model for their task out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from geolink_cli import options
from geolink_cli.messages import show
from geolink_cli.summaries import finetuning_table
from geolink_cli.training_view import training_view

LABELS, TILES, LEARNING = "Labels", "Tiles", "Learning"


class Task(StrEnum):
    """What the labels answer."""

    segment = "segment"
    classify = "classify"
    regress = "regress"
    change = "change"


class Mode(StrEnum):
    """Which weights learn."""

    frozen = "frozen"
    full = "full"
    lora = "lora"


class Appearance(StrEnum):
    """How much the look of images changes from one epoch to the next."""

    mild = "mild"
    mixed = "mixed"
    strong = "strong"


class Weighting(StrEnum):
    """How much rare classes weigh."""

    none = "none"
    sqrt = "sqrt"
    inverse = "inverse"


def finetune(
    task: Annotated[
        Task, typer.Option(help="What the labels answer.", rich_help_panel=LABELS)
    ] = Task.segment,
    city: options.CityOpt = None,
    bbox: options.BboxOpt = None,
    aoi: options.AoiOpt = None,
    boundary: options.BoundaryOpt = None,
    cities: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Several cities.", rich_help_panel="Place"),
    ] = None,
    extract: options.ExtractOpt = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of labelled pictures, not a place.", rich_help_panel=LABELS
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
    gsd: Annotated[
        list[float] | None,
        typer.Option(
            metavar="M", help="Metres per pixel of tiles; repeatable.", rich_help_panel=TILES
        ),
    ] = None,
    tile_side: Annotated[
        int, typer.Option(metavar="PX", help="Side of a tile.", rich_help_panel=TILES)
    ] = 224,
    tiles: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tiles per place, scale and look, at most.", rich_help_panel=TILES
        ),
    ] = None,
    looks: Annotated[
        int, typer.Option(min=1, help="Looks of simulated imagery.", rich_help_panel=TILES)
    ] = 1,
    keep_samples: Annotated[
        bool,
        typer.Option(
            "--keep-samples", help="Keep cut tiles for later epochs.", rich_help_panel=TILES
        ),
    ] = False,
    accept_imagery_terms: options.TermsOpt = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Run folder, which --model takes.")
    ] = Path("finetuned"),
    mode: Annotated[
        Mode, typer.Option(help="Which weights learn.", rich_help_panel=LEARNING)
    ] = Mode.full,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="blocks, random, or a saved split.", rich_help_panel=LEARNING
        ),
    ] = None,
    test_cities: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Cities to test on.", rich_help_panel=LEARNING),
    ] = None,
    validation_cities: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Cities to validate on.", rich_help_panel=LEARNING),
    ] = None,
    block: Annotated[
        float | None,
        typer.Option(metavar="M", help="Side of the blocks, metres.", rich_help_panel=LEARNING),
    ] = None,
    least_labelled: Annotated[
        float,
        typer.Option(
            help="Share of a training tile that must be labelled.", rich_help_panel=LEARNING
        ),
    ] = 0.0,
    most_uniform: Annotated[
        float,
        typer.Option(help="Share of its labels that may be one class.", rich_help_panel=LEARNING),
    ] = 1.0,
    fraction: Annotated[
        float, typer.Option(help="Share of the training samples.", rich_help_panel=LEARNING)
    ] = 1.0,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Default as in the paper.", rich_help_panel=LEARNING),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Default as in the paper.", rich_help_panel=LEARNING),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(
            metavar="R,R,...|grid",
            help="Learning rates; the best of several is kept. `grid`: the paper's.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    encoder_rate: Annotated[
        float, typer.Option(help="Rate of the encoders, relative.", rich_help_panel=LEARNING)
    ] = 0.01,
    class_weights: Annotated[
        Weighting, typer.Option(help="Weight of rare classes.", rich_help_panel=LEARNING)
    ] = Weighting.none,
    focal: Annotated[
        float, typer.Option(help="Exponent of the focal loss.", rich_help_panel=LEARNING)
    ] = 0.0,
    lora_rank: Annotated[
        int, typer.Option(min=1, help="Rank of LoRA's changes.", rich_help_panel=LEARNING)
    ] = 8,
    paint_objects: Annotated[
        bool,
        typer.Option(
            "--paint-objects",
            help="Patches take the objects that lie in them.",
            rich_help_panel=LEARNING,
        ),
    ] = False,
    patience: Annotated[
        int, typer.Option(min=0, help="Epochs without gain; 0: no end.", rich_help_panel=LEARNING)
    ] = 10,
    augment: Annotated[
        bool, typer.Option(help="Turn, colour and hide OSM.", rich_help_panel=LEARNING)
    ] = True,
    appearance: Annotated[
        Appearance, typer.Option(help="How much looks change.", rich_help_panel=LEARNING)
    ] = Appearance.mild,
    drop_osm: Annotated[
        float, typer.Option(help="Share of samples without OSM.", rich_help_panel=LEARNING)
    ] = 0.15,
    drop_image: Annotated[
        float, typer.Option(help="Share of samples with a blank image.", rich_help_panel=LEARNING)
    ] = 0.0,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that prepare data.", rich_help_panel=LEARNING)
    ] = 2,
    save_every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps between saved states; default: an epoch.", rich_help_panel=LEARNING
        ),
    ] = None,
    half: Annotated[
        bool,
        typer.Option("--half", help="Store weights as float16.", rich_help_panel=LEARNING),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run.", rich_help_panel=LEARNING)
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
    """Trains a model for a task on your labels, or on OSM's own zones.

    Labels are polygons or a class raster of a place, a table of numbers of its cells, `osm`, or a
    folder of pictures: a folder per class; img/ and label/; A/, B/ and label/ for change; or
    values.csv for numbers. The result is a run folder that predict and evaluate take as --model.
    Under torchrun, the batch is shared by all processes.

    Examples:
        geolink finetune --city sample --labels osm --epochs 5 --out helsinki
        geolink finetune --imagery ortho.tif --osm town.osm.pbf --labels landuse.gpkg --mode lora
        geolink finetune --task regress --imagery ortho.tif --labels cells.csv --label-column pop
        geolink finetune --task classify --data scenes --rates grid
    """
    from geolink.training.finetuning import FinetuneSettings
    from geolink.training.labelled import Variation
    from geolink.workflows import finetune as workflow
    from geolink.workflows.cutting import Cutting
    from geolink.workflows.finetune_request import RATE_GRIDS, FinetuneRequest

    request = FinetuneRequest(
        task=task.value,
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
        gsd=gsd[0] if gsd and len(gsd) == 1 else None,
        cutting=Cutting(tuple(gsd) if gsd and len(gsd) > 1 else (), looks, tiles, tile_side),
        keep_samples=keep_samples,
        accept_imagery_terms=accept_imagery_terms,
        out=out,
        learning=FinetuneSettings(
            mode.value,
            encoder_rate,
            class_weights.value,
            focal,
            lora_rank=lora_rank,
            paint_objects=paint_objects,
        ),
        split=split or "",
        block_m=block,
        test_cities=options.parse_names(test_cities),
        validation_cities=options.parse_names(validation_cities),
        least_labelled=least_labelled,
        most_uniform=most_uniform,
        fraction=fraction,
        epochs=epochs,
        batch_size=batch_size,
        rates=RATE_GRIDS[task.value] if rates == "grid" else options.parse_numbers(rates),
        patience=patience,
        variation=Variation(appearance=appearance.value, no_osm=drop_osm, no_image=drop_image)
        if augment
        else None,
        workers=workers,
        save_every=save_every,
        half=half,
        resume=resume,
        device=device.value,
        offline=offline,
        overwrite=overwrite,
        seed=seed,
    )
    with training_view() as view:
        result = workflow.finetune(request, view.progress, view.watch)
    if result.test:  # under torchrun, process 0 has measured
        show(result.to_dict(), finetuning_table(result), result.summary, as_json=as_json)
