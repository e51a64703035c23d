"""`finetune`: labels and a model in, a model for their task out."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geolink.checkpoint import load_model, save_checkpoint
from geolink.config import Task
from geolink.datasets.base import LabelledData
from geolink.datasets.dividing import fewer_labels, require_classes, split_data, telling_samples
from geolink.datasets.kept import KeptSamples
from geolink.files import replace_bytes
from geolink.models.additions import add_painting
from geolink.models.card import ModelCard
from geolink.models.geolink import GeoLink
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.model_files import CARD, WEIGHTS
from geolink.sources.network import Network
from geolink.splits import PARTS, Split, save_split
from geolink.training.callbacks import Watch
from geolink.training.distributed import world
from geolink.training.finetuning import (
    FinetuneTask,
    class_weights,
    merge_lora,
    model_for,
    scale_answers,
    scale_scores,
)
from geolink.training.labelled import Collate, LabelledSamples
from geolink.training.logs import CSV, EVENTS
from geolink.training.loop import Watchers, train
from geolink.training.state import STATE
from geolink.workflows.acquire import local_model
from geolink.workflows.calibrating import fit_temperature
from geolink.workflows.finetune_request import FinetuneRequest
from geolink.workflows.inference import pick_device
from geolink.workflows.labelled import labelled_data
from geolink.workflows.progress import Progress, silent
from geolink.workflows.run_folder import NOTE, claim, require_free
from geolink.workflows.site import Supply
from geolink.workflows.validation import BEST, DECISIVE, HISTORY, Validator, figures, plain

SPLIT, RESULT, RATE, SAMPLES = "split.json", "finetune.json", "rate-", "samples"
_RUN = (STATE, BEST, HISTORY, CARD, WEIGHTS, CSV, EVENTS, SPLIT, RESULT, NOTE, SAMPLES, f"{RATE}*")


@dataclass(frozen=True)
class FinetuneResult:
    """What a run made.

    Attributes:
        out: the run folder.
        task: what the model answers.
        classes: what it tells apart, or the numbers that it predicts.
        colors: `#rrggbb` of each.
        samples: number of samples by part of the split.
        rate: learning rate that was kept.
        epoch: the epoch whose state was kept.
        validation: its figures on the validation samples; empty without any.
        test: its figures on the test samples; the decisive one comes first.
        trials: the decisive validation figure of every learning rate.
        temperature: what the scores were divided by, so that confidence fits the validation
            samples; NaN where there are none, or numbers are predicted.
        simulated: True where images were rendered, not observed.
        seconds: wall time since the run went on.
    """

    out: Path
    task: Task
    classes: tuple[str, ...]
    colors: tuple[str, ...]
    samples: Mapping[str, int]
    rate: float
    epoch: int
    validation: Mapping[str, float]
    test: Mapping[str, float]
    trials: Mapping[str, float]
    temperature: float
    simulated: bool
    seconds: float

    @property
    def title(self) -> str:
        """Heading of the table of figures."""
        how = " (SIMULATED imagery, drawn from OSM)" if self.simulated else ""
        return f"{self.task}: {self.samples['test']:,} test samples{how}"

    @property
    def summary(self) -> str:
        """One line for people."""
        found = ", ".join(f"{name} {v:.3f}" for name, v in self.test.items() if "." not in name)
        line = f"{self.out}: {found} on {self.samples['test']:,} test samples"
        line += f", after epoch {self.epoch} at rate {self.rate:g}, in {self.seconds:.0f} s"
        return line + (" (SIMULATED imagery, drawn from OSM)" if self.simulated else "")

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data; a figure that is not defined is null."""
        figures_of = {name: plain(getattr(self, name)) for name in ("validation", "test", "trials")}
        decisive = DECISIVE[self.task]
        rest = {"temperature": plain({"": self.temperature})[""], "decisive": decisive}
        return {**asdict(self), **figures_of, **rest, "out": str(self.out)}


def finetune(
    request: FinetuneRequest | None = None,
    progress: Progress = silent,
    watch: Watch = lambda status: None,
    **settings: Any,  # noqa: ANN401 - checked by FinetuneRequest
) -> FinetuneResult:
    """Trains a model for a task on labels (Bai et al. 2025, section 4).

    Under torchrun, call it alike in every process. A run that is cut goes on with `resume`.

    Args:
        request: what to do; or give its fields by name.
        progress: called with (stage, done, total).
        watch: called with loss, rate, speed and time left, at every line of the log.
        **settings: fields of a `FinetuneRequest`.

    Raises:
        ConfigError: the settings cannot be used, or are not those of the run to resume.
        InputError: images or labels cannot be used, or there is nothing to learn.
        UnavailableError: a model or source is not here and cannot be fetched.
        DivergedError: the loss is no finite number.
        OutputError: the run folder cannot be written, or holds a run.
        KeyboardInterrupt: the run was asked to stop; its state is saved.
    """
    request = request or FinetuneRequest(**settings)
    started = time.monotonic()
    again = {"resume": request.resume, "overwrite": request.overwrite}
    if world()[0] == 0:
        require_free(request.out, _RUN, **again)
    supply = Supply(Cache(), Network(offline=request.offline, progress=progress))
    base = load_model(local_model(request.model, supply), offline=request.offline)
    if request.learning.paint_objects:
        base = add_painting(base)
    data = labelled_data(
        request, base.card, own_classes=True, cutting=request.cutting, progress=progress
    )
    split = _split(request, data)
    taught = len(split.train)
    request.settings(request.rates[0], taught, "cpu").steps_per_epoch(taught)  # refused in time
    claim(request.out, _RUN, **again)
    if world()[0] == 0:
        save_split(split, request.out / SPLIT, overwrite=True)
    if request.keep_samples:
        (request.out / SAMPLES).mkdir(exist_ok=True)
        data = KeptSamples(data, request.out / SAMPLES)
    runs = [_Run(request, base, data, split, rate) for rate in request.rates]
    for run in runs:
        run.train(progress, watch)
    return _finish(runs, started)


def _split(request: FinetuneRequest, data: LabelledData) -> Split:
    """The parts of the data, of which there is something to learn."""
    split = split_data(
        data,
        request.split,
        seed=request.seed,
        block_m=request.block_m,
        side=request.cutting.side,
        test_cities=request.test_cities,
        validation_cities=request.validation_cities,
    )
    require_classes(data, split)
    if request.choosy:
        split = telling_samples(
            data, split, labelled=request.least_labelled, uniform=request.most_uniform
        )
    if request.fraction < 1:
        split = fewer_labels(data, split, request.fraction, seed=request.seed)
    return split


class _Run:
    """One training at one rate.

    Args:
        request: what to do.
        base: the model to start from.
        data: labelled data.
        split: its parts.
        rate: peak learning rate of the head.
    """

    def __init__(
        self,
        request: FinetuneRequest,
        base: GeoLink,
        data: LabelledData,
        split: Split,
        rate: float,
    ) -> None:
        self.request, self.base, self.data, self.split = request, base, data, split
        self.rate = rate
        self.folder = request.out if len(request.rates) < 2 else request.out / f"{RATE}{rate:g}"
        self.folder.mkdir(exist_ok=True)
        self.device = pick_device(request.device)
        self.validator = Validator(
            data,
            split.validation,
            folder=self.folder,
            patience=request.patience,
            device=self.device,
        )

    def train(self, progress: Progress, watch: Watch) -> None:
        """Trains, or goes on training, to the end or until it gets no better."""
        request = self.request
        samples = LabelledSamples(
            self.data, self.split.train, seed=request.seed, variation=request.variation
        )
        task = self._task()
        result = train(
            task,
            samples,
            Collate(task.model.config),
            settings=request.settings(self.rate, len(samples), self.device.type),
            record=self._record(),
            folder=self.folder,
            watchers=Watchers(progress, watch, [self.validator], enough=self.validator.exhausted),
        )
        self.validator.reload()  # process 0 has measured
        if not result.finished and not self.validator.exhausted():
            raise KeyboardInterrupt(
                f"stopped after step {result.step:,} of {result.steps:,}; the state is saved in "
                f"{self.folder}, and the same command with --resume goes on from there"
            )

    def best_model(self) -> GeoLink:
        """The model of the best epoch, as plain weights."""
        task = self._task()
        self.validator.restore(task)
        if self.request.learning.mode == "lora":
            merge_lora(task.model)
        return task.model.to(self.device).eval()

    def calibrate(self, model: GeoLink) -> float:
        """Makes a model as sure as it is right on the validation samples; the temperature."""
        if self.request.task == "regress" or not self.split.validation:
            return math.nan
        temperature = fit_temperature(model, self.data, self.split.validation, self.device)
        scale_scores(model, temperature)
        return temperature

    def _task(self) -> FinetuneTask:
        request, data, train_keys = self.request, self.data, self.split.train
        model = model_for(self.base, request.task, data.legend, seed=request.seed)
        weights = None
        if request.task == "regress":
            scale_answers(model, np.stack([data.label(key) for key in train_keys]).astype("f4"))
        else:
            counts = data.counts(train_keys).sum(axis=0)
            weights = class_weights(counts, request.learning.class_weights)
        return FinetuneTask(model, request.learning, weights=weights, seed=request.seed)

    def _record(self) -> dict[str, Any]:
        """Whatever else than the training settings decides the weights."""
        request = self.request
        return {
            "base": self.base.card.sha256,
            "task": request.task,
            "classes": list(self.data.legend.names),
            "train": list(self.split.train),
            "learning": request.learning.to_dict(),
            "variation": asdict(request.variation) if request.variation else {},
        }

    def card(self, model: GeoLink, test: Mapping[str, float]) -> ModelCard:
        """The card of the fine-tuned model."""
        data, base = self.data, self.base.card
        named = "; ".join(dict.fromkeys(map(_described, data.sources_of(self.split.train))))
        what = "simulated orthophotos" if data.simulated else "images"
        labels = "OSM's own zones" if self.request.weak else "labels"
        learned = (
            f"fine-tuning ({self.request.learning.mode}) to {self.request.task} on "
            f"{len(self.split.train):,} {what} with {labels}: {named} (split: {self.split.method})"
        )
        return replace(
            model.card,
            name=self.request.out.absolute().name,
            gsd_range=data.gsd_range or base.gsd_range,
            training_data=f"{base.training_data}; then {learned}",
            metrics={f"test_{name}": value for name, value in test.items() if np.isfinite(value)},
        )


def _finish(runs: Sequence[_Run], started: float) -> FinetuneResult:
    """Measures the best state of the best run, and writes it as a model."""
    best = max(runs, key=lambda run: run.validator.score)
    request, data, split = best.request, best.data, best.split
    model = best.best_model()
    first = world()[0] == 0
    temperature = best.calibrate(model) if first else math.nan
    test = figures(model, data, split.test, best.device) if first else {}
    decisive = DECISIVE[request.task]
    result = FinetuneResult(
        out=request.out,
        task=request.task,
        classes=data.legend.names,
        colors=tuple(c.color for c in data.legend.classes),
        samples={part: len(split.part(part)) for part in PARTS},
        rate=best.rate,
        epoch=best.validator.best_epoch,
        validation=best.validator.best,
        test=test,
        trials={f"{run.rate:g}": run.validator.best.get(decisive, math.nan) for run in runs},
        temperature=temperature,
        simulated=data.simulated,
        seconds=time.monotonic() - started,
    )
    if first:
        save_checkpoint(request.out, model, best.card(model, test), half=request.half)
        text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False)
        replace_bytes(request.out / RESULT, text.encode() + b"\n")
    return result


def _described(source: SourceInfo) -> str:
    """A source with its licence."""
    return source.description + (f" ({source.licence})" if source.licence else "")
