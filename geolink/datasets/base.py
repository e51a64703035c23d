"""What fine-tuning and evaluation ask of labelled data."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from geolink.config import Task
from geolink.errors import InputError
from geolink.legend import Legend
from geolink.samples import Sample
from geolink.sources.base import SourceInfo
from geolink.sources.entities import OsmEntities


@dataclass(frozen=True)
class Item:
    """One sample, by name.

    Attributes:
        key: its name, unique in its data.
        city: the place or folder that it belongs to.
        position: x and y of its centre in its city's UTM zone, metres; None where unknown.
    """

    key: str
    city: str = ""
    position: tuple[float, float] | None = None


class OsmChange(Protocol):
    """Something done to OSM objects before a model sees them, such as leaving some out."""

    def entities(self, entities: OsmEntities, where: str = "") -> OsmEntities:
        """Objects as they are changed; `where` tells apart objects of the same name."""
        ...

    def graph(self, graph: HeteroData, where: str) -> HeteroData:
        """The graph of a picture, of which there is nothing but the graph, as it is changed."""
        ...


class LabelledData(ABC):
    """Samples with labels, read when they are asked for.

    Attributes:
        task: what the labels answer.
        legend: the classes; of regression, one entry per number.
        items: the samples, by name.
        gsd_range: finest and coarsest ground sampling distance, metres; None where unknown.
        sources: where images, OSM and labels come from.
    """

    def __init__(
        self,
        task: Task,
        legend: Legend,
        items: Iterable[Item],
        *,
        gsd_range: tuple[float, float] | None = None,
        sources: Sequence[SourceInfo] = (),
    ) -> None:
        self.task = task
        self.legend = legend
        self.items: Mapping[str, Item] = {item.key: item for item in items}
        self.gsd_range = gsd_range
        self.sources = tuple(sources)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the samples."""
        return tuple(self.items)

    @property
    def simulated(self) -> bool:
        """True where any image is rendered, not observed."""
        return any(source.simulated for source in self.sources)

    def sources_of(self, keys: Iterable[str]) -> tuple[SourceInfo, ...]:
        """Where the images, OSM and labels of some of the samples come from."""
        return self.sources

    @abstractmethod
    def sample(self, key: str) -> Sample:
        """The sample of a name.

        Raises:
            InputError: one of its files cannot be read.
        """

    @abstractmethod
    def label(self, key: str) -> NDArray[np.generic]:
        """The label of a sample alone, which is cheaper to read."""

    def disturbed(self, change: OsmChange) -> "LabelledData":
        """The same samples and labels, with OSM objects as something has changed them.

        Raises:
            InputError: there are no objects that could be changed.
        """
        raise InputError("these samples have no OSM objects that could be disturbed")

    def counts(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """(n, classes) pixels of each class, or 1 for the class of a whole image.

        Data for regression counts 1 for every sample.
        """
        if self.task == "regress":
            return np.ones((len(keys), 1), np.int64)
        classes = len(self.legend)
        rows = [np.bincount(self.label(key).ravel(), minlength=classes)[:classes] for key in keys]
        return np.array(rows, np.int64).reshape(len(keys), classes)


def _described(data: LabelledData) -> str:
    """Where data are from, and what they say."""
    cities = ", ".join(sorted({item.city for item in data.items.values()}))
    return f"the labels of {cities} ({data.task}: {', '.join(data.legend.names)})"


def _joined_sources(parts: Iterable[LabelledData]) -> tuple[SourceInfo, ...]:
    """The sources of all parts, each once."""
    return tuple(dict.fromkeys(source for part in parts for source in part.sources))


class JoinedData(LabelledData):
    """Several data sets of the same task and classes as one, such as several cities."""

    def __init__(self, parts: Sequence[LabelledData]) -> None:
        first = parts[0]
        for part in parts[1:]:
            if (part.task, part.legend) != (first.task, first.legend):
                raise InputError(
                    f"{_described(first)} and {_described(part)} cannot be joined; give a mapping "
                    "file with the classes of both"
                )
        self._part_of = {key: part for part in parts for key in part.items}
        if len(self._part_of) < sum(map(len, parts)):
            raise InputError("two places have the same name; give each a name of its own")
        ranges = np.array([part.gsd_range for part in parts if part.gsd_range])
        super().__init__(
            first.task,
            first.legend,
            [item for part in parts for item in part.items.values()],
            gsd_range=(float(ranges.min()), float(ranges.max())) if len(ranges) else None,
            sources=_joined_sources(parts),
        )

    def sources_of(self, keys: Iterable[str]) -> tuple[SourceInfo, ...]:
        """Those of the parts that the samples belong to."""
        return _joined_sources(dict.fromkeys(self._part_of[key] for key in keys))

    def sample(self, key: str) -> Sample:
        """The sample of a name, from its part."""
        return self._part_of[key].sample(key)

    def label(self, key: str) -> NDArray[np.generic]:
        """The label of a sample, from its part."""
        return self._part_of[key].label(key)

    def disturbed(self, change: OsmChange) -> LabelledData:
        """All parts with their objects changed."""
        return JoinedData(
            [part.disturbed(change) for part in dict.fromkeys(self._part_of.values())]
        )


def join(parts: Sequence[LabelledData]) -> LabelledData:
    """Several data sets as one.

    Raises:
        InputError: they answer different questions, or share names.
    """
    return parts[0] if len(parts) == 1 else JoinedData(parts)
