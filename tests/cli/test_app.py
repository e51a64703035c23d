"""The command line as a whole: start-up, help, version, pipes."""

import shlex
import subprocess
import sys

import pytest
import typer
from synthetic import run_cli, start_cli

import geolink
from geolink_cli.app import app

COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def test_version():
    outcome = run_cli("--version")
    assert (outcome.code, outcome.out) == (0, f"geolink {geolink.__version__}\n")


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
