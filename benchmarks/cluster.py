"""How many tiles a second do 1 and 2 worker processes of a cluster score?

    python benchmarks/cluster.py                     # minutes
    python benchmarks/cluster.py --workers 1 2 4 --side 3000

Starts a dask scheduler and worker processes of one core each on this machine, and scores the tiles
of a square of central Helsinki with the bundled model, as `geolink predict --scheduler` does. The
image is rendered from OSM beforehand (simulated), so that workers read a file. Starting workers and
opening the map does not count: each has scored tiles before the clock starts. Other work on the
machine makes it slower, so that the load is printed too, and what does not depend on it: the
processor seconds that the workers took for a tile.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import rasterio
from distributed import Client, LocalCluster

from geolink.grid import GridSpec
from geolink.sources.cache import Cache
from geolink.sources.network import Network
from geolink.sources.osm import read_osm
from geolink.sources.places import sample_extract, sample_place
from geolink.sources.simulated import SimulatedImagery
from geolink.workflows.acquire import gather
from geolink.workflows.cluster import connect
from geolink.workflows.mapping import open_model
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import build_scene
from geolink.workflows.site import Supply, locate

ONE_CORE = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
OPTIONS = ("--no-nanny", "--no-dashboard", "--nthreads", "1")


def render(path: Path, side: int) -> Path:
    """A simulated orthophoto of the middle of the bundled city, `side` pixels of one metre."""
    place = sample_place()
    middle = place.aoi_metric.centroid
    grid = GridSpec(
        place.crs, round(middle.x) - side / 2, round(middle.y) + side / 2, 1.0, side, side
    )
    entities = read_osm(sample_extract(), grid.bounds.buffered(100), crs=grid.crs)
    rgb = SimulatedImagery(entities).read(grid).rgb
    shape = {"count": 3, "height": side, "width": side, "dtype": "uint8"}
    with rasterio.open(
        path, "w", driver="GTiff", crs=grid.crs, transform=grid.transform, tiled=True, **shape
    ) as raster:
        raster.write(rgb)
    return path


@contextmanager
def cluster(workers: int) -> Iterator[tuple[str, list[psutil.Popen]]]:
    """Address of a scheduler, and its worker processes."""
    program = [sys.executable, "-m", "distributed.cli.dask_worker"]
    with LocalCluster(n_workers=0, dashboard_address=":0") as local, Client(local) as client:
        started = [
            psutil.Popen(
                [*program, local.scheduler_address, *OPTIONS],
                env=os.environ | ONE_CORE,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(workers)
        ]
        try:
            client.wait_for_workers(workers)
            yield local.scheduler_address, started
        finally:
            for process in started:
                process.kill()
                process.wait()


def cpu_seconds(processes: list[psutil.Popen]) -> float:
    """Processor time that processes have taken."""
    times = [process.cpu_times() for process in processes]
    return float(sum(spent.user + spent.system for spent in times))


def measure(request: PredictRequest, workers: int) -> tuple[int, float, float]:
    """Number of tiles, tiles a second, and processor seconds for a tile."""
    supply = Supply(Cache(), Network(offline=True))
    model = open_model(request.model)
    materials = gather(request, locate(request, supply), supply)
    scene = build_scene(request, materials, model.card.gsd_range)
    with cluster(workers) as (address, processes), connect(address, request) as crew:
        score = crew.scores(request, scene, model)
        for _ in score(scene.tiles[: 8 * workers * request.batch_size]):
            pass
        started, before = time.monotonic(), cpu_seconds(processes)
        count = sum(1 for _ in score(scene.tiles))
        seconds, spent = time.monotonic() - started, cpu_seconds(processes) - before
        return count, count / seconds, spent / count


def main() -> None:
    """Measure each number of workers, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--side", type=int, default=1500)
    arguments = parser.parse_args()
    first = 0.0
    print(f"{os.cpu_count()} cores; simulated image of {arguments.side} pixels a side")
    print("workers  tiles  tiles/s  ratio  CPU s/tile  load before")
    with tempfile.TemporaryDirectory() as folder:
        image = render(Path(folder) / "ortho.tif", arguments.side)
        request = PredictRequest(
            imagery=image, osm=sample_extract(), device="cpu", batch_size=2, workers=1
        )
        for workers in arguments.workers:
            load = os.getloadavg()[0]
            tiles, rate, spent = measure(request, workers)
            first = first or rate
            figures = f"{rate:8.2f} {rate / first:6.2f} {spent:11.2f} {load:12.1f}"
            print(f"{workers:7d} {tiles:6d} {figures}", flush=True)


if __name__ == "__main__":
    main()
