"""Scene style: the light, season and camera of one simulated flight, drawn from a seed."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from geolink.sources.landcover.cover import LOOKS, Cover
from geolink.sources.landcover.noise import Floats, keyed_hash, unit
from geolink.sources.landcover.shapes import Shapes

_ROOFS = np.array(
    [
        (152, 102, 84),  # red tiles
        (122, 96, 84),  # brown tiles
        (86, 88, 91),  # dark slate
        (124, 125, 127),  # grey sheet
        (164, 164, 161),  # light sheet
        (192, 192, 189),  # white membrane
        (126, 146, 134),  # copper
        (78, 78, 80),  # bitumen
        (158, 149, 136),  # gravel
    ],
    dtype=np.float32,
)
# Shares of these on small and on large roofs.
_SMALL_ROOFS = (0.30, 0.17, 0.16, 0.13, 0.07, 0.02, 0.02, 0.07, 0.06)
_LARGE_ROOFS = (0.07, 0.04, 0.10, 0.20, 0.19, 0.14, 0.02, 0.10, 0.14)

_CROPS = np.array(
    [(112, 132, 72), (86, 112, 60), (176, 160, 108), (150, 126, 96), (134, 142, 86)],
    dtype=np.float32,
)
_WATERS = np.array([(38, 56, 72), (58, 76, 70), (46, 78, 88), (30, 40, 48)], dtype=np.float32)


@dataclass(frozen=True)
class SceneStyle:
    """Light, season and camera of one rendering, the same for all its tiles.

    Attributes:
        sun_azimuth: degrees clockwise from north.
        sun_elevation: degrees above the horizon.
        season: (3,) gain of grass, from lush to dry.
        autumn: (3,) gain of tree crowns, from summer to autumn.
        water: (3,) RGB of open water.
        roofs: (2, k) cumulative shares of roof colours, of small and of large buildings.
        cast: (3,) gain of the camera.
        haze: share of veil over the picture.
        contrast: gain around mid grey.
        brightness: gain of the whole picture.
        noise: standard deviation of the sensor's noise, grey levels.
        blur: weight of each neighbour in the point spread function.
    """

    sun_azimuth: float
    sun_elevation: float
    season: Floats
    autumn: Floats
    water: Floats
    roofs: Floats
    cast: Floats
    haze: float
    contrast: float
    brightness: float
    noise: float
    blur: float

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """The style that belongs to `seed`."""
        draw = np.random.default_rng([0x51D, seed])
        lush, dry = np.array([0.95, 1.02, 0.92]), np.array([1.34, 1.10, 1.18])
        summer, fall = np.ones(3), np.array([1.45, 1.08, 0.95])
        water = _WATERS.T @ draw.dirichlet(np.ones(len(_WATERS)))
        roofs = np.array([_SMALL_ROOFS, _LARGE_ROOFS]) * draw.gamma(1.5, size=len(_ROOFS))
        return cls(
            sun_azimuth=draw.uniform(110, 250),
            sun_elevation=draw.uniform(36, 66),
            season=(lush + (dry - lush) * draw.beta(1.5, 3.0)).astype(np.float32),
            autumn=(summer + (fall - summer) * draw.beta(0.6, 3.0)).astype(np.float32),
            water=(water * draw.uniform(0.85, 1.2)).astype(np.float32),
            roofs=(np.cumsum(roofs, 1) / roofs.sum(1, keepdims=True)).astype(np.float32),
            cast=draw.normal(1.0, 0.025, 3).astype(np.float32),
            haze=draw.uniform(0.0, 0.14),
            contrast=draw.uniform(0.9, 1.15),
            brightness=draw.uniform(0.92, 1.12),
            noise=draw.uniform(1.0, 4.0),
            blur=draw.uniform(0.04, 0.16),
        )


def cover_colours(style: SceneStyle) -> Floats:
    """(len(Cover), 3) RGB of materials in this season."""
    base = np.array([LOOKS[cover].rgb for cover in Cover], dtype=np.float32)
    seasonal = np.array([LOOKS[cover].season for cover in Cover], dtype=np.float32)
    base *= 1 + seasonal[:, None] * (style.season - 1)
    base[Cover.WATER] = style.water
    return base


def shape_colours(shapes: Shapes, style: SceneStyle, seed: int) -> Floats:
    """(n, 3) RGB of every shape: its material's, or one of many for roofs and fields."""
    colour = cover_colours(style)[shapes.cover]
    chance = unit(keyed_hash(shapes.hash, 4 * seed + 1))
    roof, crop = shapes.cover == Cover.ROOF, shapes.cover == Cover.FARMLAND
    colour[roof] = _ROOFS[_roof_class(shapes.area[roof], chance[roof], style)]
    colour[crop] = _CROPS[(chance[crop] * len(_CROPS)).astype(np.intp)]
    spread = np.array([LOOKS[cover].spread for cover in Cover], dtype=np.float32)[shapes.cover]
    lightness = spread * (2 * unit(keyed_hash(shapes.hash, 4 * seed + 2)) - 1)
    warmth = 0.3 * spread * (2 * unit(keyed_hash(shapes.hash, 4 * seed + 3)) - 1)
    tint: Floats = np.stack([lightness + warmth, lightness, lightness - warmth], axis=1)
    return colour * (1 + tint)


def _roof_class(area: Floats, chance: Floats, style: SceneStyle) -> NDArray[np.intp]:
    """Row of `_ROOFS` for buildings of `area` square metres, by `chance` in 0..1."""
    large = ((np.log10(np.maximum(area, 1.0)) - 2.3) / 1.0).clip(0, 1)[:, None]
    shares = style.roofs[0] * (1 - large) + style.roofs[1] * large  # (n, k), cumulative
    place: NDArray[np.intp] = (chance[:, None] >= shares).sum(axis=1)
    return place.clip(max=len(_ROOFS) - 1)
