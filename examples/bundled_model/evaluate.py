"""Measures a model on central Helsinki, which it has not seen: with OSM, without, and baselines.

    python evaluate.py geolink-tiny --seeds 3
    python evaluate.py geolink-tiny NEW_RUN --seeds 3      # old and new, on the same pictures

The imagery is SIMULATED and the reference is weak (OSM's own zones), so the figures say how well
mapped zones are found again, not how accurate a map from real imagery is. The maps are those that
`geolink evaluate` measures; this script adds rows. Seeds are appearances of the city.

- hidden: no object that gave a label is in the graph: zones have to be told from buildings, shops
  and the picture.
- mapped: all objects are there.
- image only: no OSM at all.
- OSM only: the objects of `hidden`, over a picture that has the mean colour everywhere.
- majority: the reference's most frequent class everywhere.
- vote: each building and each shop, office, ... votes for a use; the picture is not seen.
- half hidden: half of the label-giving objects are there, and what the others gave is asked for.
- nearest zone: the same question, answered by the class of the nearest pixel that is mapped.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from geolink.checkpoint import load_model
from geolink.grid import GridSpec
from geolink.legend import IGNORE, UFZ
from geolink.metrics.intervals import bootstrap_difference
from geolink.metrics.tally import Measured
from geolink.models.geolink import GeoLink
from geolink.rasters import burn
from geolink.reports.record import Condition
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.entities import OsmEntities
from geolink.sources.labels import WeakLabels, label_mask
from geolink.sources.network import Network
from geolink.workflows.evaluate_maps import Blocks, DrawnMap, Ground, majority, measure, survey
from geolink.workflows.evaluate_maps import tally as tally_of
from geolink.workflows.evaluation_request import EvaluateRequest
from geolink.workflows.progress import silent
from geolink.workflows.site import Supply
from geolink.workflows.trials import Trial

FIGURES = ("miou", "accuracy", "ece")
COMPARED = (
    ("hidden", "image only"),
    ("hidden", "OSM only"),
    ("hidden", "majority"),
    ("hidden", "vote"),
    ("half hidden", "nearest zone"),
)
RULES = ("majority", "vote", "nearest zone")

# What a use looks like in tags, in the order in which they are asked.
VOTES: tuple[tuple[str, str, str], ...] = (
    ("institution", "amenity", "school kindergarten university hospital place_of_worship library"),
    ("institution", "building", "school university hospital church public civic government"),
    ("industrial", "building", "industrial warehouse manufacture"),
    ("commercial", "shop", "*"),
    ("commercial", "office", "*"),
    ("commercial", "tourism", "hotel hostel"),
    ("commercial", "amenity", "restaurant cafe bar pub fast_food bank pharmacy cinema nightclub"),
    ("commercial", "building", "commercial retail office hotel supermarket"),
    ("transport", "amenity", "parking parking_entrance taxi"),
    ("transport", "building", "train_station transportation parking"),
    ("green", "leisure", "playground pitch garden"),
    ("residential", "building", "*"),
)
POINT_AREA = 150.0  # square metres for which a point votes
REACH = 25.0  # metres, deviation of the weight of a vote


@dataclass(frozen=True)
class NoPicture:
    """An `ImageSource` that has the same colour everywhere."""

    colour: tuple[int, ...]
    info: SourceInfo = field(default_factory=lambda: SourceInfo("no picture"))

    def read(self, grid: GridSpec) -> ImageTile:
        """Pixels of `grid`."""
        rgb = np.empty((3, *grid.shape), np.uint8)
        rgb[:] = np.array(self.colour, np.uint8)[:, None, None]
        return ImageTile(rgb, np.ones(grid.shape, bool))


def main() -> None:
    """Reads the command line, measures each model and prints a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seeds", type=int, default=3, help="appearances of the city")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    found = {name: rows_of(name, options.seeds) for name in options.models}
    for name, rows in found.items():
        print(f"{name}: central Helsinki, SIMULATED imagery, weak reference from OSM, 1 m")
        print(table(rows), "\n", differences(rows), sep="")
    if options.json:
        record = {
            name: {row: {f: v.value for f, v in c.figures.items()} for row, c in rows.items()}
            for name, rows in found.items()
        }
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


def rows_of(name: str, seeds: int) -> dict[str, Condition]:
    """What was measured of a model and of the baselines."""
    request = EvaluateRequest(city="sample", labels="osm", model=name, seeds=seeds, offline=True)
    model = load_model(name, offline=True)
    (ground,) = survey(request, model, Supply(Cache(), Network(offline=True)))
    tally = partial(tally_of, ground, legend=UFZ, request=request)
    half, known = half_hidden(ground)
    with tempfile.TemporaryDirectory() as work:
        draw = partial(_maps, model=model, request=request, work=Path(work))
        hidden = draw(ground, "hidden")
        mapped = draw(replace(ground, visible=ground.scene.entities), "mapped")
        colour = tuple(round(255 * mean) for mean in model.card.mean)
        blank = replace(ground.scene, imagery=NoPicture(colour))
        objects = draw(replace(ground, scene=blank), "objects")
        partly = draw(half, "half")
    tally_half = partial(tally_of, half, legend=UFZ, request=request)
    runs: dict[str, list[Blocks]] = {
        "hidden": [tally(with_osm) for with_osm, _ in hidden],
        "mapped": [tally(with_osm) for with_osm, _ in mapped],
        "image only": [tally(without) for _, without in hidden],
        "OSM only": [tally(with_osm) for with_osm, _ in objects],
        "majority": [majority([ground], UFZ, request)],
        "vote": [tally(_certain(votes(ground)))],
        "half hidden": [tally_half(with_osm) for with_osm, _ in partly],
        "nearest zone": [tally_half(_certain(nearest_zone(known)))],
    }
    return {row: Condition.of(row, "main", blocks, UFZ) for row, blocks in runs.items()}


def _maps(
    ground: Ground, row: str, *, model: GeoLink, request: EvaluateRequest, work: Path
) -> list[tuple[DrawnMap, DrawnMap]]:
    """The map with OSM and without, once per seed; of what does not look different, once."""
    options: dict[str, Any] = {"device": torch.device("cpu"), "progress": silent}
    (work / row).mkdir()
    return [
        measure(ground, Trial(row), model, request, seed=seed, work=work / row, **options)
        for seed in range(request.seeds if ground.simulated else 1)
    ]


# Rules instead of a model


def votes(ground: Ground) -> NDArray[np.uint8]:
    """The use that most of the visible buildings and points around a pixel speak for."""
    assert ground.visible is not None
    grid = ground.scene.grid
    weight = np.zeros((len(UFZ), *grid.shape), np.float32)
    for use, shapes in _voters(ground.visible).items():
        here = burn(shapes, [1] * len(shapes), grid, fill=0).astype(np.float32)
        weight[UFZ.id_of(use)] = gaussian_filter(here, REACH / grid.gsd, truncate=3)
    classes: NDArray[np.uint8] = weight.argmax(axis=0).astype(np.uint8)
    classes[weight.max(axis=0) < 1e-3] = UFZ.id_of("green")
    return classes


def _voters(entities: OsmEntities) -> dict[str, list[Any]]:
    """Areas that vote, by use; points as squares."""
    found: dict[str, list[Any]] = {}
    side = POINT_AREA**0.5
    for frame in (entities.polygon, entities.point):
        for tags, shape in zip(frame["tags"], frame.geometry, strict=True):
            use = next((use for use, key, values in VOTES if _says(tags, key, values)), None)
            if use is not None:
                area = shape.buffer(side / 2, cap_style="square") if shape.area == 0 else shape
                found.setdefault(use, []).append(area)
    return found


def _says(tags: Mapping[str, str], key: str, values: str) -> bool:
    value = tags.get(key, "no")
    return value != "no" and (values == "*" or value in values.split())


def half_hidden(ground: Ground) -> tuple[Ground, NDArray[np.uint8]]:
    """The place with half of the objects that gave labels, asked for what the others gave.

    Returns:
        The place, and (height, width) class ids of what is still mapped.
    """
    entities = ground.scene.entities
    assert entities is not None
    gave = label_mask(entities)
    names = {kind: entities.frame(kind)["osm_id"].to_numpy() for kind in gave}
    every = np.unique(np.concatenate([names[kind][mask] for kind, mask in gave.items()]))
    hidden = every[np.random.default_rng(0).random(len(every)) < 0.5]
    shown = entities.select({k: ~(mask & np.isin(names[k], hidden)) for k, mask in gave.items()})
    known = WeakLabels(shown).read(ground.scene.grid)
    asked = np.where(known == ground.reference, np.uint8(IGNORE), ground.reference)
    return replace(ground, visible=shown, reference=asked), known


def nearest_zone(known: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class of the nearest pixel that has one."""
    unknown = known == IGNORE
    near = distance_transform_edt(unknown, return_distances=False, return_indices=True)
    classes: NDArray[np.uint8] = known[tuple(near)]
    return classes


def _certain(classes: NDArray[np.uint8]) -> DrawnMap:
    return DrawnMap(classes, np.ones(classes.shape, np.float32))


# What is printed


def table(rows: Mapping[str, Condition]) -> str:
    """Figures of all rows; a model's confidence means something, a rule's does not."""
    lines = [
        "| row | mIoU | interval over places | accuracy | ECE | " + " | ".join(UFZ.names) + " |",
        "|---" * (5 + len(UFZ)) + "|",
    ]
    for row, condition in rows.items():
        miou, accuracy, ece = (condition.figures[name] for name in FIGURES)
        spread = f" ± {np.std(miou.runs):.3f}" if len(miou.runs) > 1 else ""
        low, high = miou.over_places
        ious = [condition.figures[f"iou.{name}"].value for name in UFZ.names]
        cells = [
            row,
            f"{miou.value:.3f}{spread}",
            f"{low:.3f} to {high:.3f}",
            f"{accuracy.value:.3f}",
            "" if row in RULES else f"{ece.value:.3f}",
            *("-" if np.isnan(iou) else f"{iou:.3f}" for iou in ious),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(rows: Mapping[str, Condition]) -> str:
    """How much the model with OSM is better than other rows, drawn block by block together."""
    lines = []
    for row, other in COMPARED:
        gap, low, high = gap_of(rows[other].blocks, rows[row].blocks)
        lines.append(f"{row} - {other}: mIoU {gap:+.3f} ({low:+.3f} to {high:+.3f})")
    return "\n".join(lines)


def gap_of(first: Mapping[str, Measured], second: Mapping[str, Measured]) -> Sequence[float]:
    """Difference in mean IoU over all seeds, with the ends of its interval over places."""

    def miou(part: Measured) -> dict[str, float]:
        return {"miou": part.figures(UFZ)["miou"]}

    whole = [Condition.of("", "main", [blocks], UFZ, draws=2) for blocks in (first, second)]
    before, after = (condition.figures["miou"].value for condition in whole)
    return after - before, *bootstrap_difference(first, second, miou)["miou"]


if __name__ == "__main__":
    main()
