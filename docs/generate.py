"""Writes the command reference, `docs/reference/*.md`, from the commands themselves.

    python docs/generate.py

The tests fail where the reference is not what the commands now say.
"""

import inspect
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer.main

from geolink_cli.app import app

FOLDER = Path(__file__).resolve().parent / "reference"
_KINDS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
_HEAD = ["| option | meaning | default |", "|---|---|---|"]
_INTRO = """\
# Commands

Made from the commands by `python docs/generate.py`. `geolink COMMAND --help` shows the same.

{commands}

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | known failure, said in one sentence |
| 2 | wrong usage |
| 3 | data or model unavailable |
| 4 | finished, but some tiles failed |
| 5 | a figure is below `--fail-under` |

## Shell completion

    geolink --install-completion

## Versions

    geolink --version

It shows the versions of geolink and of the parts that decide what a map or a model is, with GDAL.
"""


def pages() -> dict[str, str]:
    """The text of every page by its file name."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    listed = "\n".join(
        f"- [`geolink {name}`]({name}.md): {command.help.splitlines()[0]}"
        for name, command in commands.items()
    )
    index = {"README.md": _INTRO.format(commands=listed)}
    return index | {f"{name}.md": _page(command) for name, command in commands.items()}


def _page(command: Any) -> str:  # noqa: ANN401 - of the library that typer brings
    """The reference of one command: what it does, examples, and its options by panel."""
    text, _, examples = command.help.partition("\nExamples:\n")
    lines = [f"# geolink {command.name}", "", text.strip(), ""]
    lines += ["```sh", inspect.cleandoc(examples), "```"]
    hints = get_type_hints(command.callback, include_extras=True)
    panels: dict[str, list[str]] = {}
    for option in command.params:
        row = _row(option, *get_args(hints[option.name])[:2])
        panels.setdefault(option.rich_help_panel or "Options", []).append(row)
    for panel, rows in panels.items():
        lines += ["", f"## {panel}", "", *_HEAD, *rows]
    return "\n".join(lines) + "\n"


def _row(option: Any, kind: Any, info: typer.models.OptionInfo) -> str:  # noqa: ANN401
    """One option as a row of the table: as it is parsed, and as its function declares it."""
    takes_value = not (option.is_flag or option.count)
    value = f" {option.metavar or _value(kind)}" if takes_value else ""
    names = ", ".join(f"`{name}{value}`" for name in [*option.opts, *option.secondary_opts])
    default = "required" if option.required else _default(option.default)
    cells = [names, (option.help or "") + _limits(info), default]
    return " | ".join(["", *(cell.replace("|", "\\|") for cell in cells), ""]).strip()


def _value(kind: Any) -> str:  # noqa: ANN401 - an annotation
    """What an option takes: its choices, or a word for a number, a path or text."""
    kinds = (kind, *get_args(kind))
    for choices in kinds:
        if inspect.isclass(choices) and issubclass(choices, Enum):
            return "|".join(choice.value for choice in choices)
    return next(word for known, word in _KINDS.items() if known in kinds)


def _limits(info: typer.models.OptionInfo) -> str:
    if info.min is None:
        return ""
    return f" {info.min:g} or more." if info.max is None else f" {info.min:g} to {info.max:g}."


def _default(value: object) -> str:
    """The default as it would be written; nothing where the option is simply not given."""
    if value is None or value is False:
        return ""
    if value is True:
        return "on"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, page in pages().items():
        (FOLDER / name).write_text(page, encoding="utf-8")
