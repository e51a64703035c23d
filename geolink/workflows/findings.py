"""What the trials of an evaluation gave, before it is summed up."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from geolink.datasets.base import LabelledData
from geolink.files import full_disk_named
from geolink.legend import Legend
from geolink.metrics.tally import Measured
from geolink.reports.maps import MapPair
from geolink.reports.record import Condition
from geolink.sources.base import SourceInfo
from geolink.workflows.evaluation_request import EvaluateRequest
from geolink.workflows.trials import Trial

SIMULATED = (
    "Simulated imagery: rendered from OpenStreetMap, not observed. The figures say how well the "
    "model does under simulated light, not on photographs."
)
WEAK = (
    "Weak reference: OpenStreetMap's own zones. Every object that gave a label is hidden from the "
    "model. The figures say how well mapped zones are found again, not how right a map is on the "
    "ground."
)
_FEW = 10  # samples below which no claim is made

Runs: TypeAlias = list[Mapping[str, Measured]]


@dataclass
class Findings:
    """What the trials gave.

    Attributes:
        legend: the classes.
        trials: per trial and run, the tally of each spatial block; the main trial comes first.
        without: the runs of the main trial without OSM.
        pictures: reference and map of places, for pictures of errors.
        sources: where images, OSM and labels come from.
        notes: what a reader must know.
        others: further conditions, summed up already.
    """

    legend: Legend
    trials: dict[Trial, Runs] = field(default_factory=dict)
    without: Runs = field(default_factory=list)
    pictures: list[MapPair] = field(default_factory=list)
    sources: list[SourceInfo] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    others: list[Condition] = field(default_factory=list)

    def runs_of(self, trial: Trial, *, alone: bool = False) -> Runs:
        """The runs of a trial so far; `alone`: those of the main one on the image alone."""
        return self.without if alone else self.trials.setdefault(trial, [])


def add_blocks(runs: Runs, blocks: Mapping[str, Measured], *, new: bool) -> None:
    """Takes up the blocks of a place: of a new run at its first place, else of the same run."""
    if new:
        runs.append(blocks)
    else:
        runs[-1] = {**runs[-1], **blocks}


def seeds_of(request: EvaluateRequest, *, random: bool) -> range:
    """The seeds of a trial: one where nothing depends on it."""
    return range(request.seed, request.seed + (request.seeds if random else 1))


def sample_notes(request: EvaluateRequest, data: LabelledData, gsd: float) -> list[str]:
    """What a reader must know of figures on samples."""
    notes = [SIMULATED] if data.simulated else []
    notes += [WEAK] if request.weak else []
    if len(data) < _FEW:
        notes.append(
            f"{len(data)} samples: a check that the files are read and the model runs, "
            "and no measure of accuracy."
        )
    if data.task in ("segment", "change") and not (request.gsd or data.gsd_range):
        notes.append(
            f"The pictures do not say their scale; {gsd:g} m per pixel is assumed (--gsd)."
        )
    return notes


@contextmanager
def work_folder(request: EvaluateRequest) -> Iterator[Path]:
    """Where unfinished work is kept: beside the report, where a run that was cut finds it again."""
    if request.report is None:
        with tempfile.TemporaryDirectory(prefix="geolink-") as folder:
            yield Path(folder)
        return
    work = request.report.parent / f".{request.report.name}.work"
    with full_disk_named(work):
        work.mkdir(exist_ok=True)
    yield work
    shutil.rmtree(work, ignore_errors=True)
