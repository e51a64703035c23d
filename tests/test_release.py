"""The archives of a release hold the packages, whole, and nothing else."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import geolink

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("geolink", "geolink_cli")
BESIDE = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "constraints.txt"}
BESIDE |= {"pyproject.toml"}
BUILD = "from setuptools.build_meta import build_sdist, build_wheel\n"
BUILD += "build_wheel('dist')\nbuild_sdist('dist')"
LIMIT = 20 * 10**6  # bytes of the wheel


def without_caches(_, names):
    return [name for name in names if name == "__pycache__"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what is released, built as `pip` builds it, without the network."""
    pytest.importorskip("setuptools", minversion="77")
    tree = tmp_path_factory.mktemp("release")
    for folder in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=without_caches)
    for name in BESIDE:
        shutil.copy(ROOT / name, tree)
    run = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=tree, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return tree


@pytest.fixture(scope="module")
def modules(tree):
    """Every file of the packages."""
    files = (path for name in PACKAGES for path in (tree / name).rglob("*") if path.is_file())
    return {path.relative_to(tree).as_posix() for path in files}


def test_the_wheel_holds_the_packages_and_nothing_else(tree, modules):
    (path,) = (tree / "dist").glob("*.whl")
    assert path.stat().st_size < LIMIT
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        assert {name for name in names if not name.startswith(info)} == modules
        assert f"{info}/licenses/LICENSE" in names
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        assert "geolink = geolink_cli.app:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert metadata["Version"] == geolink.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_source_archive_holds_what_builds_it_and_nothing_else(tree, modules):
    (path,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {
            name.partition("/")[2]
            for name in archive.getnames()
            if archive.getmember(name).isfile()
        }
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert names - made == modules | BESIDE


def test_the_changelog_begins_with_this_version():
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1] == geolink.__version__
