"""Labelled data in folders of pictures, in the layouts that published sets come in."""

import copy
import csv
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from geolink.config import Task
from geolink.datasets.base import Item, LabelledData, OsmChange
from geolink.datasets.pictures import GraphsOfPictures, class_picture, picture_paths, rgb_picture
from geolink.errors import InputError
from geolink.legend import IGNORE, UFZ, Legend, new_legend
from geolink.samples import Sample
from geolink.sources.base import SourceInfo
from geolink.sources.class_table import ClassTable, class_table

VALUES = "values.csv"
IMAGES, LABELS = ("img", "images", "image"), ("label", "labels", "mask", "masks")
DATES = ("A", "B")
# As the published tiles have them: 9 stands for what is none of the nine classes.
UFZ_NUMBERS = class_table((), source="UFZ", legend=UFZ, ignore=(str(len(UFZ)),))


class PictureData(LabelledData):
    """What the folders of pictures have in common.

    Args:
        task: what the labels answer.
        legend: the classes.
        pictures: the picture of each sample by its key; of pairs of dates, the earlier one.
        folder: the whole set.
        graphs: finds the OSM objects of a picture; None where there is no OSM.
        side: height and width that pictures are brought to, pixels.
    """

    def __init__(
        self,
        task: Task,
        legend: Legend,
        pictures: Mapping[str, Path],
        *,
        folder: Path,
        graphs: GraphsOfPictures | None,
        side: int,
    ) -> None:
        self._pictures = pictures
        self._graphs = graphs
        self._side = side
        items = [Item(key, folder.name) for key in pictures]
        super().__init__(task, legend, items, sources=[SourceInfo(folder.name)])

    def sample(self, key: str) -> Sample:
        """The picture of a name, with its OSM objects where there are any."""
        return Sample(self._pixels(key), self._graph(key), self.label(key), {})

    @abstractmethod
    def label(self, key: str) -> NDArray[np.generic]:
        """The label of a picture."""

    def disturbed(self, change: OsmChange) -> Self:
        """The pictures with their objects changed."""
        changed = copy.copy(self)
        changed._graphs = None if self._graphs is None else self._graphs.disturbed(change)
        return changed

    def _pixels(self, key: str) -> NDArray[np.uint8]:
        return rgb_picture(self._pictures[key], self._side)

    def _graph(self, key: str) -> HeteroData | None:
        return None if self._graphs is None else self._graphs.build(self._pictures[key])


class PictureClasses(PictureData):
    """Pictures in one folder per class: `CLASS/NAME.jpg`.

    Args:
        folder: the set.
        graphs: finds the OSM objects of a picture; None where there is no OSM.
        side: height and width that pictures are brought to, pixels.

    Raises:
        InputError: there are no such folders.
    """

    def __init__(
        self, folder: Path, *, graphs: GraphsOfPictures | None = None, side: int = 224
    ) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; name one that holds a folder for each class")
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        found = {name: picture_paths(folder / name) for name in names}
        classes = [name for name in names if found[name]]
        if len(classes) < 2:
            raise InputError(
                f"{folder} has {len(classes)} folders of pictures; classification needs one folder "
                "for each of two or more classes"
            )
        pictures = _by_stem(folder, [path for name in classes for path in found[name]])
        legend = new_legend(folder.name, classes)
        self._ids = {key: legend.id_of(key.split("/")[0]) for key in pictures}
        super().__init__("classify", legend, pictures, folder=folder, graphs=graphs, side=side)

    def label(self, key: str) -> NDArray[np.uint8]:
        """() class id of a picture."""
        return np.array(self._ids[key], np.uint8)


class PictureSegments(PictureData):
    """Pictures in `img/` with a picture of class numbers each in `label/`, of the same name.

    Args:
        folder: the set.
        table: classes of the numbers.
        graphs: finds the OSM objects of a picture; None where there is no OSM.
        side: height and width that pictures are brought to, pixels.

    Raises:
        InputError: a folder is missing or empty, or a picture has no label.
    """

    def __init__(
        self,
        folder: Path,
        *,
        table: ClassTable = UFZ_NUMBERS,
        graphs: GraphsOfPictures | None = None,
        side: int = 224,
    ) -> None:
        pictures = _pictures_of(folder, IMAGES)
        self._labels = _matched(_pictures_of(folder, LABELS), pictures, folder)
        self._table = table
        self._ids = np.full(256, IGNORE, np.uint8)
        for text, number in table.ids.items():
            if text.isdecimal() and int(text) < len(self._ids):
                self._ids[int(text)] = number
        super().__init__("segment", table.legend, pictures, folder=folder, graphs=graphs, side=side)

    def label(self, key: str) -> NDArray[np.uint8]:
        """(side, side) class ids.

        Raises:
            InputError: the picture of classes cannot be read, or holds a number without a class.
        """
        numbers = class_picture(self._labels[key], self._side)
        self._table.require(map(str, np.unique(numbers).tolist()), source=str(self._labels[key]))
        labels: NDArray[np.uint8] = self._ids[numbers]
        return labels


class PictureChanges(PictureData):
    """Pairs of pictures in `A/` (earlier) and `B/` (later) with what changed in `label/`.

    Any number but 0 in the picture of changes means change, whatever its scale (1 or 255).

    Args:
        folder: the set.
        graphs: finds the OSM objects of the earlier picture, for both dates; None: no OSM.
        side: height and width that pictures are brought to, pixels.

    Raises:
        InputError: a folder is missing or empty, or a pair is not whole.
    """

    def __init__(
        self, folder: Path, *, graphs: GraphsOfPictures | None = None, side: int = 224
    ) -> None:
        pictures = _pictures_of(folder, DATES[:1])
        self._later = _matched(_pictures_of(folder, DATES[1:]), pictures, folder)
        self._labels = _matched(_pictures_of(folder, LABELS), pictures, folder)
        legend = new_legend(folder.name, ["unchanged", "changed"])
        super().__init__("change", legend, pictures, folder=folder, graphs=graphs, side=side)

    def label(self, key: str) -> NDArray[np.uint8]:
        """(side, side) 0 where nothing changed, 1 where something did."""
        return (class_picture(self._labels[key], self._side) > 0).astype(np.uint8)

    def _pixels(self, key: str) -> NDArray[np.uint8]:
        """(2, 3, side, side): both dates."""
        return np.stack([super()._pixels(key), rgb_picture(self._later[key], self._side)])


class PictureValues(PictureData):
    """Pictures with numbers in `values.csv`: the column `file`, and one per number.

    Args:
        folder: the set.
        columns: which numbers; all by default.
        graphs: finds the OSM objects of a picture; None where there is no OSM.
        side: height and width that pictures are brought to, pixels.

    Raises:
        InputError: the table is not readable, names files that are not there, or lacks a number.
    """

    def __init__(
        self,
        folder: Path,
        *,
        columns: Iterable[str] = (),
        graphs: GraphsOfPictures | None = None,
        side: int = 224,
    ) -> None:
        rows, names = _read_values(folder / VALUES, tuple(columns))
        here = {path.relative_to(folder).as_posix(): path for path in picture_paths(folder)}
        if missing := sorted(rows.keys() - here.keys()):
            raise InputError(
                f"{folder / VALUES} names {missing[0]!r}, which is not in the folder"
                + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
            )
        pictures = _by_stem(folder, [here[name] for name in rows])
        self._values = dict(zip(pictures, rows.values(), strict=True))
        legend = new_legend(folder.name, names)
        super().__init__("regress", legend, pictures, folder=folder, graphs=graphs, side=side)

    def label(self, key: str) -> NDArray[np.float32]:
        """(k,) the numbers of a picture."""
        return np.array(self._values[key], np.float32)


def _read_values(
    path: Path, columns: tuple[str, ...]
) -> tuple[dict[str, list[float]], tuple[str, ...]]:
    """Numbers by file name, and what they are called."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the table {path} is not a readable CSV file ({error})") from None
    header = [name for name in (table[0] if table else {}) if name]
    columns = columns or tuple(name for name in header if name != "file")
    if "file" not in header or not columns or not set(columns) <= set(header):
        raise InputError(
            f"the table {path} needs the column `file` and one for each number to predict; it has "
            f"{', '.join(header) or 'none'}"
        )
    rows: dict[str, list[float]] = {}
    for number, row in enumerate(table, start=2):
        values = [_number(row[column]) for column in columns]
        if not all(map(math.isfinite, values)):
            raise InputError(f"line {number} of {path} lacks a number; fill it in or take it out")
        if rows.setdefault(str(row["file"]), values) is not values:
            raise InputError(f"line {number} of {path} names {row['file']!r} a second time")
    return rows, columns


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _pictures_of(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    """Pictures in the first of these folders that is there, by their path in it."""
    part = next((folder / name for name in names if (folder / name).is_dir()), None)
    if part is None:
        found = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise InputError(
            f"{folder} has no folder {' or '.join(names)}; it has {', '.join(found) or 'none'}"
        )
    paths = picture_paths(part)
    if not paths:
        raise InputError(f"the folder {part} has no pictures")
    return _by_stem(part, paths)


def _by_stem(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Pictures by their path in a folder, without suffix."""
    found: dict[str, Path] = {}
    for path in paths:
        key = path.relative_to(folder).with_suffix("").as_posix()
        if found.setdefault(key, path) != path:
            raise InputError(
                f"{found[key]} and {path.name} differ in their suffix only; rename or remove one"
            )
    return found


def _matched(
    others: Mapping[str, Path], pictures: Mapping[str, Path], folder: Path
) -> dict[str, Path]:
    """Those of `others` that belong to the pictures."""
    if missing := sorted(pictures.keys() - others.keys()):
        raise InputError(
            f"the picture {missing[0]!r} of {folder} has no counterpart of the same name"
            + (f", nor have {len(missing) - 1} others" if len(missing) > 1 else "")
        )
    return {key: others[key] for key in pictures}
