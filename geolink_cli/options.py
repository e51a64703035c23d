"""Options that several commands share, as named annotations."""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from geolink_cli.messages import set_verbosity


class Device(StrEnum):
    """Where the model runs."""

    auto = "auto"
    cuda = "cuda"
    mps = "mps"
    cpu = "cpu"


def load_defaults(ctx: typer.Context, path: Path | None) -> Path | None:
    """Takes the defaults of the command's options from a TOML file; the command line wins."""
    if path is None:
        return None
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise typer.BadParameter(f"{path} is not a readable TOML file: {error}") from None
    settings = {key.replace("_", "-"): value for key, value in settings.items()}
    known = {
        option.removeprefix("--"): parameter.name
        for parameter in ctx.command.params
        for option in parameter.opts
        if option.startswith("--") and option not in ("--config", "--help")
    }
    if unknown := sorted(settings.keys() - known):
        raise typer.BadParameter(
            f"{path} sets {', '.join(unknown)}, which {ctx.info_name} does not have; "
            f"it has {', '.join(sorted(known))}"
        )
    defaults = {str(known[key]): value for key, value in settings.items()}
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def parse_bbox(text: str | None) -> tuple[float, float, float, float] | None:
    """West, south, east, north in degrees."""
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not four numbers; write W,S,E,N in degrees, e.g. 24.93,60.16,24.96,60.18"
        ) from None
    return west, south, east, north


def parse_bands(text: str | None) -> tuple[int, int, int] | None:
    """Numbers of the red, green and blue band, counted from 1."""
    if text is None:
        return None
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not three band numbers; write R,G,B") from None
    return red, green, blue


def parse_names(text: str | None) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))


def parse_numbers(text: str | None) -> tuple[float, ...]:
    """Numbers between commas."""
    try:
        return tuple(float(part) for part in parse_names(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers; write 0.001,0.0003") from None


def osm_spec(osm: str | None, *, no_osm: bool) -> str | None:
    """What --osm and --no-osm say together."""
    if no_osm and osm not in (None, "none"):
        raise typer.BadParameter("--osm and --no-osm contradict one another; give one of them")
    return "none" if no_osm else osm


ConfigOpt = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="Defaults of these options; the command line wins.",
        is_eager=True,
        callback=load_defaults,
        rich_help_panel="Common",
    ),
]
DeviceOpt = Annotated[
    Device,
    typer.Option(
        help="Where the model runs; auto takes CUDA when present.", rich_help_panel="Common"
    ),
]
OfflineOpt = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Use nothing but what is here and in the cache.",
        rich_help_panel="Common",
    ),
]
OverwriteOpt = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing outputs.", rich_help_panel="Common")
]
JsonOpt = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON object on stdout, everything else on stderr.",
        rich_help_panel="Common",
    ),
]
SeedOpt = Annotated[
    int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel="Common")
]
VerboseOpt = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        help="Say more (-vv: debug messages).",
        callback=lambda value: set_verbosity(verbose=value),
        rich_help_panel="Common",
    ),
]
QuietOpt = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        help="Errors only.",
        callback=lambda value: set_verbosity(quiet=value),
        rich_help_panel="Common",
    ),
]
DebugOpt = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Show tracebacks.",
        callback=lambda value: set_verbosity(debug=value),
        rich_help_panel="Common",
    ),
]
CityOpt = Annotated[
    str | None,
    typer.Option(
        "--city",
        metavar="NAME",
        help="A city or region by name; `sample` is bundled (central Helsinki).",
        rich_help_panel="Place",
    ),
]
BboxOpt = Annotated[
    str | None,
    typer.Option(
        "--bbox", metavar="W,S,E,N", help="A rectangle in degrees.", rich_help_panel="Place"
    ),
]
AoiOpt = Annotated[
    Path | None,
    typer.Option(
        "--aoi", metavar="FILE", help="Polygons in any vector file.", rich_help_panel="Place"
    ),
]
ExtractOpt = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="An OSM extract as a place with simulated imagery; repeatable.",
        rich_help_panel="Place",
    ),
]
ImageryOpt = Annotated[
    str | None,
    typer.Option(
        "--imagery",
        metavar="SPEC",
        help="A raster, VRT or folder; sentinel2[:START/END], stac:URL#COLLECTION/ASSETS, "
        "xyz:TEMPLATE@ZOOM, or simulated. Default: what the cache has of the place, or sentinel2.",
        rich_help_panel="Sources",
    ),
]
OsmOpt = Annotated[
    str | None,
    typer.Option(
        "--osm",
        metavar="SPEC",
        help="An .osm.pbf, a vector file with tags, overpass, or none. Default: an extract that "
        "covers the place.",
        rich_help_panel="Sources",
    ),
]
ModelOpt = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="SPEC",
        help="A bundled name, run folder, .safetensors or .pth file, hf:OWNER/REPO@REVISION, "
        "https address, or gdrive:ID.",
        rich_help_panel="Sources",
    ),
]
BoundaryOpt = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="An administrative boundary within the city that bounds the area.",
        rich_help_panel="Place",
    ),
]
BandsOpt = Annotated[
    str | None,
    typer.Option(metavar="R,G,B", help="Bands of the raster.", rich_help_panel="Sources"),
]
GsdOpt = Annotated[
    float | None,
    typer.Option(
        min=0.05,
        max=100.0,
        help="Metres per pixel; default: the imagery's own.",
        rich_help_panel="Sources",
    ),
]
TermsOpt = Annotated[
    str | None,
    typer.Option(
        "--accept-imagery-terms",
        metavar="NOTE",
        help="The licence under which you use map tiles, in words.",
        rich_help_panel="Sources",
    ),
]
LabelsOpt = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="SPEC",
        help="Polygons, a class raster or a table of a place, or `osm`.",
        rich_help_panel="Labels",
    ),
]
LabelColumnOpt = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column with class or number.", rich_help_panel="Labels"),
]
LabelMappingOpt = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.csv",
        help="Classes of the values; columns value,class.",
        rich_help_panel="Labels",
    ),
]
IgnoreOpt = Annotated[
    str | None,
    typer.Option(metavar="V,V,...", help="Values that are no class.", rich_help_panel="Labels"),
]
