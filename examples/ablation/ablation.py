"""What does each choice bring? Segmentation, contrast and further bands on the simulated task.

    python make_samples.py EXTRACTS/*.osm.pbf --out samples --count 600
    python make_samples.py --sample --out test
    python ablation.py samples test --osm EXTRACTS --out run

Everything here is measured on SIMULATED imagery with weak labels from OSM's own zones, so the
figures compare choices with each other and say nothing of real maps. To fit on a CPU, the image
encoder of the bundled geolink-tiny is frozen, and its features of every tile are computed once and
kept: only OSM encoder, fusion and a narrow decoder are trained, for 160 steps of 8 tiles of at most
300 nodes. In training, a share of the objects that gave the labels is hidden from the graph; in the
test city all of them are. The further bands need the image encoder, and so have a short run of
their own that trains all of the bundled model on.

Each run is kept in `results.json` of the output folder as soon as it ends; the same command goes on
with the runs that are missing, and prints the table.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import bands
import contrast
import numpy as np
import segmentation
import torch
from tiles import Tile, load_tiles

from geolink.checkpoint import load_model
from geolink.files import replace_bytes
from geolink.sources.places import sample_extract

MOST_NODES = 300  # of a training tile; denser ones are left out, since they cost the most

# The tables, and the figures in their columns.
TABLES = {
    "segmentation": ("miou", "accuracy", "loss"),
    "type attention": ("info_nce", "top5", "train_loss"),
    "bands": ("miou", "accuracy"),
}

Result = dict[str, Any]


def planned_runs(args: argparse.Namespace) -> dict[str, Callable[[], Result]]:
    """Every run by its name `table/row/seed`, one seed after the other."""

    @cache
    def tiles(folder: Path) -> list[Tile]:
        return load_tiles(folder, load_model("geolink-tiny"), args.out / "features")

    @cache
    def banded(folder: Path, osm: Path) -> Any:  # noqa: ANN401 - samples with their pixels
        return bands.load(bands.add_band_files(folder, osm))

    @cache
    def training() -> list[Tile]:
        return [tile for tile in tiles(args.train) if tile.nodes <= MOST_NODES]

    def segment(row: segmentation.Row, seed: int) -> Result:
        return segmentation.run(row, seed, training(), tiles(args.test), args.steps)

    def contrasted(attention: Any, seed: int) -> Result:  # noqa: ANN401 - a TypeAttention
        return contrast.run(attention, seed, training(), tiles(args.test), args.contrast_steps)

    def more_bands(count: int, seed: int) -> Result:
        train, test = banded(args.train, args.osm), banded(args.test, sample_extract())
        return bands.run(count, seed, train, test, args.band_steps)

    runs: dict[str, Callable[[], Result]] = {}
    for seed in range(args.seeds):
        for row in segmentation.rows(args.semantic_dim):
            runs[f"segmentation/{row.name}/{seed}"] = partial(segment, row, seed)
        for attention in ("constant", "softmax"):
            runs[f"type attention/{attention}/{seed}"] = partial(contrasted, attention, seed)
        if args.osm:
            for count, name in ((3, "RGB"), (5, "RGB, height, near infrared")):
                runs[f"bands/{name}/{seed}"] = partial(more_bands, count, seed)
    return runs


def table(results: dict[str, Result]) -> str:
    """Mean and standard deviation over the seeds of every row, in Markdown."""
    lines = []
    for name, figures in TABLES.items():
        rows: dict[str, list[Result]] = {}
        for key, result in results.items():
            kind, row, _ = key.split("/")
            if kind == name:
                rows.setdefault(row, []).append(result)
        if rows:
            lines += ["", f"| {name} | " + " | ".join(figures) + " | seeds |"]
            lines.append("|---" * (len(figures) + 2) + "|")
        for row, found in rows.items():
            cells = [np.array([result[figure] for result in found]) for figure in figures]
            text = " | ".join(f"{c.mean():.3f} ± {c.std():.3f}" for c in cells)
            lines.append(f"| {row} | {text} | {len(found)} |")
    return "\n".join(lines[1:])


def main() -> None:
    """Reads the command line, does the runs that are missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="samples to train on")
    parser.add_argument("test", type=Path, help="samples of the test city")
    parser.add_argument("--osm", type=Path, help="folder of the extracts, for the further bands")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--contrast-steps", type=int, default=80)
    parser.add_argument("--band-steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--semantic-dim", type=int, default=384)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums on several threads round differently
    file = args.out / "results.json"
    results: dict[str, Result] = json.loads(file.read_text()) if file.exists() else {}
    for name, run in planned_runs(args).items():
        if name in results or name.split("/")[0] not in args.tables:
            continue
        started, cpu = time.monotonic(), time.process_time()
        result = run()
        result["seconds"] = round(time.monotonic() - started, 1)
        result["cpu_seconds"] = round(time.process_time() - cpu, 1)
        results[name] = result
        replace_bytes(file, json.dumps(results, indent=1).encode())
        print(name, result, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
