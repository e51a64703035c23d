"""What an evaluation is asked for, checked before any work is done."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from geolink.config import Task
from geolink.datasets.dividing import BLOCKS, RANDOM
from geolink.errors import ConfigError
from geolink.metrics.intervals import DRAWS
from geolink.metrics.segmentation import DISTANCES_M, MIN_ZONE_AREA_M2
from geolink.reports.record import PROTOCOLS, Protocol
from geolink.sources.entities import ENTITY_TYPES, EntityType
from geolink.training.finetuning import Mode
from geolink.workflows.labelled import LabelledRequest
from geolink.workflows.request import public_spec

# What a protocol asks of the labels; fine-tuning asks what `task` says.
TASKS: dict[Protocol, Task] = {
    "segment": "segment",
    "knn": "classify",
    "linear": "classify",
    "regress": "regress",
    "change": "change",
}
# The kind of tallies that are made of answers to a task.
MEASURES: dict[Task, str] = {
    "segment": "segmentation",
    "change": "segmentation",
    "classify": "classification",
    "regress": "regression",
}
PROBES: tuple[Protocol, ...] = ("knn", "linear")
FINETUNE: Protocol = "finetune"
_NOT_SHAPING = {"report", "batch_size", "workers", "device", "offline", "overwrite", "fail_under"}
_FILES = ("aoi", "imagery", "osm", "model", "data", "labels", "mapping", "split")


@dataclass(frozen=True)
class EvaluateRequest(LabelledRequest):
    """One evaluation: a model, labelled data, and what is done to them.

    Attributes:
        protocol: how the model is measured; of `finetune`, `task` says what the labels answer, and
            with several cities a model is fine-tuned in each and measured in all.
        seeds: number of runs: appearances of simulated imagery, draws of disturbances, splits.
        split: for probes and fine-tuning: `random`, `blocks`, or a file; how samples are divided.
            By default blocks of a place, and pictures at random.
        fraction: for probes and fine-tuning: class-balanced share of the training samples.
        epochs: of fine-tuning; by default as in the paper.
        mode: of fine-tuning: which weights learn, `full`, `frozen` (the head alone) or `lora`.
        osm_dropout: disturbances: a share (`0.5`), a type (`polygon`) or a tag (`building=*`), or
            a share of those (`polygon:0.5`).
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
    split: str | Path = ""
    fraction: float = 1.0
    epochs: int | None = None
    mode: Mode = "full"
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
        if self.protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise ConfigError(f"there is no protocol {self.protocol!r}; choose one of {known}")
        object.__setattr__(self, "task", TASKS.get(self.protocol, self.task))
        if not self.split and self.protocol in (*PROBES, FINETUNE):
            object.__setattr__(self, "split", BLOCKS if self.data is None else RANDOM)
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
        if self.fraction < 1 and self.protocol not in (*PROBES, FINETUNE):
            raise ConfigError(
                "a fraction of the labels only makes sense where something is learned: with the "
                "protocol knn, linear or finetune"
            )
        if (self.epochs is not None or self.mode != "full") and self.protocol != FINETUNE:
            raise ConfigError("epochs and mode belong to the protocol finetune; leave them out")
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"epochs must be 1 or more, not {self.epochs}")

    @property
    def measures(self) -> str:
        """Kind of the tallies that the protocol makes."""
        return MEASURES[self.task]

    def dropouts(self) -> list[tuple[tuple[EntityType, ...], str, float]]:
        """The types, the tag (or none) and the share of each dropout.

        Raises:
            ConfigError: one is neither a share nor a type nor a tag.
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
        named: dict[str, Any] = {k: public_spec(changed[k]) for k in _FILES if k in changed}
        if self.extracts:
            named["extracts"] = list(map(public_spec, self.extracts))
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}
        return plain | named


def _dropout(text: str) -> tuple[tuple[EntityType, ...], str, float]:
    """What `0.5`, `polygon`, `polygon:0.5`, `building=*` or `building=*:0.5` stand for."""
    what, _, tail = text.rpartition(":")
    share = _share(tail)
    if share is None:  # no share, or a colon that is part of the tag
        what, share = text, 1.0
    kinds = tuple(kind for kind in ENTITY_TYPES if kind == what)
    key, equals, value = what.partition("=")
    tagged = bool(key and equals and value)
    if not 0 <= share <= 1 or not (not what or kinds or tagged):
        raise ConfigError(
            f"{text!r} is no dropout: give a share between 0 and 1, a type "
            f"({', '.join(ENTITY_TYPES)}), a tag such as building=*, or a share of one as in "
            "polygon:0.5"
        )
    return kinds or ENTITY_TYPES, what if tagged else "", share


def _share(text: str) -> float | None:
    """The number that a text is, None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None
