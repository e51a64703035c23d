"""What OSM adds to images, what few labels cost, and what missing OSM costs: on the simulated task.

    python simulated_ufz.py FOLDER_OF_EXTRACTS --out run

Images are SIMULATED (drawn from OSM as land cover) and the labels are OSM's own zones, of which
every object is hidden from the model. The split is by city: a head learns in some extracts, and is
asked about central Helsinki and Singapore's bayfront.

The encoders are those of the bundled model, frozen, and only a new UPerNet head is trained, so that
features can be computed once. THESE ENCODERS HAVE SEEN THE TRAINING CITIES AND THEIR LABELS, though
not the test cities. So "10 % of the labels" says how few labels a new head needs, and nothing of
encoders that never saw one.

A seed decides the head's first weights, the order of the tiles, which tiles have labels, and which
OSM objects are missing. Each run is kept in `results.json` as soon as it ends; the same command
does what is missing, and prints the table.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from geolink.checkpoint import load_model
from geolink.files import atomic_path, replace_bytes
from geolink.graphs.scene import SceneGraphs
from geolink.legend import UFZ
from geolink.metrics.confusion import ConfusionMatrix
from geolink.models.geolink import GeoLink
from geolink.samples import Sample, SceneSampler, normalise
from geolink.sources.cache import Cache
from geolink.sources.disturbances import drop_objects
from geolink.sources.entities import OsmEntities
from geolink.sources.labels import WeakLabels
from geolink.sources.network import Network
from geolink.sources.osm import extract_bounds
from geolink.sources.places import sample_extract
from geolink.splits import few_shot
from geolink.training.finetuning import class_loss, model_for
from geolink.training.settings import REFERENCE_BATCH, TrainingSettings
from geolink.workflows.evaluate_maps import Ground, survey
from geolink.workflows.evaluation_request import EvaluateRequest
from geolink.workflows.scene import TILE_SIDE, tag_semantics
from geolink.workflows.site import Supply

METRES_PER_DEGREE = 111_320.0
# Centre of the box that is cut out of each extract; None takes the extract whole.
TRAINING = {
    "baltimore": (-76.590, 39.285),
    "darmstadt_hbf": None,
    "karlsruhe_kirchfeld": (8.396, 49.052),
    "liechtenstein": (9.512, 47.160),
    "monaco": (7.424, 43.737),
    "neuss": (6.690, 51.198),
    "north_bayreuth": (11.560, 49.980),
}
TEST = ("helsinki", "singapore_bayfront")
INPUTS = ("image", "OSM", "image + OSM")
FRACTIONS = (1.0, 0.1)
SHARES = (1.0, 0.8, 0.5, 0.2, 0.0)  # of the OSM objects, at test time
SEEDS = (0, 1, 2)
NO_OSM = 0.15  # share of the tiles that a head for both sees without OSM, as `finetune` does
BATCH, RATE = 8, 1e-3


@dataclass(frozen=True)
class Tiles:
    """Features of n tiles in half precision, and their labels.

    Attributes:
        image: (3, n, C, h, w) maps of the image encoder.
        grey: the same of pictures whose pixels all have the mean colour.
        hybrid: by name, (n, C, h, w) encodings of image and OSM: `grey` sees the objects over a
            grey picture, a number the share of the objects over the true one, for each seed.
        labels: (n, H, W) class ids.
    """

    image: Tensor
    grey: Tensor
    hybrid: Mapping[str, Tensor]
    labels: Tensor

    def maps(self, rows: Sequence[int], inputs: str, hybrid: str) -> list[Tensor]:
        """What the head sees of some tiles."""
        pictures = self.grey if inputs == "OSM" else self.image
        return [*(level[rows].float() for level in pictures), self.hybrid[hybrid][rows].float()]


def main() -> None:
    """Computes what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("extracts", type=Path, help="folder of .osm.pbf files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiles", type=int, default=4, help="tiles per side of a training city")
    parser.add_argument("--steps", type=int, default=40, help="steps of a head")
    parser.add_argument("--model", default="geolink-tiny", help="whose features are used")
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    base = load_model(options.model, offline=True)
    train = _joined([_features(name, base, options) for name in TRAINING])
    tests = {name: _features(name, base, options) for name in TEST}
    settings = {"tiles": options.tiles, "steps": options.steps, "model": base.card.sha256}
    path = options.out / "results.json"
    results: dict[str, Any] = {"settings": settings, "train": len(train.labels), "runs": {}}
    results["test"] = {name: len(tiles.labels) for name, tiles in tests.items()}
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        results["runs"] = earlier["runs"] if earlier["settings"] == settings else {}
    for seed, inputs, fraction in _plan():
        name = f"{inputs}, {fraction:.0%}, seed {seed}"
        if name not in results["runs"]:
            head = _trained(base, train, inputs, fraction, seed, options.steps)
            results["runs"][name] = _judged(head, tests, inputs, fraction, seed)
            replace_bytes(path, json.dumps(results, indent=1).encode())
        print(name, f"{results['runs'][name]['100%']['miou']:.3f}", flush=True)
    print(_table(results))


def _plan() -> Iterator[tuple[int, str, float]]:
    for seed in SEEDS:
        for fraction in FRACTIONS:
            for inputs in INPUTS:
                yield seed, inputs, fraction


# Features


def _features(name: str, base: GeoLink, options: argparse.Namespace) -> Tiles:
    """The tiles of a city that have labels, from the folder of results where they are there."""
    extent = "whole" if TRAINING.get(name) is None else f"{options.tiles}x{options.tiles}"
    path = options.out / f"{name}-{extent}-{base.card.sha256[:12]}.pt"
    if not path.exists():
        tiles = _encoded(name, base, options)
        with atomic_path(path, overwrite=True) as part:
            torch.save(vars(tiles), part)
    return Tiles(**torch.load(path, weights_only=True))


def _encoded(name: str, base: GeoLink, options: argparse.Namespace) -> Tiles:
    ground = _ground(name, base, options)
    assert ground.visible is not None
    shares = {"100%": ground.visible, "0%": None}
    for seed in SEEDS if name in TEST else ():
        for share in SHARES[1:-1]:
            dropped = drop_objects(ground.visible, 1 - share, seed=seed)
            shares[f"{share:.0%}, seed {seed}"] = dropped
    samplers = {key: _sampler(ground, entities, base) for key, entities in shares.items()}
    plan = ground.scene.plan
    rows = []
    for tile in ground.scene.tiles:
        grid = plan.tile_grid(tile)
        if (samplers["0%"].labels.read(grid) < len(UFZ)).mean() > 0.01:
            samples = {key: sampler.sample(grid) for key, sampler in samplers.items()}
            rows.append(_row(base, samples))
    print(f"{name}: {len(rows)} tiles", flush=True)
    return Tiles(
        torch.cat([row.image for row in rows], dim=1),
        torch.cat([row.grey for row in rows], dim=1),
        {key: torch.cat([row.hybrid[key] for row in rows]) for key in rows[0].hybrid},
        torch.cat([row.labels for row in rows]),
    )


@torch.inference_mode()
def _row(base: GeoLink, samples: Mapping[str, Sample]) -> Tiles:
    """The features of one tile, given with several shares of its objects."""
    whole = samples["100%"]
    image = normalise(whole.rgb)[None]
    grey = image.mean(dim=(2, 3), keepdim=True).expand_as(image).contiguous()
    hybrid = {}
    for key, sample in samples.items():
        *maps, hybrid[key] = base.encode(image, [sample.graph])
    *grey_maps, hybrid["grey"] = base.encode(grey, [whole.graph])
    return Tiles(
        torch.stack(maps).half(),
        torch.stack(grey_maps).half(),
        {key: encoding.half() for key, encoding in hybrid.items()},
        torch.from_numpy(whole.label)[None].long(),
    )


def _ground(name: str, base: GeoLink, options: argparse.Namespace) -> Ground:
    """A city as `evaluate` opens it."""
    extract = options.extracts / f"{name}.osm.pbf"
    if name == "helsinki":
        extract = sample_extract()
    west, south, east, north = extract_bounds(extract)
    centre = TRAINING.get(name)
    if centre is not None:
        half = (options.tiles * TILE_SIDE / 2 - 5) / METRES_PER_DEGREE
        wide = half / np.cos(np.radians(centre[1]))
        west, east = centre[0] - wide, centre[0] + wide
        south, north = centre[1] - half, centre[1] + half
    request = EvaluateRequest(
        bbox=(west, south, east, north),
        osm=extract,
        imagery="simulated",
        labels="osm",
        gsd=1.0,
        overlap=0.0,
        offline=True,
    )
    return survey(request, base, Supply(Cache(), Network(offline=True)))[0]


def _sampler(ground: Ground, entities: OsmEntities | None, base: GeoLink) -> SceneSampler:
    scene = ground.scene
    assert scene.entities is not None
    encoder, counts = tag_semantics(base.card, offline=True)
    side = base.config.coverage_side
    graphs = None
    if entities is not None:
        graphs = SceneGraphs(entities, encoder, counts, coverage_side=side)
    labels = WeakLabels(scene.entities, sea=scene.sea())
    return SceneSampler(scene.imagery, entities, graphs, labels=labels)


def _joined(parts: Sequence[Tiles]) -> Tiles:
    return Tiles(
        torch.cat([part.image for part in parts], dim=1),
        torch.cat([part.grey for part in parts], dim=1),
        {key: torch.cat([part.hybrid[key] for part in parts]) for key in parts[0].hybrid},
        torch.cat([part.labels for part in parts]),
    )


# Heads


def _trained(
    base: GeoLink, tiles: Tiles, inputs: str, fraction: float, seed: int, steps: int
) -> torch.nn.Module:
    """A new head, trained on a class-balanced fraction of the tiles."""
    legend = replace(UFZ, name="new")  # as other classes get it, a head with new weights
    head = model_for(base, "segment", legend, seed=seed).decoder.train()
    keys = [f"{i:05d}" for i in range(len(tiles.labels))]
    counts = np.array([np.bincount(label.ravel(), minlength=256)[:9] for label in tiles.labels])
    taught = [int(key) for key in few_shot(keys, counts, fraction, seed=seed)]
    settings = TrainingSettings(batch_size=BATCH, base_rate=RATE * REFERENCE_BATCH / BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=settings.weight_decay)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step, steps=steps, steps_per_epoch=max(steps // 10, 1))
        rows = rng.choice(taught, min(BATCH, len(taught)), replace=False).tolist()
        hybrid = _hybrid_of(inputs)
        if inputs == "image + OSM" and rng.random() < NO_OSM:
            hybrid = "0%"
        scores = _at_full_size(head(tiles.maps(rows, inputs, hybrid)))
        loss = class_loss(scores, tiles.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.eval()


def _judged(
    head: torch.nn.Module, tests: Mapping[str, Tiles], inputs: str, fraction: float, seed: int
) -> dict[str, dict[str, float]]:
    """Figures of a head on the test cities, by the share of the objects that it is given."""
    given = {"100%": _hybrid_of(inputs)}
    if inputs == "image + OSM" and fraction == 1:
        given["0%"] = "0%"
        given |= {f"{s:.0%}": f"{s:.0%}, seed {seed}" for s in SHARES[1:-1]}
    return {share: _figures(head, tests, inputs, hybrid) for share, hybrid in given.items()}


@torch.inference_mode()
def _figures(
    head: torch.nn.Module, tests: Mapping[str, Tiles], inputs: str, hybrid: str
) -> dict[str, float]:
    matrix = ConfusionMatrix(np.zeros((len(UFZ), len(UFZ)), np.int64))
    for tiles in tests.values():
        for row in range(len(tiles.labels)):
            scores = _at_full_size(head(tiles.maps([row], inputs, hybrid)))
            chosen = scores.argmax(dim=1)[0].byte().numpy()
            label = tiles.labels[row].byte().numpy()
            matrix += ConfusionMatrix.of(label, chosen, classes=len(UFZ))
    return {"miou": matrix.mean_iou, "mean_f1": matrix.mean_f1, "accuracy": matrix.accuracy}


def _hybrid_of(inputs: str) -> str:
    return {"image": "0%", "OSM": "grey", "image + OSM": "100%"}[inputs]


def _at_full_size(scores: Tensor) -> Tensor:
    size = (TILE_SIDE, TILE_SIDE)
    return functional.interpolate(scores, size, mode="bilinear", align_corners=False)


# The table


def _table(results: Mapping[str, Any]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    lines = ["| input | labels | OSM at test time | mIoU | mean F1 | accuracy |"]
    lines += ["|---|---|---|---|---|---|"]
    for fraction in FRACTIONS:
        for inputs in INPUTS:
            runs = [results["runs"][f"{inputs}, {fraction:.0%}, seed {s}"] for s in SEEDS]
            for share in sorted(runs[0], key=lambda text: -int(text[:-1])):
                shown = "none" if inputs == "image" else share
                values = (
                    [run[share][name] for run in runs] for name in ("miou", "mean_f1", "accuracy")
                )
                cells = " | ".join(f"{np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}" for v in values)
                lines.append(f"| {inputs} | {fraction:.0%} | {shown} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
