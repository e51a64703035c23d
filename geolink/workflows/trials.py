"""What an evaluation tries: the data as they are, and disturbed in one way at a time."""

from collections.abc import Callable
from dataclasses import dataclass

from torch_geometric.data import HeteroData

from geolink.errors import InputError
from geolink.graphs.disturbed import drop_nodes, retag_nodes, shift_nodes
from geolink.reports.record import Kind
from geolink.sources.base import ImageSource
from geolink.sources.degraded import Degradation, DegradedImagery
from geolink.sources.disturbances import drop_objects, retag_objects, shift_objects
from geolink.sources.entities import ENTITY_TYPES, EntityType, OsmEntities
from geolink.workflows.evaluation_request import EvaluateRequest

_DEGRADATIONS: dict[Kind, Degradation] = {"blur": "blur", "colour": "colour", "cloud": "cloud"}


@dataclass(frozen=True)
class Trial:
    """One way to look at the data.

    Attributes:
        name: for people.
        kind: what is disturbed.
        level: by how much; None where nothing is.
        types: of a dropout, the types of objects that it takes from.
        tag: of a dropout, `key=value` or `key=*` of the objects that it takes from.
    """

    name: str
    kind: Kind = "main"
    level: float | None = None
    types: tuple[EntityType, ...] = ENTITY_TYPES
    tag: str = ""

    @property
    def needs_osm(self) -> bool:
        """True where OSM objects are disturbed."""
        return self.kind.startswith("osm_")

    @property
    def is_of_image(self) -> bool:
        """True where the image is disturbed."""
        return self.kind in _DEGRADATIONS

    @property
    def is_random(self) -> bool:
        """True where a seed decides what happens."""
        return self.kind in ("osm_dropout", "osm_shift", "osm_retag", "colour", "cloud")

    @property
    def curve_level(self) -> float | None:
        """The level on the curve of its kind; the dropout of some kind of objects has none."""
        return self.level if self.types == ENTITY_TYPES and not self.tag else None

    def entities(self, entities: OsmEntities, seed: int | str) -> OsmEntities:
        """The objects as the model sees them."""
        level = self.level or 0.0
        if self.kind == "osm_dropout":
            return drop_objects(entities, level, seed=seed, kinds=self.types, tag=self.tag)
        if self.kind == "osm_shift":
            return shift_objects(entities, level, seed=seed)
        if self.kind == "osm_retag":
            return retag_objects(entities, level, seed=seed)
        return entities

    def graph(self, graph: HeteroData, seed: int | str, side_m: float) -> HeteroData:
        """The graph of a tile with a side in metres, where there is nothing but the graph.

        Raises:
            InputError: the trial needs more than a graph holds.
        """
        level = self.level or 0.0
        if self.tag:
            raise InputError(
                f"published graphs hold no tags, so that no {self.tag} can be left out of them; "
                "give a type of objects, or OSM itself with --osm FILE"
            )
        if self.kind == "osm_dropout":
            return drop_nodes(graph, level, seed=seed, kinds=self.types)
        if self.kind == "osm_shift":
            return shift_nodes(graph, level / side_m, seed=seed)
        if self.kind == "osm_retag":
            return retag_nodes(graph, level, seed=seed)
        return graph

    def imagery(self, imagery: ImageSource, seed: int) -> ImageSource:
        """The image as the model sees it."""
        if not self.is_of_image:
            return imagery
        return DegradedImagery(imagery, _DEGRADATIONS[self.kind], self.level or 0.0, seed)


@dataclass(frozen=True)
class Disturbance:
    """What a trial does to the OSM objects of labelled samples in one run.

    Attributes:
        trial: the trial.
        seed: of the run.
        side_m: side of a picture, metres.
    """

    trial: Trial
    seed: int
    side_m: float

    def entities(self, entities: OsmEntities, where: str = "") -> OsmEntities:
        """Objects as the model sees them; `where` tells apart objects of the same name."""
        return self.trial.entities(entities, f"{self.seed} {where}" if where else self.seed)

    def graph(self, graph: HeteroData, where: str) -> HeteroData:
        """The graph of a picture as the model sees it."""
        return self.trial.graph(graph, f"{self.seed} {where}", self.side_m)


def trials_of(request: EvaluateRequest, *, with_osm: bool) -> list[Trial]:
    """The main trial, then one per disturbance that is asked for; level 0 is the main one.

    Args:
        request: what is asked for.
        with_osm: the model sees OSM.

    Raises:
        ConfigError: a disturbance cannot be understood.
    """
    trials = [Trial("with OSM" if with_osm else "image alone")]
    for types, tag, share in request.dropouts():
        what = tag or ("" if types == ENTITY_TYPES else types[0])
        missing = f"{share:.0%} of {what} objects missing".replace("  ", " ")
        if share:
            trials.append(Trial(missing, "osm_dropout", share, types, tag))
    rows: tuple[tuple[Kind, tuple[float, ...], Callable[[float], str]], ...] = (
        ("osm_shift", request.osm_shift, lambda m: f"objects shifted by {m:g} m"),
        ("osm_retag", request.osm_retag, lambda s: f"{s:.0%} of objects retagged"),
        ("blur", request.blur, lambda m: f"image blurred by {m:g} m"),
        ("colour", request.colour, lambda s: f"image recoloured by {s:g}"),
        ("cloud", request.cloud, lambda s: f"{s:.0%} under cloud"),
    )
    for kind, levels, name in rows:
        trials += [Trial(name(level), kind, level) for level in levels if level]
    return list(dict.fromkeys(trials))
