"""The `geolink` command: its sub-commands, and the one place where errors become exit codes."""

import sys
import warnings
from typing import Annotated

import typer

from geolink import __version__
from geolink_cli.evaluate import evaluate
from geolink_cli.fetch import fetch
from geolink_cli.finetune import finetune
from geolink_cli.messages import report
from geolink_cli.predict import predict
from geolink_cli.pretrain import pretrain

app = typer.Typer(
    name="geolink",
    help="Maps of urban functional zones from a place name: imagery fused with OpenStreetMap.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_versions(value: bool) -> None:
    if value:
        from geolink.workflows.versions import versions_of_parts

        typer.echo(f"geolink {__version__}")
        for part, version in versions_of_parts().items():
            typer.echo(f"{part} {version}")
        raise typer.Exit


@app.callback()
def geolink(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_versions,
            is_eager=True,
            help="Show the version, and those of the parts.",
        ),
    ] = False,
) -> None:
    """Maps of urban functional zones from a place name: imagery fused with OpenStreetMap."""


app.command()(evaluate)
app.command()(fetch)
app.command()(finetune)
app.command()(predict)
app.command()(pretrain)


def main() -> None:
    """Runs the command line; errors become one sentence and an exit code."""
    # Libraries' own business, of no use to who reads this terminal: what torch-geometric compiles
    # at import, and the rasters in memory that rasterio burns shapes into.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "Dataset has no geotransform")
    try:
        app()
    except Exception as error:
        sys.exit(report(error))


if __name__ == "__main__":
    main()
