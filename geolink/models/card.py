"""The card of a checkpoint: everything but the weights that using a model takes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar

from geolink.config import ModelConfig
from geolink.errors import ConfigError
from geolink.legend import Legend

T = TypeVar("T")


@dataclass(frozen=True)
class ModelCard:
    """What the weights of a model are, and how to feed them.

    Attributes:
        name: short name of the model.
        config: what the model is made of.
        legend: classes of the segmentation head; without classes, the head is not trained.
        mean: per band, subtracted from pixels scaled to 0-1.
        std: per band, divides what is left.
        gsd_range: least and greatest ground sampling distance in training, metres per pixel.
        tag_encoder: name of the encoder of the tag strings.
        key_counts: corpus count per tag key, the weights of the semantic mean.
        training_data: what the weights were trained on.
        licence: SPDX id or short name of the weights' licence.
        metrics: measured quality, by name.
        half: the weights are stored as float16.
        sha256: hash of the weight file, empty before it is written.
    """

    name: str
    config: ModelConfig
    legend: Legend
    mean: tuple[float, ...]
    std: tuple[float, ...]
    gsd_range: tuple[float, float]
    tag_encoder: str
    key_counts: Mapping[str, int]
    training_data: str
    licence: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    half: bool = False
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.has_head and len(self.legend) != self.config.classes:
            raise ConfigError(
                f"the legend has {len(self.legend)} classes, the model {self.config.classes}"
            )
        if not len(self.mean) == len(self.std) == self.config.bands:
            raise ConfigError(f"mean and std need {self.config.bands} numbers, one per band")
        if min(self.std) <= 0:
            raise ConfigError("std must be positive for every band")
        if not 0 < self.gsd_range[0] <= self.gsd_range[1]:
            raise ConfigError(f"gsd_range must be two rising positive numbers: {self.gsd_range}")

    @property
    def has_head(self) -> bool:
        """True where the segmentation head is trained, so that the model can draw a map."""
        return len(self.legend) > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            **plain,
            "config": self.config.to_dict(),
            "legend": self.legend.to_dict(),
            "key_counts": dict(self.key_counts),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, for data that nobody vouches for.

        Raises:
            ConfigError: a field is missing, unknown, or of the wrong type.
        """
        unknown = sorted(data.keys() - _READERS.keys())
        missing = sorted(_READERS.keys() - data.keys())
        if unknown or missing:
            kind, names = ("unknown", unknown) if unknown else ("missing", missing)
            raise ConfigError(f"{names[0]!r} is {kind}")
        return cls(**{name: read(name, data[name]) for name, read in _READERS.items()})


def _of(kind: type[T], name: str, value: object) -> T:
    if not isinstance(value, kind):
        raise ConfigError(f"{name!r} must be of type {kind.__name__}, not {type(value).__name__}")
    return value


def _text(name: str, value: object) -> str:
    return _of(str, name, value)


def _flag(name: str, value: object) -> bool:
    return _of(bool, name, value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name!r} must hold numbers, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{name!r} must hold finite numbers")
    return number


def _numbers(name: str, value: object) -> tuple[float, ...]:
    return tuple(_number(name, item) for item in _of(list, name, value))


def _pair(name: str, value: object) -> tuple[float, float]:
    numbers = _numbers(name, value)
    if len(numbers) != 2:
        raise ConfigError(f"{name!r} must hold two numbers, not {len(numbers)}")
    return numbers[0], numbers[1]


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name!r} must hold whole numbers from 1, not {value!r}")
    return value


def _table(read: Callable[[str, object], T]) -> Callable[[str, object], dict[str, T]]:
    def read_table(name: str, value: object) -> dict[str, T]:
        return {key: read(name, item) for key, item in _of(dict, name, value).items()}

    return read_table


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "name": _text,
    "config": lambda name, value: ModelConfig.from_dict(_of(dict, name, value)),
    "legend": lambda name, value: Legend.from_dict(_of(dict, name, value)),
    "mean": _numbers,
    "std": _numbers,
    "gsd_range": _pair,
    "tag_encoder": _text,
    "key_counts": _table(_count),
    "training_data": _text,
    "licence": _text,
    "metrics": _table(_number),
    "half": _flag,
    "sha256": _text,
}
