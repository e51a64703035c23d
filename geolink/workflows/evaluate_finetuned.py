"""Evaluation by fine-tuning: what a model becomes where labels are, there and elsewhere.

A model is fine-tuned on the training part of a place or folder and measured on the test part, once
per seed. With several places it is fine-tuned in each and measured in all: the matrix from place to
place (as Bai et al. 2025 train in Singapore and measure in three cities).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geolink.checkpoint import load_model
from geolink.datasets.base import LabelledData
from geolink.errors import place_named
from geolink.metrics.tally import Measured
from geolink.models.card import ModelCard
from geolink.models.geolink import GeoLink
from geolink.mosaic import fingerprint
from geolink.reports.record import Condition
from geolink.splits import load_split
from geolink.training.finetuning import FinetuneSettings
from geolink.workflows import evaluate_samples as samples
from geolink.workflows.evaluation_request import EvaluateRequest
from geolink.workflows.findings import Findings, Runs, add_blocks, sample_notes
from geolink.workflows.finetune import SPLIT, finetune
from geolink.workflows.finetune_request import FinetuneRequest
from geolink.workflows.labelled import LabelledRequest, labelled_data
from geolink.workflows.progress import Progress
from geolink.workflows.run_folder import NOTE
from geolink.workflows.trials import trials_of


@dataclass(frozen=True)
class Learned:
    """A model that was fine-tuned in one place.

    Attributes:
        place: name of the place or folder.
        model: in evaluation mode, on the device.
        test: keys of the place's test samples, which the model has not seen.
    """

    place: str
    model: GeoLink
    test: tuple[str, ...]


class FinetunedModels:
    """Fine-tunes a model in every place of a request, and measures each in all of them.

    Args:
        request: what is asked for.
        card: of the model to start from.
        work: where the runs are kept, so that what was cut goes on.
        device: where models are trained and asked.
        progress: told of both.
    """

    def __init__(
        self,
        request: EvaluateRequest,
        card: ModelCard,
        *,
        work: Path,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._request, self._card, self._work = request, card, work
        self._options: dict[str, Any] = {"device": device, "progress": progress}
        self._cells: dict[tuple[str, str], Runs] = {}

    def measure(self) -> Findings:
        """What the models say of test samples, in every trial.

        Raises:
            ConfigError, InputError: labels or settings cannot be used.
        """
        request = self._request
        data = self._data(request.seed)
        with_osm = samples.has_osm(data)
        trials = trials_of(request, with_osm=with_osm)
        samples.require_disturbable(trials, with_osm=with_osm)
        findings = Findings(data.legend, sources=list(data.sources))
        for seed in range(request.seed, request.seed + request.seeds):
            # Another seed is another look of simulated places.
            shown = self._data(seed) if data.simulated and seed != request.seed else data
            views = samples.views_of(trials, seed, request, shown, with_osm=with_osm)
            learned = []
            for place in _places(request):
                with place_named(_name(place), several=request.several):
                    learned.append(self._learned(place, seed))
            for number, one in enumerate(learned):
                own = self._measure_own(findings, one, shown, views, new=number == 0)
                self._measure_elsewhere(one, learned, shown, views[0], own)
        findings.others += self._matrix(findings)
        findings.notes += sample_notes(request, data, samples.gsd_of(request, data))
        return findings

    def _data(self, seed: int) -> LabelledData:
        request = replace(self._request, seed=seed)
        progress = self._options["progress"]
        return labelled_data(request, self._card, own_classes=True, progress=progress)

    def _measure_own(
        self,
        findings: Findings,
        learned: Learned,
        data: LabelledData,
        views: Sequence[samples.View],
        *,
        new: bool,
    ) -> Mapping[str, Measured]:
        """Measures a model in its own place; gives what the main trial counted."""
        found = []
        for view in views:
            blocks, pair = samples.measure_answers(
                learned.model, data, learned.test, view, self._request, **self._options
            )
            if view is views[0] and pair is not None and view.seed == self._request.seed:
                findings.pictures.append(pair)
            add_blocks(findings.runs_of(view.trial, alone=view.alone), blocks, new=new)
            found.append(blocks)
        return found[0]

    def _measure_elsewhere(
        self,
        learned: Learned,
        everywhere: Sequence[Learned],
        data: LabelledData,
        view: samples.View,
        own: Mapping[str, Measured],
    ) -> None:
        """Measures a model on the test samples of all places, if there is more than its own."""
        for other in everywhere if len(everywhere) > 1 else ():
            blocks = own
            if other is not learned:
                blocks, _ = samples.measure_answers(
                    learned.model, data, other.test, view, self._request, **self._options
                )
            self._cells.setdefault((learned.place, other.place), []).append(blocks)

    def _matrix(self, findings: Findings) -> Iterator[Condition]:
        for (source, target), runs in self._cells.items():
            yield Condition.of(
                f"{source} to {target}",
                "transfer",
                runs,
                findings.legend,
                draws=self._request.draws,
                trained_on=source,
                place=target,
            )

    def _learned(self, place: LabelledRequest, seed: int) -> Learned:
        """The model fine-tuned in a place; of a run that was cut, the rest is done."""
        request = self._request
        name = _name(place)
        settings = {**request.record(), "base": self._card.sha256, "place": name, "seed": seed}
        out = self._work / f"finetuned-{fingerprint(settings)[:16]}"
        labelled = {f.name: getattr(place, f.name) for f in fields(LabelledRequest)}
        finetune(
            FinetuneRequest(
                **labelled | {"seed": seed},
                out=out,
                learning=FinetuneSettings(request.mode),
                split=str(request.split),
                fraction=request.fraction,
                epochs=request.epochs,
                workers=request.workers,
                device=request.device,
                resume=(out / NOTE).exists(),
            ),
            self._options["progress"],
        )
        model = load_model(out).to(self._options["device"])
        return Learned(name, model, load_split(out / SPLIT).test)


def _places(request: EvaluateRequest) -> list[EvaluateRequest]:
    """A request for each place."""
    each = partial(replace, request, cities=(), extracts=())
    places = [each(extracts=(path,)) for path in request.extracts]
    places += [each(city=city) for city in request.cities]
    return places or [request]


def _name(place: LabelledRequest) -> str:
    """What people call a place or folder."""
    if place.extracts:
        return place.extracts[0].name.partition(".")[0]
    return place.city or Path(str(place.data or place.imagery or place.aoi or "place")).name
