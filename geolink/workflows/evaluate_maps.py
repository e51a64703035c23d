"""Evaluation on places: the map that `predict` draws, against a reference of the whole place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geolink._version import __version__
from geolink.errors import ConfigError, CoverageError, place_named
from geolink.files import file_identity
from geolink.grid import GridSpec
from geolink.legend import IGNORE, UFZ, Legend
from geolink.metrics.segmentation import SegmentationTally, tally_map
from geolink.models.geolink import GeoLink
from geolink.mosaic import TileStore, blend, fingerprint
from geolink.rasters import BLOCK_SIDE, burn
from geolink.reports.maps import MapPair
from geolink.sources.base import SourceInfo
from geolink.sources.entities import OsmEntities
from geolink.sources.labels import WeakLabels, label_mask
from geolink.sources.reference import Labels, read_reference
from geolink.sources.simulated import SimulatedImagery
from geolink.workflows.acquire import gather
from geolink.workflows.evaluation_request import EvaluateRequest
from geolink.workflows.inference import TileScorer, score_tiles
from geolink.workflows.labelled import as_prediction, sites
from geolink.workflows.mapping import tile_preparer
from geolink.workflows.progress import Progress
from geolink.workflows.scene import Scene, build_scene
from geolink.workflows.site import Site, Supply, way_out_named
from geolink.workflows.trials import Trial

Blocks = dict[str, SegmentationTally]
WITH, WITHOUT = 0, 1


@dataclass(frozen=True)
class Ground:
    """A place and what is known of it.

    Attributes:
        scene: imagery, OSM and tiling; the imagery is that of the first seed.
        visible: the OSM objects that the model may see; those that gave labels are not among them.
        reference: (height, width) class ids, 255 where unknown or outside the place.
        blocks: (height, width) number of each pixel's spatial block.
        names: of the blocks.
    """

    scene: Scene
    visible: OsmEntities | None
    reference: NDArray[np.uint8]
    blocks: NDArray[np.int32]
    names: tuple[str, ...]

    @property
    def simulated(self) -> bool:
        """True where the imagery is rendered from OSM."""
        return self.scene.imagery.info.simulated


@dataclass(frozen=True)
class DrawnMap:
    """A class map of a whole place, and what the model says of its confidence."""

    classes: NDArray[np.uint8]
    confidence: NDArray[np.float32]


def survey(request: EvaluateRequest, model: GeoLink, supply: Supply) -> list[Ground]:
    """Opens the places of a request and reads their reference.

    Raises:
        ConfigError: the labels have other classes than the model.
        CoverageError: nothing is labelled.
        InputError, UnavailableError: a source cannot be used, or is not here.
    """
    if request.weak and model.card.legend.names != UFZ.names:
        raise ConfigError(
            f"labels from OSM have the classes {', '.join(UFZ.names)}, and the model has "
            f"{', '.join(model.card.legend.names)}; give labels of its classes with --labels FILE"
        )
    grounds = []
    for place, site in sites(request, supply):
        with place_named(site.place.name, several=request.several):
            grounds.append(_ground(place, site, model, supply))
    return grounds


def measure(
    ground: Ground,
    trial: Trial,
    model: GeoLink,
    request: EvaluateRequest,
    *,
    seed: int,
    work: Path,
    device: torch.device,
    progress: Progress,
) -> tuple[DrawnMap, DrawnMap]:
    """Draws the map of a place in one trial, with OSM and without.

    Tile scores are kept in `work`, so that a run that is cut goes on from there.
    """
    scene = ground.scene
    imagery = scene.imagery
    if ground.simulated and seed != request.seed:
        assert scene.entities is not None  # simulated imagery is drawn from OSM
        imagery = SimulatedImagery(scene.entities, seed=seed, sea=scene.sea())
    shown = replace(
        scene,
        imagery=trial.imagery(imagery, seed),
        entities=None if ground.visible is None else trial.entities(ground.visible, seed),
    )
    prepare = tile_preparer(shown, model, offline=request.offline)
    classes = len(model.card.legend)
    digest = _fingerprint(ground, trial, model, request, seed, device)
    store = TileStore(work, digest, classes, scene.plan.side)
    score_tiles(
        scene.tiles,
        prepare,
        TileScorer(model, device),
        store,
        batch_size=request.batch_size,
        workers=request.workers,
        progress=progress,
    )
    return _drawn(store, scene)


def tally(ground: Ground, drawn: DrawnMap, legend: Legend, request: EvaluateRequest) -> Blocks:
    """What is counted of a map in each spatial block that has a reference."""
    tallies = tally_map(
        ground.reference,
        drawn.classes,
        drawn.confidence,
        ground.blocks,
        classes=len(legend),
        count=len(ground.names),
        gsd=ground.scene.grid.gsd,
        distances_m=request.distances_m,
        min_zone_area_m2=request.min_zone_area_m2,
    )
    return {n: t for n, t in zip(ground.names, tallies, strict=True) if t.confusion.pixels}


def majority(grounds: Sequence[Ground], legend: Legend, request: EvaluateRequest) -> Blocks:
    """What is counted of maps that have the reference's most frequent class everywhere."""
    counts = sum(np.bincount(g.reference.ravel(), minlength=IGNORE + 1) for g in grounds)
    counts = np.asarray(counts)[: len(legend)]
    share = float(counts.max() / counts.sum())
    found: Blocks = {}
    for ground in grounds:
        shape = ground.reference.shape
        constant = DrawnMap(
            np.full(shape, counts.argmax(), np.uint8), np.full(shape, share, np.float32)
        )
        found |= tally(ground, constant, legend, request)
    return found


def picture(ground: Ground, drawn: DrawnMap) -> MapPair:
    """Reference and map of a place, for the picture of errors."""
    grid = ground.scene.grid
    return MapPair(ground.scene.place.name, ground.reference, drawn.classes, grid.gsd)


def infos(ground: Ground) -> Iterator[SourceInfo]:
    """Where imagery and OSM of a place come from."""
    yield ground.scene.imagery.info
    if ground.scene.entities is not None:
        yield ground.scene.entities.info


def _ground(request: EvaluateRequest, site: Site, model: GeoLink, supply: Supply) -> Ground:
    with way_out_named(request, site):
        materials = gather(request, site, supply)
    scene = build_scene(
        as_prediction(request, overlap=request.overlap), materials, model.card.gsd_range
    )
    visible, labels = scene.entities, _labels(request, scene, model.card.legend)
    if request.weak:
        assert visible is not None  # checked by the request
        visible = visible.select({kind: ~mask for kind, mask in label_mask(visible).items()})
    reference = labels.read(scene.grid)
    reference[burn([scene.aoi], [1], scene.grid, fill=0) == 0] = IGNORE
    if not (reference < len(model.card.legend)).any():
        raise CoverageError(
            f"no pixel of {scene.place.name} has a label; check that labels and place meet, and "
            "that not all values are ignored"
        )
    blocks, names = _blocks(scene.grid, request.block_m, scene.place.name)
    return Ground(scene, visible, reference, blocks, names)


def _labels(request: EvaluateRequest, scene: Scene, legend: Legend) -> Labels:
    if request.weak:
        assert scene.entities is not None  # checked by the request
        return WeakLabels(scene.entities, sea=scene.sea())
    return read_reference(
        Path(str(request.labels)),
        scene.grid,
        legend=legend,
        column=request.column,
        mapping=request.mapping,
        ignore=request.ignore,
    ).labels


def _blocks(
    grid: GridSpec, block_m: float, place: str
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Each pixel's block, a square of ground with a name that other evaluations give it too."""
    rows = np.floor((grid.north - (np.arange(grid.height) + 0.5) * grid.gsd) / block_m).astype(int)
    cols = np.floor((grid.west + (np.arange(grid.width) + 0.5) * grid.gsd) / block_m).astype(int)
    north, row = np.unique(rows, return_inverse=True)
    east, col = np.unique(cols, return_inverse=True)
    names = tuple(f"{place} {e * block_m:.0f}E {n * block_m:.0f}N" for n in north for e in east)
    return (row[:, None] * len(east) + col[None, :]).astype(np.int32), names


def _fingerprint(
    ground: Ground,
    trial: Trial,
    model: GeoLink,
    request: EvaluateRequest,
    seed: int,
    device: torch.device,
) -> str:
    """Digest of everything that the scores of a trial follow from."""
    scene = ground.scene
    settings: Mapping[str, Any] = {
        "version": __version__,
        "model": model.card.sha256,
        "grid": [str(scene.grid.crs), scene.grid.bounds, scene.grid.gsd],
        "overlap": scene.plan.overlap_px,
        "seed": seed if trial.is_random or ground.simulated else request.seed,
        "trial": asdict(trial),
        "weak": request.weak,
        "bands": request.bands,
        "device": device.type,
        "sources": [file_identity(path) for path in scene.files],
    }
    return fingerprint(settings)


def _drawn(store: TileStore, scene: Scene) -> tuple[DrawnMap, DrawnMap]:
    """The blended maps, read block by block."""
    shape = (2, *scene.grid.shape)
    classes, confidence = np.full(shape, IGNORE, np.uint8), np.zeros(shape, np.float32)
    for window in scene.grid.blocks(BLOCK_SIDE):
        block = blend(store, scene.plan, window)
        here = (slice(None), *window.slices)
        best = block.scores.argmax(axis=1).astype(np.uint8)
        classes[here] = np.where(block.valid, best, np.uint8(IGNORE))
        confidence[here] = block.scores.max(axis=1)
    return DrawnMap(classes[WITH], confidence[WITH]), DrawnMap(
        classes[WITHOUT], confidence[WITHOUT]
    )
