"""Imagery as it might be: out of focus, in other colours, under cloud."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geolink.errors import ConfigError
from geolink.grid import GridSpec, PixelWindow
from geolink.sources.base import ImageSource, ImageTile, SourceInfo
from geolink.sources.landcover.noise import Floats, Knots, lattice_hash, unit

Degradation = Literal["blur", "colour", "cloud"]

# Metres between the knots of the cloud field, largest first, each half as strong as the last.
_CLOUD_SIZES = (160.0, 80.0, 40.0, 20.0)
_CLOUD_EDGE = 0.06  # of the field's range, over which a cloud thins out
_WHITE = 243.0
_SAMPLED = 512  # knots a side of the piece of the field that its share is told from
_REACH = 3  # deviations of a Gaussian that are computed


@dataclass(frozen=True)
class DegradedImagery:
    """Imagery that is worse than it is by one measure.

    Like every source, it is a pure function of the grid: overlapping grids get the same pixels.

    Attributes:
        imagery: the pixels.
        kind: `blur`, `colour` or `cloud`.
        level: deviation of the blur in metres; strength of the colour change, 0-1; share of the
            ground under cloud, 0-1.
        seed: of colours and clouds.
    """

    imagery: ImageSource
    kind: Degradation
    level: float
    seed: int = 0

    def __post_init__(self) -> None:
        most = np.inf if self.kind == "blur" else 1.0
        if not 0 <= self.level <= most:
            unit_of = "metres from 0 on" if self.kind == "blur" else "a share between 0 and 1"
            raise ConfigError(f"the level of {self.kind} is {unit_of}, not {self.level:g}")

    @property
    def info(self) -> SourceInfo:
        """Where the pixels come from, and what was done to them."""
        info = self.imagery.info
        return replace(info, description=f"{info.description}, {self.kind} {self.level:g}")

    def read(self, grid: GridSpec) -> ImageTile:
        """Pixels of `grid`."""
        if self.kind == "blur":
            return self._blurred(grid)
        tile = self.imagery.read(grid)
        change: Callable[[Floats], Floats] = (
            self._recoloured if self.kind == "colour" else lambda rgb: self._clouded(rgb, grid)
        )
        return ImageTile(_pixels(change(tile.rgb.astype(np.float32)), tile.valid), tile.valid)

    def _blurred(self, grid: GridSpec) -> ImageTile:
        """The mean of the valid pixels around, weighted by a Gaussian."""
        sigma = self.level / grid.gsd
        margin = int(np.ceil(_REACH * sigma))
        around = PixelWindow(-margin, -margin, grid.height + 2 * margin, grid.width + 2 * margin)
        tile = self.imagery.read(grid.subgrid(around))
        inner = (slice(margin, margin + grid.height), slice(margin, margin + grid.width))
        smoothed = partial(gaussian_filter, sigma=sigma, truncate=float(_REACH), mode="constant")
        weight = smoothed(tile.valid.astype(np.float64))[inner]
        planes = [smoothed(np.where(tile.valid, plane, 0.0))[inner] for plane in tile.rgb]
        valid = tile.valid[inner]
        smooth = np.stack(planes) / np.maximum(weight, 1e-9)
        return ImageTile(_pixels(smooth.astype(np.float32), valid), valid)

    def _recoloured(self, rgb: Floats) -> Floats:
        """Another white balance, brightness, contrast and gamma; the same for the whole scene."""
        rng = np.random.default_rng([self.seed, 1])
        gain = 1 + 0.4 * self.level * rng.uniform(-1, 1, 3)
        offset = 40 * self.level * rng.uniform(-1, 1)
        gamma = np.exp(0.6 * self.level * rng.uniform(-1, 1))
        bent = 255 * (rgb / np.float32(255)) ** np.float32(gamma)
        changed: Floats = bent * gain.astype(np.float32)[:, None, None] + np.float32(offset)
        return changed

    def _clouded(self, rgb: Floats, grid: GridSpec) -> Floats:
        """White where the cloud field is high, thinner towards the edges."""
        rows = (np.arange(grid.height, dtype=float) + 0.5) * grid.gsd - grid.north
        cols = (np.arange(grid.width, dtype=float) + 0.5) * grid.gsd + grid.west
        threshold = self._cloud_threshold()
        density = (_field(rows, cols, self.seed) - threshold) / _CLOUD_EDGE + 0.5
        opaque = density.clip(0, 1).astype(np.float32)
        clouded: Floats = rgb + (np.float32(_WHITE) - rgb) * opaque
        return clouded

    def _cloud_threshold(self) -> float:
        """The value of the field that a share of `level` of the ground exceeds."""
        if self.level == 0:
            return np.inf
        axis = np.arange(_SAMPLED, dtype=float) * _CLOUD_SIZES[-1]
        return float(np.quantile(_field(axis, axis, self.seed), 1 - self.level))


def _field(rows: NDArray[np.float64], cols: NDArray[np.float64], seed: int) -> Floats:
    """(len(rows), len(cols)) smooth noise, a function of place in metres."""
    total = np.zeros((len(rows), len(cols)), np.float32)
    for octave, spacing in enumerate(_CLOUD_SIZES):
        down, across = Knots.between(rows, spacing), Knots.between(cols, spacing)
        knots = unit(lattice_hash(down.knot, across.knot, 16 * seed + octave))
        total += across.interpolate(down.interpolate(knots, 0), 1) * np.float32(0.5**octave)
    return total


def _pixels(rgb: Floats, valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(valid, (rgb + np.float32(0.5)).clip(0, 255), 0).astype(np.uint8)
