"""Does pretraining help where labels are few, and which objective does it? On the simulated task.

    python evidence.py EXTRACTS/*.osm.pbf --out run

Everything is measured on SIMULATED imagery with weak labels from OSM's own zones, so the figures
compare ways to pretrain with each other and say nothing of real maps. Encoders are pretrained on
tiles of the extracts, none of them of Helsinki. Then they are frozen; a linear classifier of 16 m
patches learns from 10 % of the labelled tiles of one half of central Helsinki and is asked about
the other blocks of it, once from image features alone and once with the hybrid encodings of image
and OSM beside them. All objects that gave labels are hidden from the graphs.

A seed decides the weights to start from, the order and the views of pretraining, the look of the
simulated city, and which tiles have labels; all rows of a seed share the last two. Each run is kept
in `results.json` of the output folder as soon as it ends, and a run that is cut goes on from its
state; the same command does what is missing, and prints the table.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from geolink.augment import Augmentation
from geolink.checkpoint import load_model
from geolink.config import ModelConfig
from geolink.files import replace_bytes
from geolink.graphs.scene import SceneGraphs
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.grid import WGS84, GridSpec, reproject_bounds, utm_crs
from geolink.legend import IGNORE, UFZ
from geolink.metrics import ConfusionMatrix
from geolink.metrics.probes import linear_probe
from geolink.models.geolink import GeoLink
from geolink.models.objectives import ObjectiveConfig
from geolink.samples import Sample, SceneSampler, hide_givers, normalise
from geolink.sources.osm import extract_bounds, read_osm
from geolink.sources.places import sample_extract
from geolink.sources.sea import sea_polygons
from geolink.sources.simulated import SimulatedImagery
from geolink.splits import Split, block_split, few_shot
from geolink.tiles import TilePlan
from geolink.training.settings import TrainingSettings
from geolink.workflows.pretrain import PretrainRequest, pretrain
from geolink.workflows.pretrain_data import SHARDS
from geolink.workflows.shard_building import ShardRequest, build_shards

SIDE, PATCH, GSD = 64, 16, 1.0
BLOCK_M = 256.0
LABELS = 0.1
FULL = ObjectiveConfig()
ROWS: dict[str, ObjectiveConfig | None] = {
    "no pretraining": None,
    "all objectives": FULL,
    "without consistency": replace(FULL, consistency=0.0),
    "without contrast": replace(FULL, contrast=0.0),
    "without reconstruction": replace(FULL, reconstruction=0.0),
    "reconstruction alone": replace(FULL, contrast=0.0, consistency=0.0),
    # The tag vectors of the table have length 1, so a number of them is 384 times smaller than one
    # of a vector whose numbers have variance 1; this weight makes up for it.
    "all, consistency x 384": replace(FULL, consistency=3.84),
}
HEADS = ("image", "image + OSM")


@cache
def city(seed: int) -> tuple[list[Sample], Split]:
    """The labelled tiles of central Helsinki in one look, and which of them teach and test."""
    path = sample_extract()
    degrees = extract_bounds(path)
    crs = utm_crs((degrees.west + degrees.east) / 2, (degrees.south + degrees.north) / 2)
    bounds = reproject_bounds(degrees, WGS84, crs)
    entities = read_osm(path, bounds, crs=crs)
    sea = sea_polygons(entities, bounds)
    graphs = SceneGraphs(entities, TableTagEncoder(), bundled_key_counts())
    sampler = SceneSampler(
        SimulatedImagery(entities, seed=seed, sea=sea), entities, graphs, sea=sea
    )
    plan = TilePlan(GridSpec.from_bounds(crs, bounds, GSD), side=SIDE, overlap_px=0)
    rng = np.random.default_rng(seed)  # hiding everything takes no chance, but an argument
    tiles = [hide_givers(sampler.sample(plan.tile_grid(i)), 1.0, rng) for i in range(len(plan))]
    centres = {}
    for i in range(len(plan)):
        b = plan.tile_grid(i).bounds
        centres[str(i)] = ((b.west + b.east) / 2, (b.south + b.north) / 2)
    shares = (0.5, 0.1, 0.4)
    split = block_split(centres, block_m=BLOCK_M, buffer_m=SIDE * GSD, shares=shares, seed=seed)
    return tiles, split


def patch_labels(sample: Sample) -> NDArray[np.int64]:
    """(patches,) the most frequent class of each patch; IGNORE where most of it has no label."""
    side = SIDE // PATCH
    cells = sample.label.reshape(side, PATCH, side, PATCH).transpose(0, 2, 1, 3)
    counts = [np.bincount(cell.ravel(), minlength=256) for cell in cells.reshape(side**2, -1)]
    return np.array([count.argmax() for count in counts])


@torch.inference_mode()
def features(model: GeoLink, samples: list[Sample]) -> dict[str, NDArray[np.float32]]:
    """(samples, patches, channels) frozen features, for each head."""
    found: dict[str, list[NDArray[np.float32]]] = {head: [] for head in HEADS}
    for start in range(0, len(samples), 32):
        some = samples[start : start + 32]
        images = torch.stack([normalise(sample.rgb) for sample in some])
        *maps, hybrid = model.encode(images, [sample.graph for sample in some])
        image = torch.cat(maps, dim=1).flatten(2).transpose(1, 2)
        both = torch.cat([image, hybrid.flatten(2).transpose(1, 2)], dim=2)
        for head, values in zip(HEADS, (image, both), strict=True):
            found[head].append(values.numpy())
    return {head: np.concatenate(values) for head, values in found.items()}


def judge(model: GeoLink, seed: int) -> dict[str, dict[str, float]]:
    """Mean IoU and accuracy of a linear classifier on frozen features, for each head."""
    samples, split = city(seed)
    labels = np.array([patch_labels(sample) for sample in samples])
    pixels = np.array([np.bincount(row, minlength=256)[: len(UFZ)] for row in labels])
    taught, tuned = (
        _with_labels(keys, pixels, seed=seed) for keys in (split.train, split.validation)
    )
    asked = [int(key) for key in split.test]
    scores = {}
    for head, values in features(model, samples).items():

        def part(tiles: list[int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            known = labels[tiles] != IGNORE
            return values[tiles][known], labels[tiles][known]  # noqa: B023 - used within the turn

        (train, classes), (test, truth) = part(taught), part(asked)
        votes = linear_probe(train, classes, test, validation=part(tuned))
        found = np.unique(classes)[votes.argmax(axis=1)]
        matrix = ConfusionMatrix.of(
            truth.astype(np.uint8), found.astype(np.uint8), classes=len(UFZ)
        )
        scores[head] = {"miou": matrix.mean_iou, "accuracy": matrix.accuracy}
    return scores


def _with_labels(keys: Sequence[str], pixels: NDArray[np.int64], *, seed: int) -> list[int]:
    """The tiles, a tenth of those that have labels, whose labels may be used."""
    known = [int(key) for key in keys if pixels[int(key)].any()]
    kept = few_shot([str(tile) for tile in known], pixels[known], LABELS, seed=seed)
    return [int(key) for key in kept]


def encoder(
    objectives: ObjectiveConfig | None, seed: int, folder: Path, args: argparse.Namespace
) -> GeoLink:
    """A model that is pretrained in a run folder, or as it starts."""
    if objectives is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return GeoLink(ModelConfig(image_size=SIDE, pretraining=True)).eval()
    settings = TrainingSettings(
        epochs=args.epochs,
        batch_size=args.batch_size,
        base_rate=args.rate * 256 / args.batch_size,
        warmup_epochs=0.1 * args.epochs,
        seed=seed,
        workers=0,
        device="cpu",
    )
    pretrain(
        PretrainRequest(
            out=folder,
            images=args.out / SHARDS,
            image_size=SIDE,
            objectives=objectives,
            training=settings,
            augmentation=Augmentation(scale=(0.5, 1.0)),
            every=args.epochs,
            resume=True,
        )
    )
    return load_model(folder)


def planned(seeds: int) -> list[tuple[str, int]]:
    """Every row and seed: first what pretraining brings at all, then what each objective does."""
    main, others = list(ROWS)[:2], list(ROWS)[2:]
    return [
        *((row, seed) for seed in range(seeds) for row in main),
        *((row, seed) for seed in range(seeds) for row in others),
    ]


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean and deviation over seeds of each row, and its gain over no pretraining, as markdown."""
    lines = [
        "| pretraining | seeds | image | image + OSM | gain image | gain image + OSM |",
        "|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        seeds = [key.rsplit("/", 1)[1] for key in results if key.rsplit("/", 1)[0] == row]
        if not seeds:
            continue
        values = np.array([[results[f"{row}/{s}"][h]["miou"] for h in HEADS] for s in seeds])
        base = np.array([[results[f"no pretraining/{s}"][h]["miou"] for h in HEADS] for s in seeds])
        cells = [*_spread(values), *(_spread(values - base) if row != "no pretraining" else "--")]
        lines.append(f"| {row} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _spread(values: NDArray[np.float64]) -> list[str]:
    """Mean ± deviation of each column; of one seed, the value."""
    if len(values) == 1:
        return [f"{value:.3f}" for value in values[0]]
    return [f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), values.std(0), strict=True)]


def main() -> None:
    """Reads the command line, does what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extracts", type=Path, nargs="+", help="none of them of Helsinki")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiles", type=int, default=250, help="of each extract, at most")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak of the learning rate")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "runs").mkdir(exist_ok=True)
    build_shards(
        ShardRequest(
            out=args.out / SHARDS,
            imagery="simulated",
            osm=tuple(args.extracts),
            gsd=(GSD,),
            side=SIDE,
            limit=args.tiles,
            min_objects=3,
        )
    )
    file = args.out / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for row, seed in planned(args.seeds):
        run = f"{row}/{seed}"
        if run in results:
            continue
        started = time.monotonic()
        folder = args.out / "runs" / run.replace(" ", "-").replace("/", "-")
        results[run] = judge(encoder(ROWS[row], seed, folder, args), seed)
        replace_bytes(file, json.dumps(results, indent=1).encode())
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{run}: {results[run]} in {time.monotonic() - started:.0f} s", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
