"""What an evaluation is asked for, checked before any work is done."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from geolink.config import Task
from geolink.errors import ConfigError
from geolink.metrics.intervals import DRAWS
from geolink.metrics.segmentation import DISTANCES_M, MIN_ZONE_AREA_M2
from geolink.reports.record import Protocol
from geolink.sources.entities import ENTITY_TYPES, EntityType
from geolink.workflows.labelled import LabelledRequest
from geolink.workflows.request import public_spec

SplitKind: TypeAlias = Literal["random", "blocks"]

# What a protocol asks of the labels, and what kind of tallies it makes.
TASKS: dict[Protocol, Task] = {
    "segment": "segment",
    "knn": "classify",
    "linear": "classify",
    "regress": "regress",
    "change": "change",
}
MEASURES: dict[Protocol, str] = {
    "segment": "segmentation",
    "knn": "classification",
    "linear": "classification",
    "regress": "regression",
    "change": "segmentation",
}
PROBES: tuple[Protocol, ...] = ("knn", "linear")
_NOT_SHAPING = {"report", "batch_size", "workers", "device", "offline", "overwrite", "fail_under"}
_FILES = ("aoi", "imagery", "osm", "model", "data", "labels", "mapping", "split")


@dataclass(frozen=True)
class EvaluateRequest(LabelledRequest):
    """One evaluation: a model, labelled data, and what is done to them.

    Attributes:
        protocol: how the model is measured.
        seeds: number of runs: appearances of simulated imagery, draws of disturbances, splits.
        split: for the probes: `random`, `blocks`, or a file; how samples are divided.
        fraction: for the probes: class-balanced share of the training samples.
        osm_dropout: disturbances: a share (`0.5`), a type (`polygon`), or both (`polygon:0.5`).
        osm_shift: disturbances: metres by which objects are shifted.
        osm_retag: disturbances: shares of objects with the tags of others.
        blur: disturbances: deviation in metres.
        colour: disturbances: strength, 0-1.
        cloud: disturbances: share of the ground.
        distances_m: tolerances of the boundary figures, metres.
        min_zone_area_m2: smaller reference zones do not count.
        block_m: side of the spatial blocks that intervals over places are drawn from, metres.
        draws: resamples of the bootstrap that gives these intervals.
        overlap: share of a tile that it has in common with its neighbour, as in `predict`.
        fail_under: least values, such as `miou=0.5`.
        report: folder for the record, the page and the pictures.
        batch_size: samples per call of the model; it does not change the result.
        workers: threads that prepare tiles; they do not change the result.
        device: `auto`, `cuda`, `mps` or `cpu`.
    """

    protocol: Protocol = "segment"
    seeds: int = 1
    split: str | Path = "random"
    fraction: float = 1.0
    osm_dropout: tuple[str, ...] = ()
    osm_shift: tuple[float, ...] = ()
    osm_retag: tuple[float, ...] = ()
    blur: tuple[float, ...] = ()
    colour: tuple[float, ...] = ()
    cloud: tuple[float, ...] = ()
    distances_m: tuple[float, ...] = DISTANCES_M
    min_zone_area_m2: float = MIN_ZONE_AREA_M2
    block_m: float = 250.0
    draws: int = DRAWS
    overlap: float = 0.25
    fail_under: tuple[str, ...] = ()
    report: Path | None = None
    batch_size: int = 8
    workers: int = 2
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.protocol not in TASKS:
            known = ", ".join(TASKS)
            raise ConfigError(f"there is no protocol {self.protocol!r}; choose one of {known}")
        object.__setattr__(self, "task", TASKS[self.protocol])
        if self.report is not None:
            object.__setattr__(self, "report", Path(self.report))
        super().__post_init__()
        if min(self.seeds, self.draws, self.batch_size) < 1 or self.workers < 0:
            raise ConfigError("seeds, draws and batch size must be 1 or more, workers 0 or more")
        if not (self.block_m > 0 and self.min_zone_area_m2 >= 0 and 0 <= self.overlap <= 0.5):
            raise ConfigError(
                "blocks need a positive side, zones an area of 0 or more, and the overlap is a "
                "share between 0 and 0.5"
            )
        if not all(math.isfinite(d) and d >= 0 for d in self.distances_m):
            raise ConfigError("boundary distances are metres from 0 on, such as 3,10")
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"the fraction of the labels is between 0 and 1, not {self.fraction}")
        if self.fraction < 1 and self.protocol not in PROBES:
            raise ConfigError(
                "a fraction of the labels only makes sense where something is learned"
            )

    @property
    def measures(self) -> str:
        """Kind of the tallies that the protocol makes."""
        return MEASURES[self.protocol]

    def dropouts(self) -> list[tuple[tuple[EntityType, ...], float]]:
        """The types and the share of each dropout.

        Raises:
            ConfigError: one is neither a share nor a type.
        """
        return [_dropout(text) for text in self.osm_dropout]

    def record(self) -> dict[str, Any]:
        """The settings that shape the figures, as plain JSON data.

        Files are named without their folders, which are nobody's business.
        """
        settings = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_SHAPING
        }
        given = {f.name: f.default for f in fields(self)}
        changed = {k: v for k, v in settings.items() if v != given[k] or k in ("model", "protocol")}
        named = {k: public_spec(changed[k]) for k in _FILES if k in changed}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}
        return plain | named


def _dropout(text: str) -> tuple[tuple[EntityType, ...], float]:
    """What `0.5`, `polygon` or `polygon:0.5` stand for."""
    head, _, tail = text.partition(":")
    kinds = tuple(kind for kind in ENTITY_TYPES if kind == head)
    try:
        share = float((tail or "1") if kinds else text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ConfigError(
            f"{text!r} is no dropout: give a share between 0 and 1, a type "
            f"({', '.join(ENTITY_TYPES)}), or both as in polygon:0.5"
        )
    return kinds or ENTITY_TYPES, share
