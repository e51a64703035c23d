"""Trees: where they stand, the height of their crowns, and how the sun lights them."""

import math

import numpy as np
from numpy.typing import NDArray

from geolink.sources.landcover.canvas import Canvas
from geolink.sources.landcover.cover import LOOKS, Cover
from geolink.sources.landcover.noise import Doubles, Floats, lattice_hash, smoothstep, unit
from geolink.sources.landcover.shapes import Spots
from geolink.sources.landcover.style import SceneStyle

_CELL = 5.0  # metres; at most one wild tree stands in each
_GROUND_SHARE = 0.5  # of cells with a tree where unmapped ground is green and wooded
_LEAF = np.array([76, 91, 56], dtype=np.float32)
_LEAF_VARIATION = np.array([0.14, 0.02, 0.04], dtype=np.float32)  # between olive and blue green


def crown_heights(cover: NDArray[np.uint8], green: Floats, canvas: Canvas, mapped: Spots) -> Floats:
    """(rows, cols) height in metres of tree crowns, mapped and wild; 0 where there is none."""
    near = mapped.within(canvas.bounds)
    wild_x, wild_y, wild_radius = _wild_trees(cover, green, canvas)
    heights = _domes(
        np.concatenate([near.x, wild_x]),
        np.concatenate([near.y, wild_y]),
        np.concatenate([near.radius, wild_radius]),
        canvas,
    )
    ragged = np.float32(1.0) + np.float32(0.7) * canvas.noise(1.3, 35)
    heights[heights < ragged] = 0
    return heights


def _wild_trees(
    cover: NDArray[np.uint8], green: Floats, canvas: Canvas
) -> tuple[Doubles, Doubles, Floats]:
    """`x`, `y` and crown radius in metres of the trees that the land cover lets grow."""
    frame, shape = canvas.bounds, canvas.shape
    cols = np.arange(math.floor(frame.west / _CELL), math.ceil(frame.east / _CELL))
    rows = np.arange(math.floor(frame.south / _CELL), math.ceil(frame.north / _CELL))
    x = (cols[None, :] + unit(lattice_hash(rows, cols, 31)).astype(np.float64)) * _CELL
    y = (rows[:, None] + unit(lattice_hash(rows, cols, 32)).astype(np.float64)) * _CELL
    col = np.floor((x - frame.west) / canvas.px).astype(np.intp).clip(0, shape[1] - 1)
    row = np.floor((frame.north - y) / canvas.px).astype(np.intp).clip(0, shape[0] - 1)
    under = cover[row, col]
    share = np.array([LOOKS[each].trees for each in Cover], dtype=np.float32)[under]
    wooded = smoothstep(canvas.noise(38.0, 36), 0.0, 0.6)[row, col]
    share *= np.where(share < 0.5, np.float32(0.35) + 2 * wooded, np.float32(1))
    wild = np.float32(_GROUND_SHARE) * green[row, col] * (wooded + np.float32(0.06))
    share = np.where(under == Cover.GROUND, wild, share)
    grown = unit(lattice_hash(rows, cols, 30)) < share
    scale = np.array([LOOKS[each].crown for each in Cover], dtype=np.float32)[under]
    radius = (2.0 + 2.4 * unit(lattice_hash(rows, cols, 33))) * scale
    return x[grown], y[grown], radius[grown].astype(np.float32)


def _domes(x: Doubles, y: Doubles, radius: Floats, canvas: Canvas) -> Floats:
    """(rows, cols) upper envelope of domes at these centres, metres."""
    heights = np.zeros(canvas.shape, dtype=np.float32)
    frame = canvas.bounds
    col = np.floor((x - frame.west) / canvas.px).astype(np.intp)
    row = np.floor((frame.north - y) / canvas.px).astype(np.intp)
    reach = np.ceil(radius / canvas.px).astype(np.intp)
    for size in np.unique(reach).tolist():
        group = reach == size
        step = np.arange(-size, size + 1)
        rows = (row[group, None] + step).clip(0, canvas.shape[0] - 1)  # (n, k)
        cols = (col[group, None] + step).clip(0, canvas.shape[1] - 1)
        scale = radius[group, None].astype(np.float64)
        dy = ((canvas.y[rows] - y[group, None]) / scale).astype(np.float32)
        dx = ((canvas.x[cols] - x[group, None]) / scale).astype(np.float32)
        left = (1 - dy * dy)[:, :, None] - (dx * dx)[:, None, :]  # (n, k, k), 1 at the top
        pixel = (rows * canvas.shape[1])[:, :, None] + cols[:, None, :]
        inside = left > 0
        dome = np.sqrt(left[inside]) * np.repeat(3 * radius[group], inside.sum(axis=(1, 2)))
        np.maximum.at(heights.reshape(-1), pixel[inside], dome)
    return heights


def paint_crowns(rgb: Floats, crowns: Floats, canvas: Canvas, style: SceneStyle) -> None:
    """Colours pixels under crowns, brighter where they face the sun, in place."""
    where = np.flatnonzero(crowns)
    azimuth = math.radians(style.sun_azimuth)
    reach = max(1.0 / canvas.px, 1.0)
    towards = (round(math.cos(azimuth) * reach), round(-math.sin(azimuth) * reach))
    slope = (crowns - np.roll(crowns, towards, (0, 1))).ravel()[where]
    light = 1 + np.float32(0.13) * slope.clip(-3, 3)
    light *= 1 + np.float32(0.16) * canvas.noise(1.0, 40).ravel()[where]
    light *= 1 + np.float32(0.16) * canvas.noise(6.0, 41).ravel()[where]
    hue = (canvas.noise(9.0, 42) + canvas.noise(70.0, 43)).ravel()[where]
    for plane, leaf, variation in zip(
        rgb.reshape(3, -1), _LEAF * style.autumn, _LEAF_VARIATION, strict=True
    ):
        plane[where] = leaf * light * (1 + variation * hue)
