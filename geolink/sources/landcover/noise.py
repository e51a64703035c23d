"""Noise as a pure function of integer lattice points, so that it does not depend on the tile."""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Hashes = NDArray[np.uint32]


def keyed_hash(value: NDArray[Any], key: int) -> Hashes:
    """Hashes of integers, independent from key to key."""
    return mix(value.astype(np.uint32) ^ np.uint32(key * 0x9E3779B9 & 0xFFFFFFFF))


def lattice_hash(rows: Integers, cols: Integers, key: int) -> Hashes:
    """(len(rows), len(cols)) hashes of integer lattice points."""
    return mix(keyed_hash(rows, 2 * key)[:, None] + keyed_hash(cols, 2 * key + 1)[None, :])


def cell_hash(u: Floats, v: Floats, key: Hashes) -> Hashes:
    """Hashes of the cells `u`, `v` (whole numbers), one `key` each."""
    return mix(keyed_hash(u.astype(np.int32), 51) + keyed_hash(v.astype(np.int32), 52) + key)


def unit(hashes: Hashes) -> Floats:
    """Hashes as numbers in [0, 1)."""
    return (hashes >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normal(hashes: Hashes) -> Floats:
    """Hashes as nearly normal numbers of unit variance: the centred sum of their four bytes."""
    total = np.zeros(hashes.shape, dtype=np.float32)
    for shift in (0, 8, 16, 24):
        total += (hashes >> np.uint32(shift) & np.uint32(255)).astype(np.float32)
    return (total - np.float32(510)) / np.float32(147.8)


def mix(value: Hashes) -> Hashes:
    """Avalanche of 32-bit integers: every input bit moves about half of the output bits."""
    value = value ^ (value >> np.uint32(16))
    value *= np.uint32(0x7FEB352D)
    value ^= value >> np.uint32(15)
    value *= np.uint32(0x846CA68B)
    value ^= value >> np.uint32(16)
    return value


def smoothstep(values: Floats, low: float, high: float) -> Floats:
    """0 below `low`, 1 above `high`, smooth between."""
    t: Floats = ((values - np.float32(low)) * np.float32(1 / (high - low))).clip(0, 1)
    return t * t * (3 - 2 * t)


class Knots(NamedTuple):
    """Where pixels lie between the knots of a coarser world lattice, along one axis.

    Attributes:
        knot: numbers of the knots on the lattice, consecutive.
        lower: per pixel, position in `knot` of the knot before it.
        weight: per pixel, weight of the knot after it.
    """

    knot: Integers
    lower: NDArray[np.intp]
    weight: Floats

    @classmethod
    def between(cls, coordinate: Doubles, spacing: float) -> Self:
        """Knots at whole multiples of `spacing` around `coordinate`."""
        position = coordinate / spacing
        below = np.floor(position).astype(np.int64)
        first, last = int(below.min()), int(below.max()) + 1
        fraction = (position - below).astype(np.float32)
        return cls(
            np.arange(first, last + 1), below - first, fraction * fraction * (3 - 2 * fraction)
        )

    def interpolate(self, values: Floats, axis: int) -> Floats:
        """`values` at the knots brought to the pixels along `axis` of a plane."""
        weight = self.weight[:, None] if axis == 0 else self.weight[None, :]
        low = values.take(self.lower, axis)
        high = values.take(self.lower + 1, axis)
        high -= low
        high *= weight
        low += high
        return low
