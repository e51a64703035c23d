"""What the source must not do with bytes that come from outside: run them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(p for room in ("geolink", "geolink_cli") for p in (ROOT / room).rglob("*.py"))

# Modules that make code or objects from bytes, or start programs.
FORBIDDEN_IMPORTS = {
    *("pickle", "_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"),
    *("code", "codeop", "runpy", "subprocess", "yaml"),
}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle"),
    *("shutil.unpack_archive", "torch.hub.load", "torch.jit.load", "yaml.load"),
}
# Members of archives are read by their place, and never written under the names that they claim.
FORBIDDEN_METHODS = {"extract", "extractall"}
# Arguments without which a call could run what it reads.
REQUIRED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}

ALLOWED = {
    # Reads the published graphs by an unpickler of its own, which refuses all names but a few.
    ("geolink/graphs/released.py", "pickle"),
    # Speaks with processes that this one started, through their own pipes.
    ("geolink/workflows/processes.py", "pickle"),
    ("geolink/workflows/process_entry.py", "pickle"),
}


def problems(tree: ast.AST, name: str) -> Iterator[str]:
    """What is forbidden in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node, name)
        elif isinstance(node, ast.Call):
            yield from (f"{name}:{node.lineno} calls {what}" for what in _calls(node))


def _imports(node: ast.Import | ast.ImportFrom, name: str) -> Iterator[str]:
    found = (
        [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    )
    for module in {module.partition(".")[0] for module in found} & FORBIDDEN_IMPORTS:
        if (name, module) not in ALLOWED:
            yield f"{name}:{node.lineno} imports {module}"


def _calls(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    if called in FORBIDDEN_CALLS or called.rpartition(".")[2] in FORBIDDEN_METHODS:
        yield called
    if called in REQUIRED:
        argument, value = REQUIRED[called]
        given = {k.arg: k.value for k in node.keywords}.get(argument)
        if not (isinstance(given, ast.Constant) and given.value is value):
            yield f"{called} without {argument}={value}"


def test_nothing_from_outside_is_run() -> None:
    assert len(MODULES) > 100
    found = [
        problem
        for path in MODULES
        for problem in problems(
            ast.parse(path.read_text("utf-8")), path.relative_to(ROOT).as_posix()
        )
    ]
    assert found == []


def test_the_one_unpickler_is_restricted() -> None:
    tree = ast.parse((ROOT / "geolink/graphs/released.py").read_text("utf-8"))
    uses = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {use for use in uses if use.startswith("pickle.")} <= {
        "pickle.Unpickler",
        "pickle.UnpicklingError",
    }
    (reader,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "_Reader")
    assert {"find_class", "persistent_load"} <= {
        n.name for n in reader.body if isinstance(n, ast.FunctionDef)
    }


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "def f():\n    import marshal",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "tar.extractall(folder)",
        "exec(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert list(problems(ast.parse(source), "x.py"))
