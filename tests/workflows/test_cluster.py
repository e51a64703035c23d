"""Tiles scored by real worker processes of a dask scheduler on 127.0.0.1."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import dask
import pytest
from affine import Affine
from distributed import Client, LocalCluster
from synthetic import NORTH, WEST, pixels, run_cli, write_raster

import geolink
from geolink.errors import ConfigError, InputError, UnavailableError
from geolink.mosaic import TileStore
from geolink.workflows import cluster, cluster_tasks
from geolink.workflows.cluster_tasks import for_others, own_versions, require_same_versions
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
    with LocalCluster(n_workers=0, dashboard_address=":0") as local:
        yield local.scheduler_address


@contextmanager
def worker_processes(number, scheduler, folder):
    """Worker processes, which nothing starts again when they die."""
    options = ["--no-nanny", "--no-dashboard", "--nthreads", "1", "--local-directory", str(folder)]
    program = [sys.executable, "-W", "ignore", "-m", "distributed.cli.dask_worker"]
    with (folder / "log").open("w") as log:
        started = [
            subprocess.Popen([*program, scheduler, *options], stdout=log, stderr=log)
            for _ in range(number)
        ]
    try:
        with Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(number)
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture
def workers(scheduler, tmp_path):
    with worker_processes(2, scheduler, tmp_path) as started:
        yield started


@pytest.fixture
def worker_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("worker")


@pytest.fixture
def neighbour(worker_folder):
    """Address of a scheduler with one worker, both in threads of this process."""
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp"}
    options["local_directory"] = worker_folder
    with LocalCluster(**options, dashboard_address=":0") as local:
        yield local.scheduler_address


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


def test_a_tile_that_kills_workers_fails(tmp_path, request_of, monkeypatch):
    def die(job, tiles):
        os.kill(os.getpid(), signal.SIGKILL)

    die.__module__ = "__main__"  # sent by value: workers cannot import this file
    monkeypatch.setattr(cluster, "score_group", die)
    settings = {"distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=0, dashboard_address=":0") as local,
        worker_processes(1, local.scheduler_address, tmp_path),
    ):
        wanted = request_of(tmp_path / "map.gpkg", scheduler=local.scheduler_address)
        with pytest.raises(InputError, match="first failed since workers died of it"):
            geolink.predict(replace(wanted, batch_size=64))


# Workers that cannot be used


def test_workers_keep_osm_on_disk(tmp_path, request_of, neighbour, worker_folder):
    geolink.predict(request_of(tmp_path / "a.gpkg", scheduler=neighbour))
    (first,) = worker_folder.rglob("osm.sqlite")
    geolink.predict(request_of(tmp_path / "b.gpkg", scheduler=neighbour, seed=1))
    (second,) = worker_folder.rglob("osm.sqlite")
    assert first.parent != second.parent


def test_other_files_are_told(tmp_path, request_of, neighbour, monkeypatch):
    monkeypatch.setattr(cluster_tasks, "sizes_of", lambda files: (1,))
    with pytest.raises(UnavailableError, match=r"worker tcp://.* its files a.tif, b.tif, osm.gpkg"):
        geolink.predict(request_of(tmp_path / "map.gpkg", scheduler=neighbour))


def test_other_versions_are_told(tmp_path, request_of, neighbour, monkeypatch):
    monkeypatch.setattr(cluster_tasks, "own_versions", lambda: (("geolink", "0.0"),))
    with pytest.raises(UnavailableError, match=r"worker tcp://.* geolink 0.0 there and .* here"):
        geolink.predict(request_of(tmp_path / "map.gpkg", scheduler=neighbour))


def test_only_what_both_have_must_be_the_same():
    require_same_versions((("torch", "2"), ("peft", "1")), (("torch", "2"), ("timm", "1")))
    with pytest.raises(UnavailableError, match="torch 3 there and 2 here"):
        require_same_versions((("torch", "2"),), (("torch", "3"),))
    assert {"geolink", "torch", "numpy", "gdal", "distributed"} <= dict(own_versions()).keys()


def test_an_interruption_leaves_what_was_done(tmp_path, request_of, neighbour, at_tile):
    def interrupt():
        raise KeyboardInterrupt

    at_tile(2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        geolink.predict(request_of(tmp_path / "map.gpkg", scheduler=neighbour))
    assert [path.name for path in tmp_path.iterdir()] == [".map.gpkg.work"]
    assert list(tmp_path.rglob("*.npz"))


# Requests


def test_workers_get_absolute_paths_and_no_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tif").touch()
    request = PredictRequest(
        imagery="a.tif", osm="s3://bucket/b.pbf", out="c.gpkg", raster="c.tif", scheduler=NOBODY
    )
    sent = for_others(request)
    assert (sent.imagery, sent.osm) == (tmp_path / "a.tif", "s3://bucket/b.pbf")
    assert (sent.model, sent.city) == ("geolink-tiny", None)
    assert {sent.out, sent.raster, sent.scheduler} == {None}


@pytest.mark.parametrize(
    "address",
    ["", "node0:8786", "http://node0:8786", "tcp://node0", "tcp://:8786", "tcp://a b:1", "tcp://"],
)
def test_what_is_no_scheduler_is_wrong_usage(address):
    with pytest.raises(ConfigError, match="is no address; write tcp://HOST:8786"):
        PredictRequest(scheduler=address)


@pytest.mark.parametrize("address", [NOBODY, "tls://127.0.0.1:9"])
def test_a_scheduler_that_is_not_there_is_told(tmp_path, small_scene, small_model, address):
    sources = ["--imagery", small_scene / "ortho.tif", "--osm", "none", "--model", small_model]
    outcome = run_cli("predict", *sources, "--scheduler", address, cwd=tmp_path)
    assert outcome.code == 3
    assert outcome.err.startswith(f"error: no dask scheduler answers at {address} (")
    assert outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
