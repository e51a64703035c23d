"""How many pixels change their class when the tiles start elsewhere, by the overlap of the tiles?

    python examples/overlap/study.py --out examples/overlap --figure docs/images/overlap.png

The middle of the city `sample` is mapped with the bundled model several times for each overlap,
the first tile at another pixel each time. If it did not matter where tiles lie, all maps would be
the same; the share of pixels whose class differs from the first map says how much it matters. The
imagery is SIMULATED, as the sample's always is. `results.json` holds what the table shows, and the
same figure of a small area, which a test compares with. A new bundled model needs a new study.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray

from geolink.checkpoint import load_model
from geolink.grid import GridSpec, PixelWindow
from geolink.models.geolink import GeoLink
from geolink.mosaic import TileStore, blend
from geolink.sources.cache import Cache
from geolink.sources.network import Network
from geolink.tiles import TilePlan
from geolink.workflows.acquire import gather
from geolink.workflows.inference import TileScorer, scored
from geolink.workflows.mapping import tile_preparer
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import TILE_SIDE, Scene, build_scene
from geolink.workflows.site import Supply, locate

MODEL = "geolink-tiny"
OVERLAPS = (0, 16, 32, 48, 56, 64, 96, 112)
# Pixels by which the first tile starts farther west and north.
MOVES = ((0, 0), (71, 37), (40, 95))
DEFAULT = round(PredictRequest().overlap * TILE_SIDE)
CHECK_SIDE = 256


@dataclass(frozen=True)
class Study:
    """A square area to be mapped again and again.

    Attributes:
        scene: what the area lies in.
        model: what maps it.
        area: pixels of `scene.grid`.
    """

    scene: Scene
    model: GeoLink
    area: PixelWindow

    def classes(self, overlap: int, move: tuple[int, int]) -> NDArray[np.uint8]:
        """(height, width) classes of the area, from tiles that start `move` pixels before it."""
        plan, area = self._plan(overlap, move)
        prepare = tile_preparer(replace(self.scene, plan=plan), self.model, offline=True)
        scorer = TileScorer(self.model, torch.device("cpu"))
        with tempfile.TemporaryDirectory() as folder:
            store = TileStore(Path(folder), "study", len(self.model.card.legend), plan.side)
            tiles = list(plan.tiles_meeting(area))
            for tile, result in scored(tiles, prepare, scorer, batch_size=1, workers=0):
                store.put(tile, result)
            return blend(store, plan, area).classes

    def _plan(self, overlap: int, move: tuple[int, int]) -> tuple[TilePlan, PixelWindow]:
        """Tiles over the area, and the area counted from where they start."""
        west, north = move
        area, grid = self.area, self.scene.grid
        reach = PixelWindow(
            area.row_off - north, area.col_off - west, area.height + north, area.width + west
        )
        own: GridSpec = grid.subgrid(reach)
        return TilePlan(own, TILE_SIDE, overlap), PixelWindow(north, west, area.height, area.width)


def open_study(side: int) -> Study:
    """The middle of the sample, `side` pixels wide and high, and the bundled model."""
    model = load_model(MODEL, offline=True)
    request = PredictRequest(city="sample", imagery="simulated", offline=True)
    supply = Supply(Cache(), Network(offline=True))
    materials = gather(request, locate(request, supply), supply)
    scene = build_scene(request, materials, model.card.gsd_range)
    middle = ((scene.grid.height - side) // 2, (scene.grid.width - side) // 2)
    return Study(scene, model, PixelWindow(*middle, side, side))


def flips(study: Study, overlap: int, moves: tuple[tuple[int, int], ...] = MOVES) -> list[float]:
    """Share of the pixels whose class differs from the first map's, for each further move."""
    first, *others = (study.classes(overlap, move) for move in moves)
    return [float((first != other).mean()) for other in others]


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Flips and cost against overlap."""
    overlap, mean, most, cost = (
        [row[name] for row in rows] for name in ("overlap_px", "mean", "most", "tiles")
    )
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    left.fill_between(overlap, 0, 100 * np.array(most), alpha=0.2, color="C0", lw=0)
    left.plot(overlap, 100 * np.array(mean), "o-", color="C0")
    left.set(xlabel=f"overlap of tiles of {TILE_SIDE} px (pixels)", ylim=(0, None))
    left.set_ylabel("pixels of another class (%): mean, most", color="C0")
    right = left.twinx()
    right.plot(overlap, cost, "s--", color="C1", ms=4)
    right.set_ylabel("tiles per area, against no overlap", color="C1")
    right.set_ylim(0, None)
    left.axvline(DEFAULT, color="0.5", ls=":")
    left.set_title("Classes that change when the tiles start elsewhere (simulated imagery)")
    figure.savefig(path, dpi=110)


def check(overlap: int) -> dict[str, float]:
    """Flips of an area that is small enough for a test, at the default overlap."""
    return {"side_px": CHECK_SIDE, "flips": flips(open_study(CHECK_SIDE), overlap, MOVES[:2])[0]}


def main() -> None:
    """Measures, prints, writes and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json")
    parser.add_argument("--figure", type=Path, required=True)
    parser.add_argument("--side", type=int, default=512, help="pixels of the area")
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = open_study(options.side)
    rows: list[dict[str, float]] = []
    print("overlap   mean   most   tiles")
    for overlap in OVERLAPS:
        found = flips(study, overlap)
        tiles = (TILE_SIDE / (TILE_SIDE - overlap)) ** 2
        mean = float(np.mean(found))
        row = {"overlap_px": overlap, "mean": mean, "most": max(found), "tiles": tiles}
        rows.append(row)
        print(f"{overlap:7} {row['mean']:6.2%} {row['most']:6.2%} {tiles:7.2f}", flush=True)
    area = {"city": "sample", "side_px": options.side, "gsd_m": study.scene.grid.gsd}
    record = {
        "simulated_imagery": True,
        "model": {"name": study.model.card.name, "sha256": study.model.card.sha256},
        "area": area,
        "moves_px": MOVES,
        "overlaps": rows,
        "check": check(DEFAULT),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(rows, options.figure)


if __name__ == "__main__":
    main()
