"""Light and camera: cast shadows, averaging to pixels, blur, haze, colour cast, sensor noise."""

import math

import numpy as np
from numpy.typing import NDArray

from geolink.sources.landcover.canvas import Canvas, shadow_doublings
from geolink.sources.landcover.noise import Floats, lattice_hash, normal
from geolink.sources.landcover.style import SceneStyle

_SHADOW = np.array([0.58, 0.54, 0.46], dtype=np.float32)  # light lost; the sky's part is blue
_HAZE = np.array([176, 186, 198], dtype=np.float32)
_MID_GREY = 112
_SOFT_EDGE = 0.8  # metres of height over which a shadow fades out


def cast_shadows(rgb: Floats, height: Floats, canvas: Canvas, style: SceneStyle) -> None:
    """Darkens what higher things towards the sun hide, in place.

    A point p is hidden below max over t of height(p + t) - t tan(elevation), t towards the sun.
    Doubling t finds that maximum in a few passes.
    """
    azimuth = math.radians(style.sun_azimuth)
    fall = canvas.px * math.tan(math.radians(style.sun_elevation))
    hidden = height.copy()
    for power in range(shadow_doublings(canvas.px)):
        far = 1 << power
        rows = _shifted(height.shape[0], round(-math.cos(azimuth) * far))
        cols = _shifted(height.shape[1], round(math.sin(azimuth) * far))
        there = hidden[rows[1], cols[1]] - np.float32(fall * far)
        here = hidden[rows[0], cols[0]]
        np.maximum(here, there, out=here)
    shadow = ((hidden - height) * np.float32(1 / _SOFT_EDGE)).clip(0, 1)
    for plane, dark in zip(rgb, _SHADOW, strict=True):
        plane *= 1 - dark * shadow


def _shifted(size: int, shift: int) -> tuple[slice, slice]:
    """Slices (here, there) of an axis, `there` being `shift` further on."""
    here = slice(max(-shift, 0), max(size - max(shift, 0), 0))
    there = slice(max(shift, 0), max(size + min(shift, 0), 0))
    return here, there


def expose(rgb: Floats, canvas: Canvas, style: SceneStyle, *, seed: int) -> NDArray[np.uint8]:
    """The picture of a drawn canvas: (3, height, width) without its margin."""
    rgb = _to_pixels(rgb, canvas)
    rgb = _blur(rgb[:, :-2], rgb[:, 1:-1], rgb[:, 2:], style.blur)
    rgb = _blur(rgb[:, :, :-2], rgb[:, :, 1:-1], rgb[:, :, 2:], style.blur)
    clear = 1 - style.haze
    gain = style.cast * np.float32(style.brightness * style.contrast * clear)
    offset = _HAZE * np.float32(style.haze) + np.float32(_MID_GREY * (1 - style.contrast) * clear)
    rgb = rgb * gain[:, None, None] + offset[:, None, None]
    inner = slice(canvas.margin, -canvas.margin, canvas.split)
    for band, plane in enumerate(rgb):
        noise = normal(lattice_hash(canvas.rows[inner], canvas.cols[inner], 4 * seed + band))
        plane += np.float32(style.noise) * noise
    return (rgb + np.float32(0.5)).clip(0, 255).astype(np.uint8)


def _to_pixels(rgb: Floats, canvas: Canvas) -> Floats:
    """Means of the fine pixels of each pixel, with one pixel of margin left."""
    split, skip = canvas.split, canvas.margin - canvas.split
    inner = rgb[:, skip:-skip, skip:-skip]
    total = np.zeros((3, inner.shape[1] // split, inner.shape[2] // split), dtype=np.float32)
    for row in range(split):
        for col in range(split):
            total += inner[:, row::split, col::split]
    return total * np.float32(1 / split**2)


def _blur(before: Floats, here: Floats, after: Floats, weight: float) -> Floats:
    """`here` mixed with its two neighbours, of `weight` each."""
    return np.float32(weight) * (before + after) + np.float32(1 - 2 * weight) * here
