"""From a request to labelled data: places with labels, or folders of pictures."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from geolink.config import Task
from geolink.datasets.base import LabelledData, join
from geolink.datasets.folders import (
    UFZ_NUMBERS,
    PictureChanges,
    PictureClasses,
    PictureSegments,
    PictureValues,
)
from geolink.datasets.pictures import GraphsOfPictures, PictureGraphs
from geolink.datasets.released import GRAPHS, TAG_ENCODER, ReleasedGraphs
from geolink.datasets.scenes import SceneCells
from geolink.errors import ConfigError, InputError, place_named
from geolink.graphs.scene import SceneGraphs
from geolink.graphs.tags import TagEncoder
from geolink.legend import UFZ, Legend
from geolink.models.card import ModelCard
from geolink.samples import SceneSampler
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.class_table import ClassTable, class_table
from geolink.sources.entities import OsmEntities
from geolink.sources.network import Network
from geolink.sources.places import place_from_osm_file
from geolink.sources.reference import NoLabels, Reference, read_cells, read_reference
from geolink.sources.specs import SIMULATED
from geolink.tile_graphs import TileGraphs
from geolink.workflows.acquire import gather
from geolink.workflows.cutting import Cutting, cut_tiles
from geolink.workflows.request import PredictRequest, SourceRequest
from geolink.workflows.scene import Scene, build_scene, tag_semantics
from geolink.workflows.site import NO_OSM, Site, Supply, locate, way_out_named

logger = logging.getLogger(__name__)

OSM_LABELS = "osm"

Request = TypeVar("Request", bound="LabelledRequest")


@dataclass(frozen=True)
class LabelledRequest(SourceRequest):
    """Labelled data: places with labels, or a folder of pictures.

    Attributes:
        task: what the labels answer.
        data: folder of pictures in one of the layouts of `geolink.datasets.folders`.
        labels: polygons, a class raster or a table of numbers for a place, or `osm` for weak
            labels from OSM's own zones.
        column: the one with the class or the number; that of polygons can mostly be guessed.
        mapping: CSV file with the columns `value` and `class`.
        ignore: values that are no class.
        cities: more than one place, each with what the cache has of it.
        extracts: OSM extracts (`.osm.pbf`), of which each is a place with simulated imagery.
        seed: of simulated imagery, and of everything random.
    """

    task: Task = "segment"
    data: Path | None = None
    labels: str | Path | None = None
    column: str | None = None
    mapping: Path | None = None
    ignore: tuple[str, ...] = ()
    cities: tuple[str, ...] = ()
    extracts: tuple[Path, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("data", "mapping"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        object.__setattr__(self, "extracts", tuple(map(Path, self.extracts)))
        listed = bool(self.cities or self.extracts)
        placed = self.names_a_place or self.imagery is not None or listed
        if self.data is not None and placed:
            raise ConfigError("give either a folder with --data or a place, not both")
        if listed and self.names_a_place:
            raise ConfigError("give either several cities or extracts, or one place, not both")
        if self.extracts and (self.imagery not in (None, SIMULATED) or self.osm is not None):
            raise ConfigError(
                "the imagery of extracts is simulated, and their OSM is their own; leave out "
                "--imagery and --osm"
            )
        if self.data is None and not placed:
            raise ConfigError(
                "give a folder of pictures (--data), or a place with labels (--city NAME --labels "
                "FILE or osm)"
            )
        if self.data is None and self.labels is None:
            raise ConfigError("say where the labels are: --labels FILE, or --labels osm")
        if self.data is None and self.task in ("classify", "change"):
            raise ConfigError(
                f"the task {self.task} learns from folders of pictures; give one with --data"
            )
        if self.task == "regress" and self.data is None and self.column is None:
            raise ConfigError("say which column of the labels holds the number: --label-column")
        if self.weak and self.task != "segment":
            raise ConfigError(f"OSM has zones to segment, and no labels to {self.task}")
        if self.weak and self.osm == NO_OSM:
            raise ConfigError("labels from OSM need OSM; leave out --osm none")

    @property
    def several(self) -> bool:
        """True where there is more than one place."""
        return len(self.cities) + len(self.extracts) > 1

    @property
    def weak(self) -> bool:
        """True where labels come from OSM's own zones."""
        return self.labels == OSM_LABELS


def labelled_data(
    request: LabelledRequest,
    card: ModelCard,
    *,
    own_classes: bool = False,
    cutting: Cutting | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> LabelledData:
    """The samples that a request names, with their labels.

    Args:
        request: what is wanted.
        card: of the model that will see them: how tags are encoded, and its classes.
        own_classes: labels may have other classes than the model, which then get a new head.
        cutting: which tiles of places become samples; all, as large as for `predict`, by default.
        progress: told of downloads.

    Raises:
        InputError: images or labels cannot be used, or have unknown classes.
        UnavailableError: a source is not here and cannot be fetched.
    """
    if request.data is not None:
        return _pictures(request, card)
    semantics = _Semantics.of(card, offline=request.offline)
    if not request.weak and not Path(str(request.labels)).exists():
        raise InputError(f"the label file {request.labels} does not exist; check the path")
    network = Network(offline=request.offline, progress=progress)
    supply = Supply(Cache(), network)
    parts: list[LabelledData] = []
    for place, site in sites(request, supply):
        with place_named(site.place.name, several=request.several):
            parts += _place(
                place, site, card, semantics, supply, own_classes=own_classes, cutting=cutting
            )
    return join(parts)


def sites(request: Request, supply: Supply) -> Iterator[tuple[Request, Site]]:
    """Each place of a request, with a request for it alone."""
    one = partial(replace, request, cities=(), extracts=())
    for path in request.extracts:
        yield one(osm=path, imagery=SIMULATED), Site(place_from_osm_file(path), None)
    for city in request.cities:
        yield one(city=city), locate(one(city=city), supply)
    if not (request.cities or request.extracts):
        yield request, locate(request, supply)


@dataclass(frozen=True)
class _Semantics:
    """How a model wants its graphs."""

    encoder: TagEncoder
    key_counts: dict[str, int]
    coverage_side: int | None

    @classmethod
    def of(cls, card: ModelCard, *, offline: bool) -> Self:
        encoder, counts = tag_semantics(card, offline=offline)
        return cls(encoder, counts, card.config.coverage_side)

    def of_scene(self, entities: OsmEntities | None) -> SceneGraphs | None:
        if entities is None:
            return None
        return SceneGraphs(
            entities, self.encoder, self.key_counts, coverage_side=self.coverage_side
        )

    def of_tiles(self) -> TileGraphs:
        return TileGraphs(self.encoder, self.key_counts, coverage_side=self.coverage_side)


def _pictures(request: LabelledRequest, card: ModelCard) -> LabelledData:
    folder = request.data
    assert folder is not None
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist; check the path")
    graphs = _picture_graphs(request, folder, card)
    side = card.config.image_size
    if request.task == "classify":
        return PictureClasses(folder, graphs=graphs, side=side)
    if request.task == "change":
        return PictureChanges(folder, graphs=graphs, side=side)
    if request.task == "regress":
        columns = () if request.column is None else (request.column,)
        return PictureValues(folder, columns=columns, graphs=graphs, side=side)
    table = _class_numbers(request, card)
    return PictureSegments(folder, table=table, graphs=graphs, side=side)


def _class_numbers(request: LabelledRequest, card: ModelCard) -> ClassTable:
    """What the numbers in pictures of classes mean: by a mapping file, the model, or as for UFZ."""
    if request.mapping is not None:
        read = partial(class_table, (), source=request.mapping.name, mapping=request.mapping)
        own = read(ignore=request.ignore)
        known = _are_known(own.legend, card)
        return read(legend=card.legend, ignore=request.ignore) if known else own
    legend = card.legend if card.has_head and card.config.task == "segment" else UFZ
    if legend.names == UFZ.names and not request.ignore:
        return UFZ_NUMBERS
    return class_table((), source="the model's classes", legend=legend, ignore=request.ignore)


def _picture_graphs(
    request: LabelledRequest, folder: Path, card: ModelCard
) -> GraphsOfPictures | None:
    """How the OSM objects of pictures are found, None where there are none to be seen."""
    if request.osm == NO_OSM:
        return None
    if request.osm is None and (folder / GRAPHS).is_dir():
        if card.tag_encoder.startswith(TAG_ENCODER):
            _require_no_coverage(folder / GRAPHS, card)
            return ReleasedGraphs(folder / GRAPHS)
        logger.warning(
            "the graphs in %s hold CLIP vectors, which this model does not read (%s); images are "
            "taken alone",
            folder / GRAPHS,
            card.tag_encoder,
        )
        return None
    osm = None if request.osm is None else Path(str(request.osm))
    return PictureGraphs(_Semantics.of(card, offline=request.offline).of_tiles(), folder, osm)


def _require_no_coverage(graphs: Path, card: ModelCard) -> None:
    """Refuse a model that asks of published graphs what they do not hold."""
    if card.config.coverage_side is not None:
        raise ConfigError(
            f"the graphs in {graphs} hold no outlines, and the model {card.name} asks what objects "
            "cover; leave out --paint-objects, take a model without it, or give the objects with "
            "--osm FILE"
        )


def _place(
    request: LabelledRequest,
    site: Site,
    card: ModelCard,
    semantics: _Semantics,
    supply: Supply,
    *,
    own_classes: bool,
    cutting: Cutting | None,
) -> Sequence[LabelledData]:
    """The labelled samples of one place, in one set or several."""
    cutting = cutting or Cutting()
    with way_out_named(request, site):
        materials = gather(request, site, supply)
    asked = replace(as_prediction(request), gsd=cutting.coarsest or request.gsd)
    scene = build_scene(asked, materials, card.gsd_range)
    graphs = semantics.of_scene(scene.entities)
    sources = [scene.imagery.info, *([scene.entities.info] if scene.entities else [])]
    cut = partial(SceneSampler, scene.imagery, scene.entities, graphs)
    tiles = partial(cut_tiles, scene, cutting=cutting, sources=sources, seed=request.seed)
    if request.weak:
        return list(tiles(cut(sea=scene.sea()), legend=UFZ))
    labels = Path(str(request.labels))
    sources.append(SourceInfo(labels.name))
    if request.task == "regress":
        return [_cells(request, scene, cut(labels=NoLabels()), sources, cutting.side)]
    reference = _reference(request, labels, scene, card, own_classes=own_classes)
    return list(tiles(cut(labels=reference.labels), legend=reference.legend))


def _cells(
    request: LabelledRequest,
    scene: Scene,
    sampler: SceneSampler,
    sources: list[SourceInfo],
    side: int,
) -> SceneCells:
    assert request.column is not None  # checked by the request
    return SceneCells(
        sampler,
        scene.grid,
        read_cells(Path(str(request.labels)), scene.grid.crs, column=request.column),
        name=request.column,
        side=side,
        city=scene.place.name,
        sources=sources,
    )


def _reference(
    request: LabelledRequest, labels: Path, scene: Scene, card: ModelCard, *, own_classes: bool
) -> Reference:
    """Labels of a file, as the model's classes where they are among them."""
    read = partial(
        read_reference,
        labels,
        scene.grid,
        column=request.column,
        mapping=request.mapping,
        ignore=request.ignore,
    )
    if not own_classes:
        return read(legend=card.legend)
    own = read(legend=None)
    return read(legend=card.legend) if _are_known(own.legend, card) else own


def _are_known(legend: Legend, card: ModelCard) -> bool:
    """Whether a model tells all these classes apart, and perhaps more."""
    return {*map(str.casefold, legend.names)} <= {*map(str.casefold, card.legend.names)}


def as_prediction(request: LabelledRequest, *, overlap: float = 0.0) -> PredictRequest:
    """The place and the sources of a request, tiled without overlap unless it is given."""
    shared = {field.name: getattr(request, field.name) for field in fields(SourceRequest)}
    return PredictRequest(**shared, overlap=overlap, seed=request.seed)
