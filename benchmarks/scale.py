"""Does memory stay flat, and time follow the area, when a map grows?

    python benchmarks/scale.py                            # 1,024 to 4,096 pixels a side, minutes
    python benchmarks/scale.py --sides 4096 16384 65536   # an hour of one core

Times and measures the half of `geolink predict` that makes the map: blending, sieving, outlines,
statistics, class raster and GeoPackage, each size in a process of its own. No model runs: where it
would have left the scores of a tile on disk, a cheap stand-in computes them from the place of the
tile, smooth waves for each class, which give zones of about 10,000 pixels. Above `--whole` pixels a
side the area is sparse: squares along the diagonal of the map that add up to `--whole` squared.
Times are seconds of CPU, so that other work on the machine counts little; memory is the peak of
what the process holds (VmHWM), beside what it held with all libraries imported.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from geolink.grid import Bounds, GridSpec
from geolink.legend import UFZ
from geolink.models.heads import STRIDE
from geolink.mosaic import TileResult, TileStore
from geolink.sources.places import Place
from geolink.tiles import TilePlan
from geolink.workflows.mapping import work_bytes
from geolink.workflows.outputs import write_outputs
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import TILE_SIDE, Scene

CRS_35N = CRS.from_epsg(32635)
WAVES = 6  # per class
WAVELENGTHS = (150.0, 900.0)  # pixels
SQUARE = 1024  # pixels a side of the parts of a sparse area


@dataclass(frozen=True)
class MadeScores(TileStore):
    """A store whose tiles are computed when they are asked for; simulated, not of a model."""

    plan: TilePlan | None = None
    area: shapely.Geometry | None = None

    @cached_property
    def _wave(self) -> NDArray[np.float64]:
        """(3, classes, waves) rows per radian, columns per radian, and phase."""
        rng = np.random.default_rng(7)
        length = rng.uniform(*WAVELENGTHS, (self.classes, WAVES)) / (2 * np.pi)
        angle, phase = rng.uniform(0, 2 * np.pi, (2, self.classes, WAVES))
        return np.stack([np.cos(angle) / length, np.sin(angle) / length, phase])

    @cached_property
    def _wanted(self) -> frozenset[int]:
        return frozenset(cast(TilePlan, self.plan).tiles_in(self.area).tolist())

    def get(self, tile_id: int) -> TileResult | None:
        """Scores of a tile of the area."""
        if tile_id not in self._wanted:
            return None
        window = cast(TilePlan, self.plan).window(tile_id)
        steps = np.arange(self.side // STRIDE) * STRIDE
        down, right, phase = self._wave
        rows = np.exp(1j * (down * (window.row_off + steps[:, None, None]) + phase))
        cols = np.exp(1j * (right * (window.col_off + steps[:, None, None])))
        logits = 2 * np.einsum("rcw,scw->crs", rows, cols).real
        odds = np.exp(np.stack([logits, 0.8 * logits]))
        scores = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float16)
        return TileResult(scores, np.ones((self.side, self.side), bool))


def area_of(side: int, whole: int, grid: GridSpec) -> shapely.Geometry:
    """The whole map, or squares along its diagonal with the area of `whole` squared."""
    if side <= whole:
        return shapely.box(*grid.bounds)
    starts = np.linspace(0, side - SQUARE, (whole // SQUARE) ** 2).round()
    west, north = grid.west + starts, grid.north - starts
    return shapely.union_all(shapely.box(west, north - SQUARE, west + SQUARE, north))


def measure(side: int, whole: int, folder: Path) -> dict[str, float]:
    """Make a map of `side` by `side` pixels of one metre, and say what it took."""
    bounds = Bounds(300_000.0, 6_600_000.0 - side, 300_000.0 + side, 6_600_000.0)
    grid = GridSpec.from_bounds(CRS_35N, bounds, 1.0)
    plan = TilePlan(grid, TILE_SIDE, TILE_SIDE // 4)
    area = area_of(side, whole, grid)
    tiles = plan.tiles_in(area).tolist()
    place = cast(Place, None)  # not asked for any more, and so the sources
    scene = Scene(place, area, grid, plan, tiles, cast(Any, None), None, (), 1.0)
    store = MadeScores(
        folder / ".map.gpkg.work", "0" * 32, len(UFZ), TILE_SIDE, plan=plan, area=area
    )
    store.path.mkdir(parents=True)
    request = PredictRequest(city="made", out=folder / "map.gpkg", raster=folder / "map.tif")
    watch = DiskWatch(folder)
    metadata = {"title": "made", "simulated_imagery": True}
    start, before = time.process_time(), peak_bytes()
    with watch:
        zones, _ = write_outputs(
            request, scene, store, UFZ, metadata, folder / "map.gpkg", lambda *_: None
        )
    seconds = time.process_time() - start
    outputs = sum((folder / name).stat().st_size for name in ("map.gpkg", "map.tif"))
    return {
        "side": side,
        "megapixels": area.area / 1e6,
        "zones": len(zones),
        "seconds": seconds,
        "before_mb": before / 1e6,
        "peak_mb": peak_bytes() / 1e6,
        "disk_mb": watch.most / 1e6,
        "outputs_mb": outputs / 1e6,
        "planned_mb": work_bytes(grid, 0, TILE_SIDE, 0) / 1e6,
    }


class DiskWatch:
    """The most bytes that a folder held during a `with` block, looked at twice a second."""

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
        while not self._over.wait(0.5):
            total = 0
            for path in self._folder.rglob("*"):
                try:
                    total += path.stat().st_size
                except FileNotFoundError:  # renamed or removed meanwhile
                    continue
            self.most = max(self.most, total)


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
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(arguments.one, arguments.whole, Path(folder))))
        return
    first: dict[str, float] = {}
    print(" side     Mpx   zones  CPU s  s/Mpx | memory MB: start   peak  ratio", end="")
    print(" | disk MB: planned   used  outputs")
    for side in arguments.sides:
        command = [sys.executable, "-W", "ignore", __file__, "--one", str(side)]
        command += ["--whole", str(arguments.whole)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(run.stdout)
        first = first or found
        print(
            f"{found['side']:5d} {found['megapixels']:7.1f} {found['zones']:7d} "
            f"{found['seconds']:6.0f} {found['seconds'] / found['megapixels']:6.2f} | "
            f"{found['before_mb']:16.0f} {found['peak_mb']:6.0f} "
            f"{found['peak_mb'] / first['peak_mb']:6.2f} | "
            f"{found['planned_mb']:16.1f} {found['disk_mb']:6.1f} {found['outputs_mb']:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
