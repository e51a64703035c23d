"""Imports go one way, from words to workflows, and start-up stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import geolink
import geolink_cli

ROOT = Path(geolink.__file__).parent
CLI = Path(geolink_cli.__file__).parent

# A module may import from its own room and from rooms before it.
ROOMS: tuple[tuple[str, ...], ...] = (
    ("_version", "errors", "files", "grid", "legend", "config"),
    ("sources",),
    ("tiles", "graphs"),
    ("samples", "augment", "tile_graphs", "shards", "datasets", "splits"),
    ("models",),
    ("checkpoint",),
    ("training",),
    (
        "mosaic",
        "polygons",
        "sieve",
        "arcs",
        "outlines",
        "zone_table",
        "metrics",
        "gpkg",
        "rasters",
        "preview",
        "web_map",
        "reports",
    ),
    ("workflows",),
)
# Rooms that stay usable, and quick to import, without a model.
TORCH_FREE = ("errors", "files", "grid", "legend", "config", "sources", "tiles", "mosaic")
TORCH_FREE += (
    "polygons",
    "sieve",
    "arcs",
    "outlines",
    "zone_table",
    "metrics",
    "gpkg",
    "rasters",
    "preview",
    "web_map",
    "reports",
)


def room(module: str) -> int:
    name = module.split(".")[1]
    return next(i for i, names in enumerate(ROOMS) if name in names)


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(("geolink", *path.relative_to(ROOT).with_suffix("").parts)), path)
        for path in sorted(ROOT.rglob("*.py"))
    ]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, late and hint-only imports too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value))
def test_imports_go_one_way(name, path):
    if name == "geolink.__init__":
        return  # the façade, which imports lazily
    for target in imports(path):
        assert not target.startswith("geolink_cli"), f"{name} imports the command line"
        if target.startswith("geolink.") and target != "geolink.__init__":
            assert room(target) <= room(name), f"{name} reaches up to {target}"


def test_there_is_no_cycle():
    known = {name.removesuffix(".__init__") for name, _ in modules()}
    edges = {
        name.removesuffix(".__init__"): (imports(path) & known) - {"geolink"}
        for name, path in modules()
        if name != "geolink.__init__"
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' -> '.join((*above, name))}"
        if name not in done:
            for target in edges.get(name, set()) - {name}:
                visit(target, (*above, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value))
def test_mapping_rooms_know_no_torch(name, path):
    if name.split(".")[1] in TORCH_FREE:
        heavy = {
            t for t in imports(path) if t.split(".")[0] in ("torch", "torch_geometric", "timm")
        }
        assert not heavy


def test_models_see_tensors_only():
    for name, path in modules():
        if name.startswith("geolink.models"):
            roots = {t.split(".")[0] for t in imports(path)}
            assert not roots & {"pathlib", "geopandas", "pyproj", "rasterio", "shapely"}, name


def test_only_public_names_cross_into_the_command_line():
    for path in CLI.glob("*.py"):
        heavy = {"torch", "numpy", "rasterio", "geopandas"}
        assert not {t.split(".")[0] for t in imports(path)} & heavy, path


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom geolink_cli.app import app\n"
        "r = CliRunner().invoke(app, ['predict', '--help'])\nassert r.exit_code == 0, r.output\n"
        "heavy = {'torch', 'timm', 'torch_geometric', 'rasterio', 'geopandas', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
