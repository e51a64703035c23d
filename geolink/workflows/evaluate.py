"""`evaluate`: a model and labelled data in, figures with intervals and a report out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geolink.checkpoint import load_model
from geolink.errors import ConfigError
from geolink.legend import Legend
from geolink.models.geolink import GeoLink
from geolink.reports.compare import Comparison, compare
from geolink.reports.files import load_report, report_record
from geolink.reports.maps import error_map
from geolink.reports.record import Condition, Report, figure_names
from geolink.reports.thresholds import Shortfall, parse_thresholds, shortfalls
from geolink.reports.write import require_report_folder, write_report
from geolink.sources.cache import Cache
from geolink.sources.network import Network
from geolink.workflows import evaluate_maps as maps
from geolink.workflows import evaluate_samples as samples
from geolink.workflows.acquire import local_model
from geolink.workflows.evaluate_finetuned import FinetunedModels
from geolink.workflows.evaluation_request import FINETUNE, PROBES, EvaluateRequest
from geolink.workflows.findings import (
    SIMULATED,
    WEAK,
    Findings,
    Runs,
    add_blocks,
    sample_notes,
    seeds_of,
    work_folder,
)
from geolink.workflows.inference import pick_device
from geolink.workflows.labelled import labelled_data
from geolink.workflows.mapping import open_model
from geolink.workflows.progress import Progress, silent
from geolink.workflows.site import Supply
from geolink.workflows.trials import trials_of

_ONE_CLASS = "The reference has the class {} only: figures over classes say little."


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation found.

    Attributes:
        report: all figures.
        page: the HTML page; None where no report was asked for.
        missed: figures below the values asked for.
        seconds: wall time.
    """

    report: Report
    page: Path | None
    missed: list[Shortfall]
    seconds: float

    @property
    def summary(self) -> str:
        """One line for people."""
        names = [n for n in ("miou", "accuracy", "r2") if n in self.report.main.figures]
        values = ", ".join(f"{n} {self.report.main.figures[n].value:.3f}" for n in names)
        line = f"{self.report.title}: {values}, in {self.seconds:.0f} s"
        line += f"; {self.page}" if self.page else ""
        for shortfall in self.missed:
            line += f"; FAILED: {shortfall.sentence}"
        return line

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data: that of the report, without the sums per block."""
        record = report_record(self.report)
        for condition in record["conditions"]:
            del condition["blocks"]
        missed = [asdict(shortfall) for shortfall in self.missed]
        page = None if self.page is None else str(self.page)
        return {**record, "page": page, "missed": missed, "seconds": self.seconds}


def evaluate(
    request: EvaluateRequest | None = None,
    progress: Progress = silent,
    **settings: Any,  # noqa: ANN401 - checked by EvaluateRequest
) -> EvaluateResult:
    """Measures a model on labelled data under one protocol.

    Args:
        request: what to do; or give its fields by name.
        progress: called with (stage, done, total).
        **settings: fields of an `EvaluateRequest`.

    Raises:
        ConfigError: settings contradict one another, or do not fit the model.
        InputError: images or labels cannot be used.
        UnavailableError: data or a model is not here and cannot be fetched.
        OutputError: the report cannot be written.
    """
    request = request or EvaluateRequest(**settings)
    started = time.monotonic()
    if request.report is not None:
        require_report_folder(request.report, overwrite=request.overwrite)
    device = pick_device(request.device)
    supply = Supply(Cache(), Network(offline=request.offline, progress=progress))
    model = _model(request, supply).to(device)
    if request.protocol == FINETUNE:
        with work_folder(request) as work:
            findings = FinetunedModels(
                request, model.card, work=work, device=device, progress=progress
            ).measure()
    elif request.data is None and request.protocol == "segment":
        findings = _on_places(request, model, supply, device, progress)
    else:
        findings = _on_samples(request, model, device, progress)
    report = _report(request, model, findings)
    thresholds = _thresholds(request, report.legend)
    page = None
    if request.report is not None:
        pictures = {
            pair.name: error_map(pair, report.legend, title=f"{pair.name}: {report.title}")
            for pair in findings.pictures
        }
        page = write_report(request.report, report, maps=pictures, overwrite=request.overwrite)
    missed = shortfalls(report, thresholds)
    return EvaluateResult(report, page, missed, time.monotonic() - started)


def compare_reports(first: Path, second: Path) -> Comparison:
    """The difference of two reports, second minus first, with intervals.

    Raises:
        InputError: a report cannot be read, or they measure other things.
    """
    return compare(load_report(first), load_report(second))


def _model(request: EvaluateRequest, supply: Supply) -> GeoLink:
    """The model, with a head where the protocol needs one; thresholds are checked first."""
    spec = local_model(request.model, supply)
    if request.protocol in (*PROBES, FINETUNE):
        return load_model(spec, offline=request.offline)
    model = open_model(spec, task=None)
    _thresholds(request, model.card.legend)
    return model


def _thresholds(request: EvaluateRequest, legend: Legend) -> dict[str, float]:
    names = figure_names(request.measures, legend, request.distances_m)
    return parse_thresholds(request.fail_under, names)


def _on_places(
    request: EvaluateRequest,
    model: GeoLink,
    supply: Supply,
    device: torch.device,
    progress: Progress,
) -> Findings:
    """The map that `predict` draws of each place, in every trial."""
    legend = model.card.legend
    if model.card.config.task != "segment":
        raise ConfigError(
            f"the model {model.card.name} answers the task {model.card.config.task}, and the "
            "protocol segment measures maps; choose another model or protocol"
        )
    grounds = maps.survey(request, model, supply)
    findings = Findings(legend)
    with_osm = any(ground.visible is not None for ground in grounds)
    trials = trials_of(request, with_osm=with_osm)
    samples.require_disturbable(trials, with_osm=with_osm)
    simulated = any(ground.simulated for ground in grounds)
    plan = [
        (trial, seed, ground)
        for trial in trials
        for seed in seeds_of(request, random=trial.is_random or simulated)
        for ground in grounds
    ]
    steps = _Steps(progress, [len(ground.scene.tiles) for _, _, ground in plan])
    with work_folder(request) as work:
        for (trial, seed, ground), step in zip(plan, steps, strict=True):
            options: dict[str, Any] = {"seed": seed, "work": work, "device": device}
            drawn, alone = maps.measure(ground, trial, model, request, **options, progress=step)
            first = ground is grounds[0]
            add_blocks(
                findings.trials.setdefault(trial, []),
                maps.tally(ground, drawn, legend, request),
                new=first,
            )
            if trial.kind == "main" and with_osm:
                add_blocks(findings.without, maps.tally(ground, alone, legend, request), new=first)
            if trial.kind == "main" and seed == request.seed:
                findings.pictures.append(maps.picture(ground, drawn))
    summed = partial(Condition.of, legend=legend, draws=request.draws)
    baseline = maps.majority(grounds, legend, request)
    findings.others.append(summed("majority class", "baseline", [baseline]))
    if len(grounds) > 1:
        findings.others += _by_place(findings.trials[trials[0]], grounds, model, summed)
    findings.sources = [info for ground in grounds for info in maps.infos(ground)]
    findings.notes += [SIMULATED] if simulated else []
    findings.notes += [WEAK] if request.weak else []
    return findings


def _on_samples(
    request: EvaluateRequest, model: GeoLink, device: torch.device, progress: Progress
) -> Findings:
    """The model's answers to samples, or probes of its features, in every trial."""
    data = labelled_data(request, model.card, progress=progress)
    _thresholds(request, data.legend)
    if request.protocol not in PROBES:
        samples.require_fits(data, model, request)
    with_osm = samples.has_osm(data)
    trials = trials_of(request, with_osm=with_osm)
    samples.require_disturbable(trials, with_osm=with_osm)
    findings = Findings(data.legend, sources=list(data.sources))
    probed = request.protocol in PROBES
    views = [
        view
        for seed in seeds_of(request, random=True)
        for view in samples.views_of(trials, seed, request, data, with_osm=with_osm)
        if seed == request.seed or view.trial.is_random or probed
    ]
    table = samples.FeatureTable(model, data, request, device=device, progress=progress)
    for view in views:
        runs = findings.runs_of(view.trial, alone=view.alone)
        if probed:
            runs.append(samples.probe(table.of(view), data, request, view.seed))
            continue
        blocks, pair = samples.measure_answers(
            model, data, data.keys, view, request, device=device, progress=progress
        )
        runs.append(blocks)
        if pair is not None and not findings.pictures:
            findings.pictures.append(pair)
    findings.notes += sample_notes(request, data, samples.gsd_of(request, data))
    return findings


def _report(request: EvaluateRequest, model: GeoLink, findings: Findings) -> Report:
    """The findings as figures with intervals."""
    legend = findings.legend
    main, *rest = findings.trials
    summed = partial(Condition.of, legend=legend, draws=request.draws)
    conditions = [summed(main.name, "main", findings.trials[main])]
    if findings.without:
        conditions.append(summed("image alone", "no_osm", findings.without))
    for trial in rest:
        runs, level = findings.trials[trial], trial.curve_level
        conditions.append(summed(trial.name, trial.kind, runs, level=level))
    simulated = any(info.simulated for info in findings.sources)
    several = (*(path.name.partition(".")[0] for path in request.extracts), *request.cities)
    where = ", ".join(several) or request.city or (request.data and request.data.name)
    title = f"{model.card.name} on {where or findings.sources[0].description}"
    return Report(
        title=title + (" (simulated imagery)" if simulated else ""),
        protocol=request.protocol,
        measures=request.measures,
        legend=legend,
        seeds=tuple(request.seed + i for i in range(request.seeds)),
        conditions=(*conditions, *findings.others),
        model={"name": model.card.name, "sha256": model.card.sha256},
        data=[asdict(info) for info in dict.fromkeys(findings.sources)],
        settings=request.record(),
        notes=(*findings.notes, *_one_class(conditions[0], legend)),
    )


def _one_class(main: Condition, legend: Legend) -> list[str]:
    """The note that figures over classes need where the reference has but one."""
    confusion = getattr(main.whole, "confusion", None)
    if confusion is None or (confusion.referenced > 0).sum() != 1:
        return []
    return [_ONE_CLASS.format(legend.names[int(confusion.referenced.argmax())])]


def _by_place(
    runs: Runs,
    grounds: Sequence[maps.Ground],
    model: GeoLink,
    summed: Callable[..., Condition],
) -> Iterator[Condition]:
    """The main trial place by place: one row of the matrix from place to place."""
    for ground in grounds:
        name, own = ground.scene.place.name, set(ground.names)
        parts = [{k: tally for k, tally in run.items() if k in own} for run in runs]
        yield summed(f"in {name}", "transfer", parts, trained_on=model.card.name, place=name)


class _Steps:
    """Progress of several parts as one, in tiles.

    Args:
        progress: told of the whole.
        sizes: tiles of each part.
    """

    def __init__(self, progress: Progress, sizes: Sequence[int]) -> None:
        self._progress = progress
        self._sizes = sizes

    def __iter__(self) -> Iterator[Progress]:
        before = 0
        for size in self._sizes:
            yield self._from(before)
            before += size

    def _from(self, before: int) -> Progress:
        def step(stage: str, done: int, _: int) -> None:
            self._progress(stage, before + done, sum(self._sizes))

        return step
