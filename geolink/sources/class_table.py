"""Which class a value of somebody's labels means: by name, by number, or by a mapping file."""

import csv
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from geolink.errors import InputError
from geolink.legend import IGNORE, Legend, new_legend

logger = logging.getLogger(__name__)

_IGNORED = ("", "ignore", "none", "nodata")  # what stands for "no class" in a mapping file
_COLUMNS = ("value", "class")
_MOST_CLASSES = 255
_LISTED = 5  # values that a message names


@dataclass(frozen=True)
class ClassTable:
    """The class of every value that labels may have.

    Attributes:
        legend: the classes.
        ids: class id by value as text, IGNORE for values without a class.
        way_out: what to do about a value that is not among them.
    """

    legend: Legend
    ids: Mapping[str, int]
    way_out: str = "give a mapping file with the columns value,class"

    def require(self, values: Iterable[str], *, source: str) -> None:
        """Check that every value is known.

        Raises:
            InputError: some are not; the message names them and the way out.
        """
        if unknown := sorted(set(values) - self.ids.keys()):
            raise InputError(
                f"{source} has classes that are not known: {_listed(unknown)}; the classes are "
                f"{_listed(self.legend.names)}; {self.way_out}"
            )


def class_table(
    values: Iterable[str],
    *,
    source: str,
    legend: Legend | None = None,
    mapping: Path | None = None,
    ignore: Iterable[str] = (),
) -> ClassTable:
    """The classes of the values in some labels.

    With a mapping file, its classes count. Without one, values are names of the legend's classes
    (whatever their case) or their numbers; without a legend either, every value is a class of its
    own, in alphabetical order.

    Args:
        values: those that occur, as text.
        source: name of the labels, for messages.
        legend: the classes to map to; None makes a new legend.
        mapping: CSV file with the columns `value` and `class`; an empty class, or `ignore`, takes
            a value out.
        ignore: further values without a class.

    Raises:
        InputError: a value has no class, or the mapping file cannot be used.
    """
    found = sorted(set(values))
    skipped = dict.fromkeys(ignore, IGNORE)
    if mapping is not None:
        table = _from_mapping(read_mapping(mapping), legend, mapping=mapping)
    elif legend is not None:
        table = _from_legend(found, legend)
    else:
        names = [value for value in found if value not in skipped]
        legend = _legend_of(names, source=source)
        table = ClassTable(legend, {name: i for i, name in enumerate(names)})
    table = replace(table, ids={**table.ids, **skipped})
    table.require(found, source=source)
    return table


def read_mapping(path: Path) -> dict[str, str]:
    """Class name by value, from a CSV file with the columns `value` and `class`.

    Raises:
        InputError: the file is not readable, lacks a column, or gives a value two classes.
    """
    if not path.is_file():
        raise InputError(f"the mapping {path} does not exist; check the path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the mapping {path} is not a CSV file in UTF-8 ({error})") from None
    if not rows or not set(_COLUMNS) <= {name for name in rows[0] if name}:
        raise InputError(f"the mapping {path} needs a header and rows: value,class")
    mapped: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        value, name = ((row[column] or "").strip() for column in _COLUMNS)
        if mapped.setdefault(value, name) != name:
            raise InputError(
                f"line {number} of the mapping {path} gives {value!r} a second class; keep one"
            )
    return mapped


def _from_mapping(mapped: Mapping[str, str], legend: Legend | None, *, mapping: Path) -> ClassTable:
    named = {value: name for value, name in mapped.items() if name.casefold() not in _IGNORED}
    if legend is None:
        legend = _legend_of(list(dict.fromkeys(named.values())), source=mapping.name)
    ids = {name.casefold(): i for i, name in enumerate(legend.names)}
    if unknown := sorted({name for name in named.values() if name.casefold() not in ids}):
        raise InputError(
            f"the mapping {mapping} names classes that the legend {legend.name} does not have: "
            f"{_listed(unknown)}; it has {_listed(legend.names)}"
        )
    return ClassTable(
        legend,
        {v: ids[named[v].casefold()] if v in named else IGNORE for v in mapped},
        way_out=f"add them to the mapping {mapping}",
    )


def _from_legend(values: Iterable[str], legend: Legend) -> ClassTable:
    ids = {name.casefold(): i for i, name in enumerate(legend.names)}
    ids |= {str(i): i for i in range(len(legend))} | {str(IGNORE): IGNORE}
    named = {value: ids[value.casefold()] for value in values if value.casefold() in ids}
    return ClassTable(legend, ids | named)


def _legend_of(names: list[str], *, source: str) -> Legend:
    if not names:
        raise InputError(f"{source} has no class but ignored ones; check --ignore and the mapping")
    if len(names) > _MOST_CLASSES:
        raise InputError(
            f"{source} has {len(names):,} classes, and {_MOST_CLASSES} can be told apart; "
            "choose another column, or give a mapping file"
        )
    return new_legend(Path(source).stem, names)


def _listed(names: Iterable[str]) -> str:
    names = [repr(name) for name in names]
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
