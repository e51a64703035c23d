"""Does memory stay flat, and time follow the area, when a map grows?

    python benchmarks/scale.py                            # 1,024 to 4,096 pixels a side, minutes
    python benchmarks/scale.py --sides 4096 16384 65536   # an hour of one core

Runs what `geolink predict` does with a scene: tiles are read, scored and kept, then blended,
sieved, outlined and written, each size in a process of its own. The picture is made up from smooth
waves that give zones of about 10,000 pixels, and so are the scores, which a stand-in tells from the
colours; it runs an untrained ViT-tiny beside that, on one tile in so many (`--model-every`), since
its memory counts and its time does not. Above `--whole` pixels a side the area is sparse: squares
along the diagonal of the map that add up to `--whole` squared.

Times are seconds of CPU, so that other work on the machine counts little; memory is the peak of
what the process holds (VmHWM), beside what it held with all libraries imported; disk is the most
that the work folder held, beside what `--dry-run` would say.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry
from torch import Tensor

from geolink.config import ModelConfig
from geolink.grid import Bounds, GridSpec
from geolink.legend import UFZ
from geolink.models.geolink import GeoLink
from geolink.models.heads import STRIDE
from geolink.mosaic import TileStore
from geolink.samples import normalise
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.places import Place
from geolink.tiles import TilePlan
from geolink.workflows.inference import (
    PreparedTile,
    TileScorer,
    fill_store,
    prepare_tile,
    scored,
)
from geolink.workflows.mapping import work_bytes
from geolink.workflows.outputs import GDAL_CACHE, ScoredMap, write_outputs
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import TILE_SIDE, Scene
from geolink.workflows.stages import StageClock

CRS_35N = CRS.from_epsg(32635)
WAVES = 6  # per class
WAVELENGTHS = (150.0, 900.0)  # pixels
SQUARE = 1024  # pixels a side of the parts of a sparse area
GREY = 255 // len(UFZ)  # from the colour of a class to that of the next


class MadeImagery:
    """Pixels that are computed from their place: grey by class, none outside the area."""

    info = SourceInfo("waves", simulated=True)

    def __init__(self, area: BaseGeometry) -> None:
        rng = np.random.default_rng(7)
        length = rng.uniform(*WAVELENGTHS, (len(UFZ), WAVES)) / (2 * np.pi)
        angle, self._phase = rng.uniform(0, 2 * np.pi, (2, len(UFZ), WAVES))
        self._down, self._right = np.cos(angle) / length, np.sin(angle) / length
        self._boxes = shapely.bounds(shapely.get_parts(area))

    def read(self, grid: GridSpec) -> ImageTile:
        """Pixels of a grid."""
        x = grid.west + grid.gsd * (np.arange(grid.width) + 0.5)
        y = grid.north - grid.gsd * (np.arange(grid.height) + 0.5)
        valid = np.zeros(grid.shape, bool)
        for west, south, east, north in self._boxes:
            valid |= ((y > south) & (y < north))[:, None] & (x > west) & (x < east)
        if not valid.any():
            return ImageTile(np.zeros((3, *grid.shape), np.uint8), valid)
        rows = np.exp(1j * (self._down * y[::STRIDE, None, None] + self._phase))
        cols = np.exp(1j * (self._right * x[::STRIDE, None, None]))
        classes = np.einsum("rcw,scw->crs", rows, cols).real.argmax(axis=0)
        grey = (classes * GREY).astype(np.uint8).repeat(STRIDE, 0).repeat(STRIDE, 1)
        grey = np.where(valid, grey[: grid.height, : grid.width], 0)
        return ImageTile(np.stack([grey] * 3), valid)


class Scorer(TileScorer):
    """Scores by colour; the model runs on some tiles, and what it says is thrown away."""

    def __init__(self, every: int) -> None:
        self._every, self._seen = every, 0
        super().__init__(GeoLink(ModelConfig()), torch.device("cpu"))

    def __call__(self, tiles: Sequence[PreparedTile]) -> NDArray[np.float16]:
        """See `TileScorer`."""
        for tile in tiles:
            if self._every and self._seen % self._every == 0:
                image = normalise(cast(Tensor, tile.image).numpy())
                super().__call__([PreparedTile(tile.id, tile.result, image)])
            self._seen += 1
        grey = np.stack([cast(Tensor, tile.image).numpy()[0] for tile in tiles])
        classes = grey[:, ::STRIDE, ::STRIDE] // GREY
        one_hot = np.eye(len(UFZ), dtype=np.float32)[classes].transpose(0, 3, 1, 2)
        with_osm, without = (share * one_hot + (1 - share) / len(UFZ) for share in (0.8, 0.7))
        return np.stack([with_osm, without], axis=1).astype(np.float16)


def area_of(side: int, whole: int, grid: GridSpec) -> BaseGeometry:
    """The whole map, or squares along its diagonal with the area of `whole` squared."""
    if side <= whole:
        return shapely.box(*grid.bounds)
    starts = np.linspace(0, side - SQUARE, (whole // SQUARE) ** 2).round()
    west, north = grid.west + starts, grid.north - starts
    return shapely.union_all(shapely.box(west, north - SQUARE, west + SQUARE, north))


def measure(side: int, arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Make a map of `side` by `side` pixels of one metre, and say what it took."""
    bounds = Bounds(300_000.0, 6_600_000.0 - side, 300_000.0 + side, 6_600_000.0)
    grid = GridSpec.from_bounds(CRS_35N, bounds, 1.0)
    plan = TilePlan(grid, TILE_SIDE, TILE_SIDE // 4)
    area = area_of(side, arguments.whole, grid)
    start, before = time.process_time(), peak_bytes()
    tiles = plan.tiles_in(area).tolist()
    imagery = MadeImagery(area)
    scene = Scene(cast(Place, None), area, grid, plan, tiles, imagery, None, (), 1.0)
    store = TileStore(folder / ".map.gpkg.work", "0" * 32, len(UFZ), TILE_SIDE)
    store.path.mkdir(parents=True)
    raster = folder / "map.tif" if arguments.raster else None
    request = PredictRequest(city="made", out=folder / "map.gpkg", raster=raster)
    metadata = {"title": "made", "simulated_imagery": True}
    clock = StageClock(1)
    score = partial(
        scored,
        prepare=partial(
            prepare_tile, plan=plan, imagery=imagery, graphs=None, pixels_of=torch.from_numpy
        ),
        scorer=Scorer(arguments.model_every),
        batch_size=8,
        workers=1,
        clock=clock,
    )
    watch = DiskWatch(folder)
    with watch, rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
        fill_store(tiles, score, store, lambda *_: None)
        tiled = peak_bytes()
        scored_map = ScoredMap(request, scene, store, UFZ, metadata)
        zones, _ = write_outputs(scored_map, folder / "map.gpkg", lambda *_: None)
    outputs = sum(path.stat().st_size for path in folder.glob("map.*"))
    return {
        "side": side,
        "megapixels": shapely.area(area) / 1e6,
        "tiles": len(tiles),
        "zones": len(zones),
        "seconds": time.process_time() - start,
        "before_mb": before / 1e6,
        "tiles_mb": tiled / 1e6,
        "peak_mb": peak_bytes() / 1e6,
        "disk_mb": watch.most / 1e6,
        "outputs_mb": outputs / 1e6,
        "planned_mb": work_bytes(plan, len(tiles), len(UFZ)) / 1e6,
    }


class DiskWatch:
    """The most bytes that a folder took on the disk during a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.most = 0
        self._folder, self._over = folder, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        pause = 0.5
        while not self._over.wait(pause):
            start, total = time.monotonic(), 0
            for path in self._folder.rglob("*"):
                try:
                    total += path.stat().st_blocks * 512
                except FileNotFoundError:  # renamed or removed meanwhile
                    continue
            self.most = max(self.most, total)
            pause = max(0.5, 20 * (time.monotonic() - start))  # looking is not to cost much


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Measure each size in a fresh process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--whole", type=int, default=16_384)
    parser.add_argument("--model-every", type=int, default=16, help="0 leaves the model out")
    parser.add_argument("--raster", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            found: dict[str, Any] = measure(arguments.one, arguments, Path(folder))
            print(json.dumps(found))
        return
    first: dict[str, float] = {}
    print(
        " side     Mpx  tiles  zones  CPU s  s/Mpx | memory MB: start  tiles   peak  ratio", end=""
    )
    print(" | disk MB: planned   used  outputs")
    for side in arguments.sides:
        command = [sys.executable, "-W", "ignore", __file__, "--one", str(side)]
        command += ["--whole", str(arguments.whole), "--model-every", str(arguments.model_every)]
        command += ["--raster" if arguments.raster else "--no-raster"]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(run.stdout)
        first = first or found
        print(
            f"{found['side']:5d} {found['megapixels']:7.1f} {found['tiles']:6d} "
            f"{found['zones']:6d} {found['seconds']:6.0f} "
            f"{found['seconds'] / found['megapixels']:6.2f} | "
            f"{found['before_mb']:16.0f} {found['tiles_mb']:6.0f} {found['peak_mb']:6.0f} "
            f"{found['peak_mb'] / first['peak_mb']:6.2f} | "
            f"{found['planned_mb']:16.1f} {found['disk_mb']:6.1f} {found['outputs_mb']:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
