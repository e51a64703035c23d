"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Sums round differently on another number of threads, and results are compared bit for bit between
# processes. Set before torch is imported, here and in what tests start.
os.environ["OMP_NUM_THREADS"] = "1"

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real extracts, imagery and oracles; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the development data in {SHARED_DATA.name}/, which is not here")
    return SHARED_DATA


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of an untrained model (see `synthetic.write_model`)."""
    # Imported here: most tests need no torch.
    from synthetic import write_model

    return write_model(tmp_path_factory.mktemp("model") / "untrained")


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `ortho.tif` (300 x 260 m, 1 m pixels) and its `osm.gpkg`."""
    from synthetic import write_osm, write_raster

    folder = tmp_path_factory.mktemp("scene")
    write_raster(folder / "ortho.tif")
    write_osm(folder / "osm.gpkg")
    return folder


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's store that all of this process see, empty: `memory://...`."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
