"""`geolink pretrain`: images and OpenStreetMap in, the weights of a model's encoders out."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from geolink_cli import options
from geolink_cli.messages import show
from geolink_cli.training_view import training_view

DATA, MODEL, TRAINING = "Data", "Model and objectives", "Training"


class ModelSize(StrEnum):
    """Size of the image encoder, a ViT."""

    tiny = "tiny"
    small = "small"
    base = "base"
    large = "large"


class Profile(StrEnum):
    """The paper's method with its corrections, or what the released code does."""

    geolink = "geolink"
    released = "released"


class TagEncoder(StrEnum):
    """What turns tags into vectors: a bundled table, or a text model."""

    table = "table"
    minilm = "minilm"
    clip = "clip"


class Strategy(StrEnum):
    """How processes share the model."""

    auto = "auto"
    fsdp = "fsdp"


def pretrain(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Run folder.", rich_help_panel=DATA)],
    images: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="Shards, here or at an address; or a folder of rasters, or of pictures with a "
            "bounding box.",
            rich_help_panel=DATA,
        ),
    ] = None,
    imagery: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="A raster or folder, simulated, sentinel2[:START/END], "
            "stac:URL#COLLECTION/ASSETS, or xyz:TEMPLATE@ZOOM; repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    osm: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="OSM of the images; repeatable.", rich_help_panel=DATA),
    ] = None,
    gsd: Annotated[
        list[float] | None,
        typer.Option(
            metavar="M", help="Metres per pixel of tiles; repeatable.", rich_help_panel=DATA
        ),
    ] = None,
    accept_imagery_terms: Annotated[
        str | None,
        typer.Option(
            metavar="NOTE",
            help="The licence under which you use map tiles, in words.",
            rich_help_panel=DATA,
        ),
    ] = None,
    tiles: Annotated[
        int | None,
        typer.Option(min=1, help="Simulated tiles per extract, at most.", rich_help_panel=DATA),
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Pictures in a folder per class, for a kNN probe.",
            rich_help_panel=DATA,
        ),
    ] = None,
    model_size: Annotated[
        ModelSize, typer.Option(help="Size of the ViT.", rich_help_panel=MODEL)
    ] = ModelSize.tiny,
    image_size: Annotated[
        int, typer.Option(min=32, metavar="PX", help="Side of an image.", rich_help_panel=MODEL)
    ] = 224,
    profile: Annotated[
        Profile,
        typer.Option(help="Paper with corrections, or released code.", rich_help_panel=MODEL),
    ] = Profile.geolink,
    tag_encoder: Annotated[
        TagEncoder | None,
        typer.Option(
            help="What turns tags into vectors; default table, clip for the released profile.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    reconstruction: Annotated[
        float, typer.Option(min=0, help="Weight; 0 switches it off.", rich_help_panel=MODEL)
    ] = 1.0,
    contrast: Annotated[
        float, typer.Option(min=0, help="Weight; 0 switches it off.", rich_help_panel=MODEL)
    ] = 0.01,
    consistency: Annotated[
        float, typer.Option(min=0, help="Weight; 0 switches it off.", rich_help_panel=MODEL)
    ] = 0.01,
    mask_patches: Annotated[
        float, typer.Option(help="Share of patches that are masked.", rich_help_panel=MODEL)
    ] = 0.75,
    mask_nodes: Annotated[
        float, typer.Option(help="Share of OSM nodes that are masked.", rich_help_panel=MODEL)
    ] = 0.2,
    temperature: Annotated[
        float, typer.Option(help="Of the contrast.", rich_help_panel=MODEL)
    ] = 0.2,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the data.", rich_help_panel=TRAINING)
    ] = 60,
    batch_size: Annotated[
        int,
        typer.Option(min=1, help="Samples per step, over all processes.", rich_help_panel=TRAINING),
    ] = 256,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts of a step per process.", rich_help_panel=TRAINING)
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option(help="Peak rate for a batch of 256.", rich_help_panel=TRAINING)
    ] = 1e-4,
    warmup_epochs: Annotated[
        float, typer.Option(min=0, help="Epochs of rising rate.", rich_help_panel=TRAINING)
    ] = 5.0,
    average_decay: Annotated[
        float,
        typer.Option(min=0, help="Decay of averaged weights; 0: none.", rich_help_panel=TRAINING),
    ] = 0.0,
    strategy: Annotated[
        Strategy, typer.Option(help="fsdp spreads the model.", rich_help_panel=TRAINING)
    ] = Strategy.auto,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that prepare samples.", rich_help_panel=TRAINING)
    ] = 2,
    save_every: Annotated[
        int, typer.Option(min=1, help="Steps between saved states.", rich_help_panel=TRAINING)
    ] = 200,
    every: Annotated[
        int,
        typer.Option(min=1, help="Epochs between pictures and probes.", rich_help_panel=TRAINING),
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run.", rich_help_panel=TRAINING)
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
    """Trains a model's encoders on images and OSM, without labels.

    Give --images with a folder of shards, rasters or pictures, or --imagery; and --osm unless the
    data bring their own. Rasters take the OSM file that covers them; what is simulated or fetched
    is so for the area of each. Samples are cut and kept in the run folder first. Under torchrun,
    the batch is shared by all processes. The run folder is a model: `--model DIR`.

    Examples:
        geolink pretrain --imagery simulated --osm town.osm.pbf --out run --epochs 20
        geolink pretrain --imagery sentinel2 --imagery ortho.tif --osm town.osm.pbf --out run
        geolink pretrain --images shards --out run --model-size large --learning-rate 1e-4
        torchrun --nproc-per-node 4 -m geolink_cli.app pretrain --images shards --out run
    """
    from geolink.workflows import pretrain as workflow

    request = workflow.PretrainRequest(
        out=out,
        images=images,
        imagery=tuple(imagery or ()),
        osm=tuple(osm or ()),
        gsd=tuple(gsd or ()),
        tiles=tiles,
        model_size=model_size.value,
        image_size=image_size,
        profile=profile.value,
        tag_encoder=None if tag_encoder is None else tag_encoder.value,
        objectives=workflow.ObjectiveConfig(
            reconstruction=reconstruction,
            contrast=contrast,
            consistency=consistency,
            patch_share=mask_patches,
            node_share=mask_nodes,
            temperature=temperature,
        ),
        training=workflow.TrainingSettings(
            epochs=epochs,
            batch_size=batch_size,
            accumulate=accumulate,
            base_rate=learning_rate,
            warmup_epochs=warmup_epochs,
            average_decay=average_decay,
            seed=seed,
            workers=workers,
            save_every=save_every,
            device=device.value,
            strategy=strategy.value,
        ),
        probe=probe,
        every=every,
        accept_imagery_terms=accept_imagery_terms,
        offline=offline,
        resume=resume,
        overwrite=overwrite,
    )
    with training_view() as view:
        result = workflow.pretrain(request, view.progress, view.watch)
    if result.rank == 0:
        show(result.to_dict(), None, result.summary, as_json=as_json)
