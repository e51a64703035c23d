"""Reports as JSON: a numbered schema, read as data that nobody vouches for.

Schema `geolink-evaluation`, version 1. One object with

- `schema`, `version`, `software`, `title`, `protocol`, `measures`, `unit`, `notes`, `model`,
  `data`, `settings`, `legend`, `seeds`: the fields of `record.Report`;
- `conditions`: a list of objects, the main condition first, each with `name`, `kind`, `level`,
  `trained_on`, `place`; `figures`, by name: `value`, `runs` (one per seed), `over_seeds` and
  `over_places` (95 % intervals, `[low, high]`); and `blocks`, by name of the spatial block: the
  sums that the figures follow from.

What is not known is null; no number is NaN or infinite. Later versions may add fields; what is
here keeps its meaning as long as `version` stays 1.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

import numpy as np

from geolink.errors import GeolinkError, InputError
from geolink.legend import Legend
from geolink.metrics.intervals import Interval
from geolink.metrics.tally import Measured, Tally
from geolink.reports.record import KINDS, PROTOCOLS, TALLIES, Condition, Figure, Report

SCHEMA, VERSION = "geolink-evaluation", 1
REPORT = "report.json"
_MAX_BYTES = 512 * 2**20

T = TypeVar("T", bound=Tally)


def report_record(report: Report) -> dict[str, Any]:
    """A report as plain JSON data."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "software": report.software,
        "title": report.title,
        "protocol": report.protocol,
        "measures": report.measures,
        "unit": report.unit,
        "notes": list(report.notes),
        "model": dict(report.model),
        "data": [dict(source) for source in report.data],
        "settings": dict(report.settings),
        "legend": report.legend.to_dict(),
        "seeds": list(report.seeds),
        "conditions": [_condition_record(condition) for condition in report.conditions],
    }


def load_report(path: Path) -> Report:
    """Reads a report from its JSON file, or from the folder that holds it.

    Raises:
        InputError: the file is not readable, or no report of this version.
    """
    path = path / REPORT if path.is_dir() else path
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large to be a report")
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except GeolinkError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the report {path} is not readable as JSON ({error})") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise InputError(f"{path} is no report of an evaluation; make one with --report")
    if data.get("version") != VERSION:
        raise InputError(
            f"the report {path} has version {data.get('version')!r} and this geolink reads "
            f"{VERSION}; use the geolink that wrote it"
        )
    try:
        return _report(data)
    except GeolinkError as error:
        raise InputError(f"the report {path} cannot be used: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"the report {path} lacks a part or is damaged ({error!r})") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


# Writing


def _condition_record(condition: Condition) -> dict[str, Any]:
    return {
        "name": condition.name,
        "kind": condition.kind,
        "level": condition.level,
        "trained_on": condition.trained_on,
        "place": condition.place,
        "figures": {name: _figure_record(figure) for name, figure in condition.figures.items()},
        "blocks": {name: _tally_record(tally) for name, tally in condition.blocks.items()},
    }


def _figure_record(figure: Figure) -> dict[str, Any]:
    return {
        "value": _known(figure.value),
        "runs": [_known(value) for value in figure.runs],
        "over_seeds": [_known(end) for end in figure.over_seeds],
        "over_places": [_known(end) for end in figure.over_places],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _tally_record(tally: Tally) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in vars(tally).items():
        if isinstance(value, Tally):
            record[name] = _tally_record(value)
        else:
            record[name] = value.tolist() if isinstance(value, np.ndarray) else list(value)
    return record


# Reading


def _report(data: Mapping[str, Any]) -> Report:
    legend = Legend.from_dict(data["legend"])
    measures = _of(str, data["measures"])
    conditions = tuple(_condition(item, TALLIES[measures]) for item in data["conditions"])
    for condition in conditions:
        condition.whole.figures(legend)  # sums that do not fit together fail here
    return Report(
        title=_of(str, data["title"]),
        protocol=_one_of(PROTOCOLS, data["protocol"]),
        measures=measures,
        legend=legend,
        seeds=tuple(_of(int, seed) for seed in data["seeds"]),
        conditions=conditions,
        model=_of(dict, data["model"]),
        data=[_of(dict, source) for source in data["data"]],
        settings=_of(dict, data["settings"]),
        notes=tuple(_of(str, note) for note in data["notes"]),
        unit=_of(str, data["unit"]),
        software=_of(str, data["software"]),
    )


def _condition(data: Mapping[str, Any], kind: type[Measured]) -> Condition:
    texts = {name: data[name] for name in ("trained_on", "place")}
    return Condition(
        name=_of(str, data["name"]),
        kind=_one_of(KINDS, data["kind"]),
        figures={_of(str, name): _figure(item) for name, item in data["figures"].items()},
        blocks={_of(str, name): _tally(kind, item) for name, item in data["blocks"].items()},
        level=None if data["level"] is None else float(data["level"]),
        **{name: None if text is None else _of(str, text) for name, text in texts.items()},
    )


def _figure(data: Mapping[str, Any]) -> Figure:
    return Figure(
        value=_number(data["value"]),
        runs=tuple(map(_number, data["runs"])),
        over_seeds=Interval(*map(_number, data["over_seeds"])),
        over_places=Interval(*map(_number, data["over_places"])),
    )


def _tally(kind: type[T], data: Mapping[str, Any]) -> T:
    hints = get_type_hints(kind)
    parts: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # every tally is a dataclass
        hint, value = hints[field.name], data[field.name]
        if isinstance(hint, type) and issubclass(hint, Tally):
            parts[field.name] = _tally(hint, value)
        elif get_args(hint)[-1] is Ellipsis:
            parts[field.name] = tuple(map(_number, value))
        else:
            parts[field.name] = _sums(value)
    return kind(**parts)


def _sums(value: object) -> np.ndarray[Any, Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise InputError("a sum is no finite number")
    return array


def _number(value: object) -> float:
    return math.nan if value is None else float(_of((int, float), value))


def _of(kind: Any, value: Any) -> Any:  # noqa: ANN401 - the value, of that kind
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{value!r:.40} is of the wrong type")
    return value


def _one_of(choices: tuple[Any, ...], value: object) -> Any:  # noqa: ANN401
    if value not in choices:
        raise InputError(f"{value!r:.40} is none of {', '.join(choices)}")
    return value
