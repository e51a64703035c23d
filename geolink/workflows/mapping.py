"""From sources and a model to a map: the tiles are scored, joined, and written."""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import geopandas as gpd
import rasterio

from geolink._version import __version__
from geolink.checkpoint import ModelCard, load_model
from geolink.config import Task
from geolink.errors import CheckpointError, CoverageError, GeolinkError, InputError
from geolink.files import file_identity, full_disk_named
from geolink.graphs.scene import SceneGraphs, StoredGraphs
from geolink.legend import UFZ, Legend
from geolink.models.geolink import GeoLink
from geolink.models.heads import STRIDE
from geolink.mosaic import TileStore, fingerprint
from geolink.samples import normalise
from geolink.sources.base import SourceInfo
from geolink.tiles import TilePlan
from geolink.workflows.acquire import Materials, gather, local_model
from geolink.workflows.inference import (
    Scored,
    TileScorer,
    fill_store,
    pick_device,
    prepare_tile,
    scored,
)
from geolink.workflows.outputs import GDAL_CACHE, ScoredMap, write_outputs
from geolink.workflows.processes import scored_by_processes
from geolink.workflows.progress import Progress
from geolink.workflows.request import PredictRequest
from geolink.workflows.results import ClassSummary, PredictPlan, PredictResult
from geolink.workflows.scene import (
    SIMULATED_GSD,
    Scene,
    build_scene,
    lay_grid,
    tag_semantics,
    with_osm_on_disk,
    working_gsd,
)
from geolink.workflows.site import Site, Supply, is_simulated
from geolink.workflows.stages import StageClock, StageReport
from geolink.workflows.stock import Need
from geolink.workflows.work_folder import remove_work, work_folder

logger = logging.getLogger(__name__)

OSM_TABLE = "osm.sqlite"  # in the store's folder

# Measured (benchmarks/scale.py, country.py), bytes: of the file of a tile beside what it holds; of
# rasters and zones per pixel while they are made; of the table of OSM per km2 of a dense centre.
_TILE_OVERHEAD, _MAP_BYTES, _DENSE_OSM = 1500, 0.5, 4_000_000


class Crew(Protocol):
    """Who scores the tiles of a map; the scores are the same whoever does."""

    @property
    def device(self) -> str:
        """The kind of device that runs the model: `cpu`, `cuda` or `mps`."""
        ...

    def scores(
        self, request: PredictRequest, scene: Scene, model: GeoLink
    ) -> Callable[[Sequence[int]], Iterable[Scored]]:
        """What gives the results of tiles, each with its number, in any order."""
        ...

    @property
    def stages(self) -> StageReport | None:
        """How busy the stages were; None where that is not known."""
        ...


class LocalCrew:
    """This process.

    Args:
        device: `auto`, `cuda`, `mps` or `cpu`.

    Raises:
        ConfigError: there is no such device on this machine.
    """

    def __init__(self, device: str) -> None:
        self._device = pick_device(device)
        self._clock: StageClock | None = None

    @property
    def device(self) -> str:
        """See `Crew`."""
        return self._device.type

    def scores(
        self, request: PredictRequest, scene: Scene, model: GeoLink
    ) -> Callable[[Sequence[int]], Iterable[Scored]]:
        """See `Crew`."""
        self._clock = StageClock(request.workers)
        score = scored_by_processes if request.processes else scored
        return partial(
            score,
            prepare=tile_preparer(scene, model, offline=request.offline),
            scorer=TileScorer(model, self._device),
            batch_size=request.batch_size,
            workers=request.workers,
            clock=self._clock,
        )

    @property
    def stages(self) -> StageReport | None:
        """See `Crew`."""
        return None if self._clock is None else self._clock.report()


def draw_map(
    request: PredictRequest,
    materials: Materials,
    model: GeoLink,
    out: Path,
    *,
    crew: Crew,
    progress: Progress,
) -> PredictResult:
    """Lets a crew score the tiles of a scene and writes everything that a request asks for.

    Raises:
        InputError, CoverageError: the sources cannot be used, or miss the area.
        OutputError: an output cannot be written.
    """
    started = time.monotonic()
    scene = build_scene(request, materials, model.card.gsd_range, osm_on_disk=True)
    store, _ = open_store(request, scene, model, out, device=crew.device)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
        with _removed_on_failure(store.path):
            scene = with_osm_on_disk(scene, materials.osm, store.path / OSM_TABLE)
        fill_store(scene.tiles, crew.scores(request, scene, model), store, progress)
    if crew.stages is not None:
        logger.info("%s", crew.stages)
    if (problem := nothing_to_map(scene, store)) is not None:
        remove_work(out)
        raise problem
    metadata = describe(request, scene, model)
    scored_map = ScoredMap(request, scene, store, model.card.legend, metadata)
    zones, tiles = write_outputs(scored_map, out, progress)
    statuses = dict(sorted(Counter(tiles["status"]).items()))
    if "failed" not in statuses:
        remove_work(out)
    return PredictResult(
        out=out,
        title=metadata["title"],
        classes=summarise(zones, model.card.legend),
        tiles=statuses,
        simulated=scene.imagery.info.simulated,
        seconds=time.monotonic() - started,
        stages=crew.stages,
        metadata=metadata,
    )


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """Leave no folder behind whose making failed, nor an empty one around it."""
    try:
        yield
    except GeolinkError:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()
        raise


def plan_map(
    request: PredictRequest, site: Site, wanted: list[Need], supply: Supply, out: Path
) -> PredictPlan:
    """What a prediction would do; the sources are looked at closely where all of them are here.

    Raises:
        InputError, UnavailableError, CheckpointError: as `predict`.
    """
    card = open_model(local_model(request.model, supply)).card if wanted[0].here else None
    supported = None if card is None else card.gsd_range
    osm_bytes = 0
    if all(need.here for need in wanted):
        materials = gather(request, site, supply)
        scene = build_scene(request, materials, supported)
        grid, tiling, infos = scene.grid, scene.plan, scene_infos(scene)
        if materials.osm is not None and materials.imagery is not None:
            around = scene.around
            osm_bytes = table_bytes(materials.osm.path, around.width * around.height / 1e6)
    else:
        native = next((n.gsd for n in wanted if n.gsd is not None), SIMULATED_GSD)
        gsd = working_gsd(request.gsd, native, supported)
        grid, tiling = lay_grid(site.place, gsd, request.overlap)
        infos = [need.info for need in wanted if need.kind != "model"]
    simulated = is_simulated(request, site)
    tiles = len(tiling.tiles_in(site.place.aoi_metric))
    classes = len(UFZ if card is None else card.legend)
    return PredictPlan(
        title=map_title(site.place.name, simulated=simulated),
        out=out,
        area_km2=site.place.aoi_metric.area / 1e6,
        crs=grid.crs.name,
        gsd=grid.gsd,
        height=grid.height,
        width=grid.width,
        tiles=tiles,
        work_bytes=work_bytes(
            tiling,
            tiles,
            classes,
            osm_bytes=osm_bytes,
            probabilities=request.probabilities is not None,
        ),
        model=str(request.model),
        sources=[asdict(info) for info in infos],
        downloads=[need.to_dict() for need in wanted if not need.here],
    )


def work_bytes(
    plan: TilePlan, tiles: int, classes: int, *, osm_bytes: int = 0, probabilities: bool = False
) -> int:
    """Disk space that a run takes at most, beside what its outputs keep.

    Args:
        plan: the tiling.
        tiles: number of tiles that meet the area.
        classes: of the model.
        osm_bytes: size of the table of OSM.
        probabilities: whether a raster of them is written.
    """
    scores = 2 * classes * (plan.side // STRIDE) ** 2 * 2  # two float16 maps at their stride
    kept = tiles * (scores + plan.side**2 // 8 + _TILE_OVERHEAD)
    pixels = min(tiles * plan.step**2, plan.grid.height * plan.grid.width)
    maps = pixels * _MAP_BYTES + (pixels * classes if probabilities else 0)
    return kept + int(maps) + osm_bytes


def table_bytes(osm: Path, area_km2: float) -> int:
    """About the size of the table of OSM of an area that is made from a file."""
    packed = osm.name.endswith(".pbf")
    return int(min(osm.stat().st_size * (10 if packed else 2), area_km2 * _DENSE_OSM))


def open_model(spec: str | Path, *, task: Task | None = "segment") -> GeoLink:
    """A model with a trained head: by default one that can draw a map.

    Args:
        spec: as for `load_model`.
        task: what the head must answer; None takes any.

    Raises:
        CheckpointError: it cannot be loaded, its head is not trained, or answers something else.
        UnavailableError: it is not here.
    """
    model = load_model(spec, device="cpu", offline=True)
    if task is not None and model.config.task != task:
        raise CheckpointError(
            f"the model {spec} was made to {model.config.task}, and draws no map; choose one that "
            "was fine-tuned to segment"
        )
    if not model.card.has_head:
        raise CheckpointError(
            f"the head of the model {spec} is not trained, so it cannot draw a map; choose another"
        )
    return model


def nothing_to_map(scene: Scene, store: TileStore) -> GeolinkError | None:
    """The error to raise where no tile has scores, None where one has."""
    failure = None
    for result in filter(None, map(store.get, scene.tiles)):
        if result.scores is not None:
            return None
        failure = failure or result.message
    if failure:
        return InputError(f"not one tile could be mapped; the first failed since {failure}")
    return CoverageError(
        f"{scene.imagery.info.description} has no valid pixel in the area of {scene.place.name}; "
        "choose another image or area"
    )


def open_store(
    request: PredictRequest, scene: Scene, model: GeoLink, out: Path, *, device: str
) -> tuple[TileStore, Path]:
    """The tile store of a request, and the work folder beside the output that holds it."""
    work = work_folder(out)
    if not request.resume:
        remove_work(out)
    with full_disk_named(out):
        work.mkdir(exist_ok=True)
    digest = fingerprint(
        {
            "version": __version__,
            "model": model.card.sha256,
            "grid": [str(scene.grid.crs), scene.grid.bounds, scene.grid.gsd],
            "overlap": scene.plan.overlap_px,
            "seed": request.seed,
            "bands": request.bands,
            "device": device,
            "sources": [file_identity(path) for path in scene.files],
        }
    )
    classes = len(model.card.legend)
    return TileStore(work, digest, classes, scene.plan.side), work


def tile_preparer(scene: Scene, model: GeoLink, *, offline: bool) -> Callable[[int], Any]:
    """A function that reads the image and builds the graph of a tile, given its id."""
    graphs: SceneGraphs | StoredGraphs | None = None
    if scene.osm is not None:
        encoder, counts = tag_semantics(model.card, offline=offline)
        side = model.config.coverage_side
        if scene.table is not None:
            graphs = StoredGraphs(scene.table, encoder, counts, coverage_side=side)
        elif scene.entities is not None:
            graphs = SceneGraphs(scene.entities, encoder, counts, coverage_side=side)
    pixels_of = partial(normalise, mean=model.card.mean, std=model.card.std)
    return partial(
        prepare_tile, plan=scene.plan, imagery=scene.imagery, graphs=graphs, pixels_of=pixels_of
    )


def map_title(place: str, *, simulated: bool) -> str:
    """Title of a map; it says so where the imagery is simulated."""
    return f"Functional zones of {place}" + (" (simulated imagery)" if simulated else "")


def scene_infos(scene: Scene) -> list[SourceInfo]:
    """Provenance of the imagery, then of OSM where it is used."""
    return [scene.imagery.info, *([] if scene.osm is None else [scene.osm.info])]


def describe(request: PredictRequest, scene: Scene, model: GeoLink) -> dict[str, Any]:
    """The metadata record that goes into every output."""
    imagery, *osm = (asdict(info) for info in scene_infos(scene))
    simulated = scene.imagery.info.simulated
    return {
        "title": map_title(scene.place.name, simulated=simulated),
        "software": f"geolink {__version__}",
        "model": {"name": model.card.name, "sha256": model.card.sha256},
        "imagery": imagery,
        "osm": osm[0] if osm else None,
        "dropped_entities": {} if scene.osm is None else scene.osm.dropped,
        "simulated_imagery": simulated,
        "crs": scene.grid.crs.to_string(),
        "gsd_m": scene.grid.gsd,
        "imagery_gsd_m": scene.native_gsd,
        "warnings": gsd_warnings(scene, model.card),
        "legend": model.card.legend.to_dict(),
        "request": request.record(),
        "seed": request.seed,
    }


def gsd_warnings(scene: Scene, card: ModelCard) -> list[str]:
    """What must be said of a map whose pixels are not as the model has seen them."""
    least, greatest = card.gsd_range
    coarsest = max(scene.native_gsd, scene.grid.gsd)
    if least <= scene.grid.gsd and coarsest <= greatest:
        return []
    gsd = scene.grid.gsd if scene.grid.gsd < least else coarsest
    return [
        f"imagery of {gsd:g} m per pixel lies outside the {least:g}-{greatest:g} m that "
        f"{card.name} was trained on, so its classes are unreliable"
    ]


def summarise(zones: gpd.GeoDataFrame, legend: Legend) -> list[ClassSummary]:
    """Zones, area, and area-weighted confidence and OSM gain per class."""
    summaries = []
    for c in legend.classes:
        own = zones[zones["class_id"] == c.id]
        area = float(own["area_m2"].sum())
        weights = own["area_m2"] / area if area else own["area_m2"]
        summaries.append(
            ClassSummary(
                name=c.name,
                color=c.color,
                zones=len(own),
                area_m2=area,
                confidence=float((own["confidence"] * weights).sum()),
                osm_gain=float((own["osm_gain"] * weights).sum()),
            )
        )
    return summaries
