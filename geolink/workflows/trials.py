"""What an evaluation tries: the data as they are, and disturbed in one way at a time."""

from collections.abc import Callable
from dataclasses import dataclass

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
    """

    name: str
    kind: Kind = "main"
    level: float | None = None
    types: tuple[EntityType, ...] = ENTITY_TYPES

    @property
    def needs_osm(self) -> bool:
        """True where OSM objects are disturbed."""
        return self.kind.startswith("osm_")

    @property
    def is_random(self) -> bool:
        """True where a seed decides what happens."""
        return self.kind in ("osm_dropout", "osm_shift", "osm_retag", "colour", "cloud")

    @property
    def curve_level(self) -> float | None:
        """The level on the curve of its kind; the dropout of one type has none."""
        return self.level if self.types == ENTITY_TYPES else None

    def entities(self, entities: OsmEntities, seed: int) -> OsmEntities:
        """The objects as the model sees them."""
        level = self.level or 0.0
        if self.kind == "osm_dropout":
            return drop_objects(entities, level, seed=seed, kinds=self.types)
        if self.kind == "osm_shift":
            return shift_objects(entities, level, seed=seed)
        if self.kind == "osm_retag":
            return retag_objects(entities, level, seed=seed)
        return entities

    def imagery(self, imagery: ImageSource, seed: int) -> ImageSource:
        """The image as the model sees it."""
        if self.kind not in _DEGRADATIONS:
            return imagery
        return DegradedImagery(imagery, _DEGRADATIONS[self.kind], self.level or 0.0, seed)


def trials_of(request: EvaluateRequest, *, with_osm: bool) -> list[Trial]:
    """The main trial, then one per disturbance that is asked for; level 0 is the main one.

    Args:
        request: what is asked for.
        with_osm: the model sees OSM.

    Raises:
        ConfigError: a disturbance cannot be understood.
    """
    trials = [Trial("with OSM" if with_osm else "image alone")]
    for types, share in request.dropouts():
        what = "" if types == ENTITY_TYPES else f"{types[0]} "
        if share:
            trials.append(
                Trial(f"{share:.0%} of {what}objects missing", "osm_dropout", share, types)
            )
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
