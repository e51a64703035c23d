"""Sums from which figures follow: what every metric keeps, and how parts make up a whole."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from geolink.legend import Legend

T = TypeVar("T", bound="Tally")


class Tally:
    """Base of frozen dataclasses whose arrays are sums, so that tallies of parts can be added.

    A figure such as a mean IoU is no mean over tiles: it follows from sums over all of them. Fields
    that are arrays or tallies are sums; other fields (distances, ...) say what is summed.
    """

    def __add__(self, other: Self) -> Self:
        return total([self, other])


class Measured(Tally):
    """A tally of everything that is measured under one protocol."""

    @abstractmethod
    def figures(self, legend: Legend) -> dict[str, float]:
        """The named figures; those of one class end in `.<class>`. NaN where there is nothing."""


def total(parts: Sequence[T], weights: NDArray[np.int64] | None = None) -> T:
    """The tally of all parts together.

    Args:
        parts: at least one tally, all of the same kind.
        weights: (parts,) how often each part counts; once where not given.
    """
    counts = np.ones(len(parts), np.int64) if weights is None else weights
    assert is_dataclass(parts[0])
    sums: dict[str, Any] = {}
    for field in fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], Tally):
            sums[field.name] = total(values, weights)
        elif isinstance(values[0], np.ndarray):
            sums[field.name] = np.tensordot(counts, np.stack(values), axes=1)
    whole: T = replace(parts[0], **sums)
    return whole


def vector(tally: Tally) -> NDArray[np.float64]:
    """(n,) all sums of a tally in one row; counts below 2**53 stay exact."""
    parts = (
        vector(value) if isinstance(value, Tally) else value.ravel()
        for value in vars(tally).values()
        if isinstance(value, Tally | np.ndarray)
    )
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def from_vector(tally: T, row: NDArray[np.float64]) -> T:
    """A tally of the same kind as `tally` with the sums of a row that `vector` made."""
    whole, _ = _filled(tally, row)
    return whole


def _filled(tally: T, row: NDArray[np.float64]) -> tuple[T, NDArray[np.float64]]:
    """The tally with the sums at the start of the row, and the rest of the row."""
    sums: dict[str, Any] = {}
    for name, value in vars(tally).items():
        if isinstance(value, Tally):
            sums[name], row = _filled(value, row)
        elif isinstance(value, np.ndarray):
            sums[name], row = row[: value.size].reshape(value.shape), row[value.size :]
    assert is_dataclass(tally)
    filled: T = replace(tally, **sums)
    return filled, row


def ratio(part: object, whole: object) -> NDArray[np.float64]:
    """`part` / `whole`, NaN where `whole` is 0."""
    below = np.asarray(whole, float)
    return np.asarray(part, float) / np.where(below == 0, np.nan, below)


def mean_of(figures: NDArray[np.float64], among: NDArray[np.bool_]) -> float:
    """Mean of the figures `among` those that count; NaN where there are none."""
    return float(figures[among].mean()) if among.any() else float("nan")
