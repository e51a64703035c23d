"""`predict`: a place in, a styled GeoPackage of its functional zones out."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd

from geolink._version import __version__
from geolink.checkpoint import load_model
from geolink.errors import CheckpointError, CoverageError, GeolinkError, InputError, OutputError
from geolink.files import full_disk_named, require_writable
from geolink.graphs.scene import SceneGraphs
from geolink.legend import Legend
from geolink.models.geolink import GeoLink
from geolink.models.heads import STRIDE
from geolink.mosaic import TileStore, fingerprint
from geolink.samples import normalise
from geolink.workflows.inference import (
    Progress,
    TileScorer,
    pick_device,
    prepare_tile,
    score_tiles,
)
from geolink.workflows.outputs import write_outputs
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import Scene, build_scene, tag_semantics


@dataclass(frozen=True)
class ClassSummary:
    """What the map says of one class; confidence and gain are weighted by area."""

    name: str
    color: str
    zones: int
    area_m2: float
    confidence: float
    osm_gain: float


@dataclass(frozen=True)
class PredictResult:
    """What a prediction made.

    Attributes:
        out: the GeoPackage.
        title: what the map shows; it says so where the imagery is simulated.
        classes: one summary per class of the legend.
        tiles: number of tiles by status.
        simulated: True where the imagery was rendered, not observed.
        seconds: wall time.
        metadata: the record that went into the GeoPackage.
    """

    out: Path
    title: str
    classes: list[ClassSummary]
    tiles: dict[str, int]
    simulated: bool
    seconds: float
    metadata: dict[str, Any] = field(repr=False)

    @property
    def caption(self) -> str:
        """What was left out of the OSM extract, and why; empty where nothing was."""
        dropped: dict[str, int] = self.metadata["dropped_entities"]
        counts = ", ".join(f"{count:,} with {reason}" for reason, count in dropped.items())
        return f"OSM objects left out: {counts}" if counts else ""

    @property
    def summary(self) -> str:
        """One line for people."""
        zones = sum(c.zones for c in self.classes)
        area = sum(c.area_m2 for c in self.classes) / 1e6
        line = f"{self.out}: {zones:,} zones over {area:.2f} km² in {self.seconds:.0f} s"
        if self.simulated:
            line += " (SIMULATED imagery, drawn from OSM)"
        if failed := self.tiles.get("failed"):
            line += f"; {failed} tiles FAILED, see the layer `tiles`; --overwrite retries them"
        return line

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data."""
        return {**asdict(self), "out": str(self.out)}


@dataclass(frozen=True)
class PredictPlan:
    """What a prediction would do: area, grid, tiles, sources and disk space."""

    title: str
    out: Path
    area_km2: float
    crs: str
    gsd: float
    height: int
    width: int
    tiles: int
    work_bytes: int
    model: str
    sources: list[dict[str, Any]]

    @property
    def summary(self) -> str:
        """One line for people."""
        return f"nothing written; a run would write {self.out}"

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        sources = [
            (
                f"source {i + 1}",
                ", ".join(str(v) for v in source.values() if v not in (None, False)),
            )
            for i, source in enumerate(self.sources)
        ]
        return [
            ("area", f"{self.area_km2:.2f} km²"),
            ("grid", f"{self.width:,} x {self.height:,} px of {self.gsd:g} m, {self.crs}"),
            ("tiles", f"{self.tiles:,}"),
            (
                "work space",
                f"{self.work_bytes / 1e6:,.0f} MB beside the output, removed at the end",
            ),
            ("model", self.model),
            *sources,
            ("download", "nothing"),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON data."""
        return {**asdict(self), "out": str(self.out)}


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def predict(
    request: PredictRequest | None = None,
    progress: Progress = _silent,
    **settings: Any,  # noqa: ANN401 - checked by PredictRequest
) -> PredictResult:
    """Maps the functional zones of a place into a GeoPackage.

    Tiles are scored one after the other into a work folder beside the output; a run that is cut
    goes on from there and ends with the same bytes.

    Args:
        request: what to do; or give its fields by name, as in `predict(city="sample")`.
        progress: called with (stage, done, total).
        **settings: fields of a `PredictRequest`.

    Raises:
        InputError: an input or a setting cannot be used.
        UnavailableError: data or a model is not here.
        CheckpointError: the model cannot be loaded.
        OutputError: an output cannot be written.
    """
    request = request or PredictRequest(**settings)
    started = time.monotonic()
    device = pick_device(request.device)
    model = open_model(request.model)
    scene = build_scene(request, model.card.gsd_range)
    out = output_path(request, scene)
    require_outputs(request, scene, out)
    prepare = tile_preparer(scene, model)
    store, work = open_store(request, scene, model, out, device=device.type)
    score_tiles(
        scene.tiles,
        prepare,
        TileScorer(model, device),
        store,
        batch_size=request.batch_size,
        workers=request.workers,
        progress=progress,
    )
    if (problem := nothing_to_map(scene, store)) is not None:
        shutil.rmtree(work, ignore_errors=True)
        raise problem
    metadata = describe(request, scene, model)
    zones, tiles = write_outputs(request, scene, store, model.card.legend, metadata, out, progress)
    statuses = dict(sorted(Counter(tiles["status"]).items()))
    if "failed" not in statuses:
        shutil.rmtree(work, ignore_errors=True)
    return PredictResult(
        out=out,
        title=metadata["title"],
        classes=summarise(zones, model.card.legend),
        tiles=statuses,
        simulated=scene.imagery.info.simulated,
        seconds=time.monotonic() - started,
        metadata=metadata,
    )


def plan(
    request: PredictRequest | None = None,
    **settings: Any,  # noqa: ANN401 - checked by PredictRequest
) -> PredictPlan:
    """What `predict` would do with the same arguments, without doing it.

    Raises:
        InputError, UnavailableError, CheckpointError: as `predict`.
    """
    request = request or PredictRequest(**settings)
    model = open_model(request.model)
    scene = build_scene(request, model.card.gsd_range)
    classes, side = len(model.card.legend), scene.plan.side
    scores = 2 * classes * (side // STRIDE) ** 2 * 2  # two float16 maps at the decoder's stride
    per_tile = scores + side**2 // 8 + 1024
    rasters = scene.grid.height * scene.grid.width * 6  # classes, sieved classes and zone ids
    return PredictPlan(
        title=scene_title(scene),
        out=output_path(request, scene),
        area_km2=scene.aoi.area / 1e6,
        crs=scene.grid.crs.name,
        gsd=scene.grid.gsd,
        height=scene.grid.height,
        width=scene.grid.width,
        tiles=len(scene.tiles),
        work_bytes=len(scene.tiles) * per_tile + rasters,
        model=str(request.model),
        sources=sources(scene),
    )


def open_model(spec: str | Path) -> GeoLink:
    """A model that can draw a map.

    Raises:
        CheckpointError: it cannot be loaded, or its head is not trained.
        UnavailableError: it is not here.
    """
    model = load_model(spec, device="cpu")
    if not model.card.has_head:
        raise CheckpointError(
            f"the head of the model {spec} is not trained, so it cannot draw a map; choose another"
        )
    return model


def require_outputs(request: PredictRequest, scene: Scene, out: Path) -> None:
    """Check that every output can be written, and is not one of the inputs.

    Raises:
        OutputError: one of them cannot be.
    """
    inputs = [file for file in (*scene.files, request.aoi) if file is not None and file.exists()]
    for target in filter(None, (out, request.raster, request.probabilities, request.preview)):
        if target.exists() and any(map(target.samefile, inputs)):
            raise OutputError(f"{target} is an input of this map; choose another output")
        require_writable(target, overwrite=request.overwrite)


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


def output_path(request: PredictRequest, scene: Scene) -> Path:
    """The GeoPackage of a request: as asked, else the place's name in the current folder."""
    if request.out is not None:
        return request.out
    return Path(re.sub(r"[^\w.-]+", "_", scene.place.name).strip("._") + ".gpkg")


def open_store(
    request: PredictRequest, scene: Scene, model: GeoLink, out: Path, *, device: str
) -> tuple[TileStore, Path]:
    """The tile store of a request, and the work folder beside the output that holds it."""
    work = out.parent / f".{out.name}.work"
    if not request.resume:
        shutil.rmtree(work, ignore_errors=True)
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


def file_identity(path: Path) -> list[str | int]:
    """Name, size and time of a file; enough to notice that it was replaced.

    What GDAL opens need not be a file (`/vsizip/...`, a part of one); of such it is the name.
    """
    if not path.exists():
        return [str(path)]
    stat = path.stat()
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]


def tile_preparer(scene: Scene, model: GeoLink) -> Callable[[int], Any]:
    """A function that reads the image and builds the graph of a tile, given its id."""
    graphs = None
    if scene.entities is not None:
        encoder, counts = tag_semantics(model.card)
        graphs = SceneGraphs(
            scene.entities, encoder, counts, coverage_side=model.config.coverage_side
        )
    pixels_of = partial(normalise, mean=model.card.mean, std=model.card.std)
    return partial(
        prepare_tile, plan=scene.plan, imagery=scene.imagery, graphs=graphs, pixels_of=pixels_of
    )


def scene_title(scene: Scene) -> str:
    """Title of a map; it says so where the imagery is simulated."""
    note = " (simulated imagery)" if scene.imagery.info.simulated else ""
    return f"Functional zones of {scene.place.name}{note}"


def sources(scene: Scene) -> list[dict[str, Any]]:
    """Description, date, licence and attribution of every source."""
    infos = [scene.imagery.info]
    if scene.entities is not None:
        infos.append(scene.entities.info)
    return [asdict(info) for info in infos]


def describe(request: PredictRequest, scene: Scene, model: GeoLink) -> dict[str, Any]:
    """The metadata record that goes into every output."""
    imagery, *osm = sources(scene)
    return {
        "title": scene_title(scene),
        "software": f"geolink {__version__}",
        "model": {"name": model.card.name, "sha256": model.card.sha256},
        "imagery": imagery,
        "osm": osm[0] if osm else None,
        "dropped_entities": scene.entities.dropped if scene.entities is not None else {},
        "simulated_imagery": scene.imagery.info.simulated,
        "crs": scene.grid.crs.to_string(),
        "gsd_m": scene.grid.gsd,
        "legend": model.card.legend.to_dict(),
        "request": request.record(),
        "seed": request.seed,
    }


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
