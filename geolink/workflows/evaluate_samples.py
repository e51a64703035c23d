"""Evaluation on labelled samples, one by one: pictures with labels, and probes of features."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from geolink.datasets.base import LabelledData
from geolink.datasets.dividing import fewer_labels, require_classes, split_data
from geolink.errors import ConfigError, InputError
from geolink.grid import GridSpec, utm_crs
from geolink.metrics.classification import tally_classes
from geolink.metrics.probes import knn_votes, linear_probe
from geolink.metrics.regression import RegressionSums
from geolink.metrics.segmentation import tally_map
from geolink.metrics.tally import Measured
from geolink.models.geolink import GeoLink
from geolink.reports.maps import MapPair
from geolink.samples import Sample
from geolink.sources.base import ImageTile, SourceInfo
from geolink.workflows.answers import Answer, answers, encodings
from geolink.workflows.evaluation_request import EvaluateRequest
from geolink.workflows.progress import Progress
from geolink.workflows.trials import Disturbance, Trial
from geolink.workflows.validation import hide_all_givers

# Samples without a position fall into as many blocks as this, by their names.
_GROUPS = 50
DEFAULT_GSD = 1.0

Blocks = dict[str, Measured]


def gsd_of(request: EvaluateRequest, data: LabelledData) -> float:
    """Metres per pixel of the samples: as asked, else as known, else 1."""
    known = data.gsd_range[0] if data.gsd_range else DEFAULT_GSD
    return request.gsd or known


def block_of(data: LabelledData, key: str, block_m: float) -> str:
    """Name of the spatial block of a sample: the square that it lies in, else one of its city."""
    item = data.items[key]
    if item.position is not None:
        east, north = (int(xy // block_m) for xy in item.position)
        return f"{item.city} {east * block_m:.0f}E {north * block_m:.0f}N"
    if len(data) <= _GROUPS:
        return key
    return f"group {zlib.crc32(key.encode()) % _GROUPS:02d}"


@dataclass(frozen=True)
class View:
    """How samples are shown to the model in one run of one trial.

    Attributes:
        trial: what is disturbed.
        seed: of the disturbance.
        gsd: metres per pixel.
        with_osm: the model sees the OSM objects.
        alone: it does not, though there are some.
    """

    trial: Trial
    seed: int
    gsd: float
    with_osm: bool
    alone: bool = False

    def of(self, data: LabelledData) -> LabelledData:
        """The samples with their OSM objects as the trial has them."""
        if not self.trial.needs_osm:
            return data
        side = data.sample(data.keys[0]).rgb.shape[-1]
        return data.disturbed(Disturbance(self.trial, self.seed, side * self.gsd))

    def apply(self, key: str, sample: Sample) -> Sample:
        """A sample as the model sees it; objects that gave labels are hidden."""
        graph = sample.graph if self.with_osm else None
        shown = replace(sample, graph=graph, givers=sample.givers if self.with_osm else {})
        shown = hide_all_givers(key, shown)
        if not self.trial.is_of_image:
            return shown
        dates = sample.rgb.reshape(-1, *sample.rgb.shape[-3:])
        worse = np.stack([self._degraded(key, rgb) for rgb in dates])
        return replace(shown, rgb=worse.reshape(sample.rgb.shape))

    def _degraded(self, key: str, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(3, H, W) pixels; every picture lies in a place of its own, under another cloud."""
        number = zlib.crc32(key.encode()) % 10_000
        height, width = rgb.shape[-2:]
        grid = GridSpec(utm_crs(0, 0), 1e4 * number, 0.0, self.gsd, height, width)
        source = self.trial.imagery(_Picture(rgb, grid), self.seed)
        return source.read(grid).rgb


@dataclass(frozen=True)
class _Picture:
    """The pixels of one sample as an image source."""

    rgb: NDArray[np.uint8]
    grid: GridSpec
    info = SourceInfo("picture")

    def read(self, grid: GridSpec) -> ImageTile:
        """Pixels of a grid in line with the sample's."""
        row = round((self.grid.north - grid.north) / grid.gsd)
        col = round((grid.west - self.grid.west) / grid.gsd)
        rows, cols = np.arange(grid.height) + row, np.arange(grid.width) + col
        inside = np.ix_(
            (rows >= 0) & (rows < self.grid.height), (cols >= 0) & (cols < self.grid.width)
        )
        rgb, valid = np.zeros((3, *grid.shape), np.uint8), np.zeros(grid.shape, bool)
        valid[inside] = True
        rgb[:, valid] = self.rgb[
            :,
            np.clip(rows, 0, self.grid.height - 1)[:, None],
            np.clip(cols, 0, self.grid.width - 1),
        ][:, valid]
        return ImageTile(rgb, valid)


def views_of(
    trials: Sequence[Trial],
    seed: int,
    request: EvaluateRequest,
    data: LabelledData,
    *,
    with_osm: bool,
) -> list[View]:
    """What is looked at with one seed: the main trial with OSM and without, then the others."""
    gsd = gsd_of(request, data)
    main, *others = trials
    views = [View(main, seed, gsd, with_osm)]
    views += [View(main, seed, gsd, with_osm=False, alone=True)] if with_osm else []
    return [*views, *(View(trial, seed, gsd, with_osm) for trial in others)]


def measure_answers(
    model: GeoLink,
    data: LabelledData,
    keys: Sequence[str],
    view: View,
    request: EvaluateRequest,
    *,
    device: torch.device,
    progress: Progress,
) -> tuple[Blocks, MapPair | None]:
    """What is counted of a model's answers, by block, and the first map for a picture.

    Raises:
        InputError: nothing is labelled.
    """
    blocks: Blocks = {}
    first = None
    found = answers(
        model, view.of(data), keys, device=device, change=view.apply, batch_size=request.batch_size
    )
    for done, answer in enumerate(found):
        counted = _counted(data, answer, view.gsd, request)
        name = block_of(data, answer.key, request.block_m)
        blocks[name] = blocks[name] + counted if name in blocks else counted
        if first is None and data.task in ("segment", "change"):
            first = MapPair(answer.key, answer.sample.label, _classes(answer), view.gsd)
        progress("samples", done + 1, len(keys))
    if first is not None and not any(_pixels(tally) for tally in blocks.values()):
        raise InputError(
            "no pixel of the samples has a label; check the ignored values and the classes"
        )
    return blocks, first


def _counted(data: LabelledData, answer: Answer, gsd: float, request: EvaluateRequest) -> Measured:
    """What is counted of one answer."""
    label, one = answer.sample.label, np.zeros(1, np.intp)
    if data.task == "regress":
        return RegressionSums.of(label, answer.values)
    if data.task == "classify":
        return tally_classes(label.reshape(1), answer.values[None].astype(float), one, count=1)[0]
    return tally_map(
        label,
        _classes(answer),
        answer.values.max(axis=0),
        np.zeros(label.shape, np.intp),
        classes=len(data.legend),
        count=1,
        gsd=gsd,
        distances_m=request.distances_m,
        min_zone_area_m2=request.min_zone_area_m2,
    )[0]


def _classes(answer: Answer) -> NDArray[np.uint8]:
    """(H, W) most probable class."""
    return np.asarray(answer.values.argmax(axis=0), np.uint8)


def _pixels(tally: Measured) -> int:
    return int(np.asarray(getattr(getattr(tally, "confusion", None), "counts", 0)).sum())


# Probes


class FeatureTable:
    """The scene encodings of all samples; those that no seed changes are computed once.

    Args:
        model: in evaluation mode, on `device`.
        data: labelled data.
        request: says how many samples are encoded at once.
        device: where the model is.
        progress: told of every sample.
    """

    def __init__(
        self,
        model: GeoLink,
        data: LabelledData,
        request: EvaluateRequest,
        *,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._model, self._data, self._request = model, data, request
        self._device, self._progress = device, progress
        self._known: dict[View, NDArray[np.float32]] = {}

    def of(self, view: View) -> NDArray[np.float32]:
        """(n, width) encodings in the order of the data's keys."""
        same = view if view.trial.is_random else replace(view, seed=0)
        if same not in self._known:
            self._known[same] = self._encoded(view)
        return self._known[same]

    def _encoded(self, view: View) -> NDArray[np.float32]:
        keys = self._data.keys
        found = encodings(
            self._model,
            view.of(self._data),
            keys,
            device=self._device,
            change=view.apply,
            batch_size=self._request.batch_size,
        )
        rows: list[NDArray[np.float32]] = []
        for encoding in found:
            rows.append(encoding.values)
            self._progress("features", len(rows), len(keys))
        return np.stack(rows)


def probe(
    table: NDArray[np.float32], data: LabelledData, request: EvaluateRequest, seed: int
) -> Blocks:
    """What is counted of the test samples' classes, told from features by kNN or a linear probe.

    Raises:
        InputError: the samples cannot be split, or there is nothing to tell apart.
    """
    split = split_data(data, str(request.split), seed=seed)
    require_classes(data, split)
    if request.fraction < 1:
        split = fewer_labels(data, split, request.fraction, seed=seed)
    row = {key: i for i, key in enumerate(data.keys)}
    parts = {
        name: [row[key] for key in split.part(name)] for name in ("train", "validation", "test")
    }
    truth = np.array([int(data.label(key)) for key in data.keys])
    train, labels = table[parts["train"]], truth[parts["train"]]
    test = table[parts["test"]]
    if request.protocol == "knn":
        known = knn_votes(train, labels, test)
    else:
        tuned = parts["validation"] or parts["train"]
        known = linear_probe(
            train, labels, test, validation=(table[tuned], truth[tuned]), seed=seed
        )
    probabilities = np.zeros((len(test), len(data.legend)))
    probabilities[:, np.unique(labels)] = known
    return _by_block(data, split.test, truth[parts["test"]], probabilities, request.block_m)


def _by_block(
    data: LabelledData,
    keys: Sequence[str],
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    block_m: float,
) -> Blocks:
    names = [block_of(data, key, block_m) for key in keys]
    order = list(dict.fromkeys(names))
    numbers = np.array([order.index(name) for name in names])
    tallies = tally_classes(truth.astype(np.uint8), probabilities, numbers, count=len(order))
    return dict(zip(order, tallies, strict=True))


def has_osm(data: LabelledData) -> bool:
    """Whether any of the first samples comes with OSM objects."""
    return any(data.sample(key).graph is not None for key in data.keys[:8])


def require_disturbable(trials: Sequence[Trial], *, with_osm: bool) -> None:
    """Check that there are objects where a trial disturbs them.

    Raises:
        ConfigError: there are none.
    """
    if not with_osm and any(trial.needs_osm for trial in trials):
        raise ConfigError(
            "OSM objects cannot be disturbed without OSM; leave out --osm none, or disturb images "
            "only"
        )


def require_fits(data: LabelledData, model: GeoLink, request: EvaluateRequest) -> None:
    """Check that the model answers what the labels ask.

    Raises:
        ConfigError: it answers another task, or has other classes.
    """
    card = model.card
    if card.config.task != request.task:
        raise ConfigError(
            f"the model {card.name} answers the task {card.config.task}, and the protocol "
            f"{request.protocol} measures {request.task}; choose another model or protocol"
        )
    if data.task != "regress" and len(data.legend) != len(card.legend):
        raise ConfigError(
            f"the data have {len(data.legend)} classes ({', '.join(data.legend.names)}), the model "
            f"{card.name} has {len(card.legend)}; fine-tune it on these classes first"
        )
    if data.task == "regress" and len(data.legend) != 1:
        raise ConfigError(
            f"regression is measured of one number; choose one of {', '.join(data.legend.names)} "
            "with --label-column"
        )
