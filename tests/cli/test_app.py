"""The command line as a whole: start-up, help, version, pipes."""

import os
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import rasterio
import typer
from synthetic import run_cli, start_cli

import geolink
from geolink.workflows.versions import versions_of_parts
from geolink_cli.app import app

COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def test_version():
    outcome = run_cli("--version")
    assert outcome.code == 0
    first, *parts = outcome.out.splitlines()
    assert first == f"geolink {geolink.__version__}"
    found = dict(line.split(" ", 1) for line in parts)
    assert found["torch"] == metadata.version("torch")
    assert found["gdal"] == rasterio.__gdal_version__
    assert all(version[0].isdecimal() or version == "not installed" for version in found.values())


def test_a_part_that_is_missing_is_said_to_be(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert versions_of_parts()["peft"] == "not installed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["predict", "--city", "singapore", "--offline"], 3)],
    ids=["version", "refusal"],
)
def test_quick_answers_import_nothing_slow(arguments, code):
    """What needs no model is answered before the seconds that these take to import."""
    slow = {"torch", "timm", "torch_geometric", "lightning", "huggingface_hub", "matplotlib"}
    script = (
        "import sys\nfrom geolink_cli.app import main\n"
        f"sys.argv = ['geolink', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code or 0\n"
        f"print('loaded', code, *({slow!r} & sys.modules.keys()))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert shown.stdout.splitlines()[-1] == f"loaded {code}", shown.stdout + shown.stderr


def test_without_arguments_it_shows_help():
    outcome = run_cli()
    assert "predict" in outcome.out + outcome.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name):
    shown = run_cli(name, "--help")
    assert shown.code == 0
    _, _, examples = shown.out.partition("Examples:")
    assert f"geolink {name} --" in examples


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_understood(name):
    command = typer.main.get_command(app).commands[name]
    lines = [line.strip() for line in command.help.partition("Examples:")[2].splitlines()]
    examples = [shlex.split(line)[2:] for line in lines if line.startswith("geolink ")]
    assert examples
    for arguments in examples:
        with command.make_context(name, arguments) as context:
            assert any(context.params.values())


def test_an_unknown_command_is_a_usage_error():
    outcome = run_cli("predikt")
    assert outcome.code == 2
    assert "predikt" in outcome.err


def test_a_closed_pipe_is_no_error():
    process = start_cli("predict", "--help")
    with process:
        process.stdout.close()
        err = process.stderr.read()
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def test_help_through_head():
    script = f"{shlex.quote(sys.executable)} -m geolink_cli.app predict --help | head -1"
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert len(shown.stdout.splitlines()) == 1


def test_bash_completes_commands_and_options(tmp_path):
    """Installed and used as a user's shell does."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    script = (
        "geolink --install-completion && source ~/.bashrc && "
        "complete_at() { COMP_WORDS=($1) COMP_CWORD=$2; _geolink_completion geolink; "
        'echo "${COMPREPLY[@]}"; } && '
        'complete_at "geolink pred" 1 && complete_at "geolink predict --ima" 2'
    )
    folder = Path(sys.executable).parent
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    shown = subprocess.run(
        [bash, "-c", script], capture_output=True, text=True, check=False, env=env
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-2:] == ["predict", "--imagery"], shown.stdout
