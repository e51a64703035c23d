"""The documentation holds: blocks that can run do run, others are what the commands understand.

The word after a block's language says what becomes of it: `run` executes it, with the exit code
that `exit=N` names; `file=NAME` writes it to a file. Of all other blocks, and of the README files
beside the code, every `geolink` command is parsed, and what it names as imagery or model is read.
"""

import ast
import contextlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pytest
import typer.main
import yaml
from labelled_folders import write_classes
from shapely import box
from synthetic import at, run_cli, write_picture

from geolink.sources.model_origins import parse_origin
from geolink.sources.models import is_remote
from geolink.sources.specs import parse_imagery
from geolink_cli.app import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
OTHERS = [ROOT / "README.md", *sorted(ROOT.glob("examples/*/README.md"))]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = typer.main.get_command(app).commands
PROGRAM = ("geolink", "geolink_cli.app")
CLOSED = "http://127.0.0.1:9"  # nobody listens there


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    language: str
    marks: dict[str, str]
    text: str

    @property
    def lines(self):
        """The lines, those that go on joined, without comments."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for text in joined if (line := text.strip()) and not line.startswith("#")]


def blocks_of(page):
    for language, marks, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        pairs = (mark.partition("=") for mark in marks.split())
        yield Block(language, {name: value for name, _, value in pairs}, text)


def ids(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """A fresh cache, and no server."""
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    for name in ("OSM_MIRROR", "STAC_URL", "NOMINATIM_URL", "OVERPASS_URL", "GDRIVE_URL"):
        monkeypatch.setenv(f"GEOLINK_{name}", CLOSED)
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)


@pytest.fixture
def desk(tmp_path, small_scene, monkeypatch):
    """A folder with the files that the pages name."""
    folder = tmp_path / "desk"
    folder.mkdir()
    shutil.copy(small_scene / "ortho.tif", folder)
    shutil.copy(small_scene / "osm.gpkg", folder / "town.gpkg")
    edges = ((0, 140), (140, 200), (200, 300))
    strips = [box(*at(west, 260), *at(east, 0)) for west, east in edges]
    classes = {"class": ["homes", "quarry", "park"]}
    zones = gpd.GeoDataFrame(classes, geometry=strips, crs=32635)
    zones.to_file(folder / "landuse.gpkg")
    write_classes(folder / "scenes")
    for name in "abcd":
        write_picture(folder / "pairs", name)
    monkeypatch.chdir(folder)
    return folder


# Running


def run_line(line, *, exit_code=0):
    """One line of a shell, as far as the pages need one: a command, perhaps `> FILE`."""
    words = shlex.split(line)
    target = None
    if ">" in words:
        *words, _, target = words
    assert words[0] == "geolink", f"cannot run {line!r}"
    outcome = run_cli(*words[1:])
    assert outcome.code == exit_code, f"{line}\n{outcome.err}"
    if target:
        Path(target).write_text(outcome.out, encoding="utf-8")


def run_block(block, names):
    if "file" in block.marks:
        Path(block.marks["file"]).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        with contextlib.redirect_stdout(None):
            exec(compile(block.text, "block", "exec"), names)
    else:
        for line in block.lines:
            run_line(line, exit_code=int(block.marks.get("exit", 0)))


def is_live(block):
    return "run" in block.marks or "file" in block.marks


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_blocks_run(page, desk):
    live = [block for block in blocks_of(page) if is_live(block)]
    if not live:
        pytest.skip("nothing to run")
    names = {"__name__": "docs"}
    for block in live:
        run_block(block, names)


# Parsing


def commands_in(line):
    """Words of every `geolink` command in a line, whatever starts it."""
    lexer = shlex.shlex(re.sub(r"\s#.*", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    command = []
    for word in [*lexer, ";"]:
        if not re.fullmatch(r"[;|&<>()]+", word):
            command.append(word)
            continue
        start = next((i for i, word in enumerate(command) if word in PROGRAM), None)
        if start is not None and "pip" not in command[:start]:
            yield command[start + 1 :]
        command = []


def check_command(words):
    """The command takes these options, and understands its specifications."""
    assert words, "geolink without a command"
    if words[0].startswith("-"):
        return
    name, *arguments = words
    assert name in COMMANDS, f"there is no command {name}"
    given = COMMANDS[name].make_context(name, arguments).params
    imagery = given.get("imagery") or []
    for spec in [imagery] if isinstance(imagery, str) else imagery:
        parse_imagery(spec)
    if is_remote(given.get("model") or ""):
        parse_origin(given["model"])


def written_commands(page):
    """Commands in the blocks of a page, fenced or indented, but those that are run."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8")).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    for block in blocks_of(page):
        if block.language in ("sh", "yaml") and not is_live(block):
            lines += [re.sub(r"^(- )?run: ", "", line) for line in block.lines]
    return [words for line in lines if "geolink" in line for words in commands_in(line)]


WRITTEN = [*PAGES, *OTHERS, *sorted((DOCS / "reference").glob("*.md"))]


@pytest.mark.parametrize("page", WRITTEN, ids=ids(WRITTEN))
def test_commands_are_understood(page, desk):
    (desk / "harbour.toml").write_text('imagery = "ortho.tif"\n')
    for words in written_commands(page):
        check_command(words)


@pytest.mark.parametrize(
    "line",
    [
        "geolink predict --citty sample",
        "geolink map --city sample",
        "geolink predict --device tpu",
        "geolink predict --imagery xyz:nothing",
        "torchrun --nproc-per-node 2 -m geolink_cli.app pretrain --images shards",
        "pip list && geolink predict --no-such-option",
    ],
)
def test_wrong_commands_are_found(line):
    (words,) = commands_in(line)
    with pytest.raises(Exception, match=r"option|command|parameter|not one of|zoom"):
        check_command(words)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_other_blocks_are_well_formed(page):
    for block in blocks_of(page):
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            list(yaml.safe_load_all(block.text))
        elif block.language == "sh":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        else:
            assert block.language == "csv", f"what is {block.language}?"


# Words


def test_variables_are_known():
    sources = "\n".join(p.read_text(encoding="utf-8") for p in ROOT.glob("geolink/**/*.py"))
    for page in [*PAGES, *OTHERS]:
        for name in set(re.findall(r"\bGEOLINK_[A-Z_]+\b", page.read_text(encoding="utf-8"))):
            assert f'"{name}"' in sources, f"{page.name} names {name}"


@pytest.mark.parametrize("page", WRITTEN, ids=ids(WRITTEN))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_every_page_is_listed():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


PLACE = re.compile(r"`(\w+)`(?: \w+)? in `(geolink\w*/[\w/.]+)`")


def test_the_readme_says_where_things_are():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| to add | look at |")[2]
    table = table.partition("\n\n")[0]
    places = PLACE.findall(table)
    assert len(places) >= len(table.splitlines()) - 2
    for name, path in places:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8")), name
    for path in re.findall(r"`(geolink\w*/[\w/.]+)`", table):
        assert (ROOT / path).exists(), path


# Reference


@pytest.fixture(scope="module")
def reference():
    """What `docs/generate.py` would write."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def test_reference_is_up_to_date(reference):
    written = {p.name: p.read_text(encoding="utf-8") for p in (DOCS / "reference").glob("*.md")}
    names = reference.keys() | written.keys()
    stale = [name for name in names if written.get(name) != reference.get(name)]
    assert not stale, f"run `python docs/generate.py`: {', '.join(sorted(stale))}"


def test_reference_has_every_option(reference):
    for name, command in COMMANDS.items():
        page = reference[f"{name}.md"]
        assert "```sh\ngeolink " in page
        for option in command.params:
            for written in (*option.opts, *option.secondary_opts):
                assert re.search(rf"`{re.escape(written)}[ `]", page), f"{name} {written}"
