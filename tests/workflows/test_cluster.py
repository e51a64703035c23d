"""Tiles scored by real worker processes of a dask scheduler on 127.0.0.1."""

import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count

import pytest
from affine import Affine
from distributed import Client, LocalCluster
from synthetic import NORTH, WEST, pixels, write_raster

import geolink
from geolink.errors import UnavailableError
from geolink.mosaic import TileStore
from geolink.workflows import cluster
from geolink.workflows.request import PredictRequest

NOBODY = "tcp://127.0.0.1:9"  # no scheduler listens there


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """What is not there is soon given up."""
    monkeypatch.setattr(cluster, "CONNECT_S", 1.0)
    monkeypatch.setattr(cluster, "PATIENCE_S", 1.0)


@pytest.fixture
def scheduler():
    """Address of a scheduler without a worker."""
    with LocalCluster(n_workers=0, dashboard_address=None) as local:
        yield local.scheduler_address


@pytest.fixture
def workers(scheduler, tmp_path_factory):
    """Two worker processes, which nothing starts again when they die."""
    folder = tmp_path_factory.mktemp("workers")
    options = ["--no-nanny", "--no-dashboard", "--nthreads", "1", "--local-directory", str(folder)]
    program = [sys.executable, "-W", "ignore", "-m", "distributed.cli.dask_worker"]
    with (folder / "log").open("w") as log:
        started = [
            subprocess.Popen([*program, scheduler, *options], stdout=log, stderr=log)
            for _ in range(2)
        ]
    try:
        with Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(2)
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    """A folder of two images with a gap between them, the second damaged."""
    folder = tmp_path_factory.mktemp("mosaic")
    write_raster(folder / "a.tif")
    transform = Affine(1.0, 0.0, WEST + 600, 0.0, -1.0, NORTH)
    path = folder / "b.tif"
    write_raster(path, pixels(260, 200), transform=transform, compress="deflate")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    path.write_bytes(content)
    return folder


@pytest.fixture
def request_of(mosaic, small_scene, small_model):
    def made(out, **settings):
        sources = {"imagery": mosaic, "osm": small_scene / "osm.gpkg", "model": small_model}
        fixed = {"batch_size": 1, "device": "cpu"}
        return PredictRequest(**sources, **fixed, out=out, **settings)

    return made


@pytest.fixture
def at_tile(monkeypatch):
    """`at_tile(number, act)`: acts when the result of so many tiles has come."""
    put, waiting, come = TileStore.put, {}, count()

    def observed(store, *result):
        waiting.pop(next(come), lambda: None)()
        put(store, *result)

    def register(number, act):
        nonlocal come
        come = count(1)
        waiting[number] = act

    monkeypatch.setattr(TileStore, "put", observed)
    return register


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_map_is_the_same_whatever_becomes_of_workers(
    tmp_path, request_of, scheduler, workers, at_tile
):
    expected = geolink.predict(request_of(tmp_path / "here.gpkg"))
    assert set(expected.tiles) == {"failed", "ok"}
    content = (tmp_path / "here.gpkg").read_bytes()

    # One worker dies midway; the other does its tiles.
    at_tile(2, lambda: kill(workers[0]))
    result = geolink.predict(request_of(tmp_path / "there.gpkg", scheduler=scheduler))
    assert workers[0].poll() is not None
    assert result.tiles == expected.tiles
    assert (tmp_path / "there.gpkg").read_bytes() == content

    # Both are gone midway; what they did is not lost.
    at_tile(2, lambda: kill(workers[1]))
    wanted = request_of(tmp_path / "again.gpkg", scheduler=scheduler)
    with pytest.raises(UnavailableError, match=r"has had no worker for 1 s.*the same command"):
        geolink.predict(wanted)
    assert not wanted.out.exists()
    told = []
    geolink.predict(replace(wanted, scheduler=None), lambda *stage: told.append(stage))
    assert told[0] == ("tiles", told[0][1], sum(expected.tiles.values()))
    assert told[0][1] >= 1  # the second may have been written, or not
    assert wanted.out.read_bytes() == content


def test_a_cluster_without_workers_is_told(tmp_path, request_of, scheduler):
    empty = request_of(tmp_path / "map.gpkg", scheduler=scheduler)
    with pytest.raises(UnavailableError, match=r"no worker for 1 s; start some with `dask worker"):
        geolink.predict(empty)
