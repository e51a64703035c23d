"""Surfaces: noise of materials, unmapped ground, and what lies inside one object.

Rows of crops, plots of gardens, faces and fittings of roofs, parked cars.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from geolink.sources.landcover.canvas import Canvas
from geolink.sources.landcover.cover import LOOKS, Cover
from geolink.sources.landcover.noise import (
    Floats,
    Hashes,
    cell_hash,
    keyed_hash,
    smoothstep,
    unit,
)
from geolink.sources.landcover.shapes import Density, Shapes, Spots
from geolink.sources.landcover.style import SceneStyle, cover_colours

Covers = NDArray[np.uint8]

# Spacing in metres of the noises `grain`, `mottle` and `patch` of a `Look`.
_NOISES = (0.8, 5.0, 31.0)

_CAR_PAINTS = np.array(
    [(215, 216, 218), (48, 49, 52), (150, 152, 155), (95, 98, 102), (140, 56, 52), (64, 82, 116)],
    dtype=np.float32,
)
CAR_HEIGHT = 1.5  # metres


def greenness(canvas: Canvas, density: Density) -> Floats:
    """(rows, cols) how much unmapped ground is overgrown, 0..1: less where more is built."""
    wild = canvas.noise(42.0, 11)
    wild += np.float32(0.7) * canvas.noise(13.0, 12)
    wild += np.float32(0.35) * canvas.noise(4.0, 13)
    wild += np.float32(1.5) - np.float32(3.6) * canvas.density(density).clip(0, 0.8)
    return smoothstep(wild, -0.25, 0.25)


def fill_ground(
    rgb: Floats, cover: Covers, green: Floats, canvas: Canvas, style: SceneStyle
) -> None:
    """Colours unmapped ground as a mix of paving, soil and grass, in place."""
    ground = np.flatnonzero(cover == Cover.GROUND)
    colours = cover_colours(style)
    bare = smoothstep(canvas.noise(27.0, 14).ravel()[ground], 0.1, 0.5) * np.float32(0.6)
    grown = green.ravel()[ground]
    for band, plane in enumerate(rgb.reshape(3, -1)):
        paved, soil, grass = colours[[Cover.ASPHALT, Cover.SOIL, Cover.MEADOW], band]
        mix = paved + (soil - paved) * bare
        plane[ground] = mix + (grass - mix) * grown


def texture(cover: Covers, canvas: Canvas) -> Floats:
    """(rows, cols) gain from noise at three scales, by material."""
    looks = [LOOKS[each] for each in Cover]
    amplitudes = np.array([(look.grain, look.mottle, look.patch) for look in looks])
    gain = np.ones(cover.shape, dtype=np.float32)
    for column, spacing in enumerate(_NOISES):
        noise = canvas.noise(spacing, 20 + column)
        noise *= (2 * amplitudes[:, column]).astype(np.float32).take(cover)
        gain += noise
    return gain


class _Place(NamedTuple):
    """Pixels in the frame of the object that each belongs to.

    Attributes:
        pixel: flat index of each pixel.
        row: of its object in `shapes`.
        along, across: metres from the object's centre along its long and its short side.
        shapes: the objects of the tile.
        style: of the scene.
        px: metres.
    """

    pixel: NDArray[np.intp]
    row: NDArray[np.intp]
    along: Floats
    across: Floats
    shapes: Shapes
    style: SceneStyle
    px: float

    @classmethod
    def of(
        cls,
        mask: NDArray[np.bool_],
        top: NDArray[np.int32],
        shapes: Shapes,
        canvas: Canvas,
        style: SceneStyle,
    ) -> Self:
        pixel = np.flatnonzero(mask)
        line, col = np.divmod(pixel, top.shape[1])
        row = top.ravel()[pixel].astype(np.intp) - 1
        dx = (canvas.x[col] - shapes.x[row]).astype(np.float32)
        dy = (canvas.y[line] - shapes.y[row]).astype(np.float32)
        axis_x, axis_y = shapes.axis_x[row], shapes.axis_y[row]
        along, across = dx * axis_x + dy * axis_y, dy * axis_x - dx * axis_y
        return cls(pixel, row, along, across, shapes, style, canvas.px)

    def chance(self, key: int) -> Floats:
        """A number in 0..1 per object, brought to its pixels."""
        return self.object_chance(key)[self.row]

    def object_chance(self, key: int) -> Floats:
        """A number in 0..1 per object."""
        return unit(keyed_hash(self.shapes.hash, key))

    def cells(self, length: float, width: float) -> tuple[Floats, Floats, Hashes]:
        """Cells of the object's own lattice: position inside, -0.5..0.5, and a hash per cell."""
        u, v = self.along * np.float32(1 / length), self.across * np.float32(1 / width)
        cell_u, cell_v = np.rint(u), np.rint(v)
        return u - cell_u, v - cell_v, cell_hash(cell_u, cell_v, self.shapes.hash[self.row])


def paint_patterns(
    rgb: Floats,
    top: NDArray[np.int32],
    cover: Covers,
    *,
    shapes: Shapes,
    canvas: Canvas,
    style: SceneStyle,
) -> None:
    """Draws what lies inside objects, in place."""
    flat = rgb.reshape(3, -1)
    for covers, pattern in _PATTERNS:
        member = np.zeros(len(Cover), dtype=bool)
        member[list(covers)] = True
        place = _Place.of(member.take(cover), top, shapes, canvas, style)
        if len(place.pixel):
            gain = pattern(place)
            for plane in flat:
                plane[place.pixel] *= gain
    if canvas.px < 2:
        parking = _Place.of(cover == Cover.PARKING, top, shapes, canvas, style)
        _park_cars(flat, parking)


def _stripes(position: Floats, period: Floats | float, px: float) -> Floats:
    """Triangle wave in -1..1 with `period` in metres, fading where pixels are too coarse."""
    turn = position / np.float32(period)
    wave: Floats = np.abs(turn - np.floor(turn) - np.float32(0.5)) * 4 - 1
    fade: Floats = ((np.float32(period) / np.float32(px) - 2) / 2).clip(0, 1)
    return wave * fade


def _crop_rows(place: _Place) -> Floats:
    chance = place.chance(50)
    rows = _stripes(place.across, 1.5 + 2 * chance, place.px)
    tramlines = smoothstep(_stripes(place.across, 18 + 8 * chance, place.px), 0.8, 0.9)
    return 1 + np.float32(0.06) * rows - np.float32(0.08) * tramlines


def _plant_rows(place: _Place) -> Floats:
    return 1 - np.float32(0.25) * _stripes(place.across, 2.4, place.px)


def _mown_bands(place: _Place) -> Floats:
    return 1 + np.float32(0.05) * np.sign(_stripes(place.along, 10.0, place.px))


def _plots(place: _Place) -> Floats:
    u, v, cell = place.cells(11.0, 17.0)
    path = (np.abs(u) > 0.45) | (np.abs(v) > 0.47)
    planted: Floats = np.float32(0.8) + np.float32(0.4) * unit(cell)
    return np.where(path, np.float32(0.9), planted)


def _roof_faces(place: _Place) -> Floats:
    """Faces of pitched roofs, lit or not; sections and fittings of flat ones."""
    pitched = _is_pitched(place)[place.row]
    gain = np.where(pitched, _faces(place), _fittings(place))
    # A roof ends in a darker edge, which the rectangle shows for the simple footprints.
    rim = place.shapes.width[place.row] - np.abs(place.across)
    return gain * np.where(pitched | (rim > 0.6), np.float32(1), np.float32(0.9))


def _is_pitched(place: _Place) -> NDArray[np.bool_]:
    """Per object: small roofs that fill their rectangle mostly have a ridge."""
    shapes = place.shapes
    fill = shapes.area / np.maximum(4 * shapes.length * shapes.width, 1e-3)
    likely = (1.2 - shapes.area / 1000).clip(0.1, 0.9) * smoothstep(fill, 0.55, 0.8)
    pitched: NDArray[np.bool_] = place.object_chance(53) < likely
    return pitched


def _faces(place: _Place) -> Floats:
    azimuth = math.radians(place.style.sun_azimuth)
    east, north = math.sin(azimuth), math.cos(azimuth)
    shapes, row = place.shapes, place.row
    steep = np.float32(0.08) + np.float32(0.16) * place.object_chance(55)
    side = steep * (north * shapes.axis_x - east * shapes.axis_y)
    end = steep * (east * shapes.axis_x + north * shapes.axis_y)
    hipped = (place.object_chance(54) < 0.35)[row]
    beyond = np.abs(place.along) - (shapes.length - shapes.width)[row]
    on_end = hipped & (beyond > np.abs(place.across))
    lit: Floats = np.where(
        on_end, np.sign(place.along) * end[row], np.sign(place.across) * side[row]
    )
    return 1 + lit + np.float32(0.03) * _stripes(place.along, 3.0, place.px)


def _fittings(place: _Place) -> Floats:
    _, _, section = place.cells(19.0, 14.0)
    large = ((place.shapes.area - 300) / 1000).clip(0, 1)[place.row]
    gain: Floats = 1 + np.float32(0.16) * (unit(section) - np.float32(0.5)) * large
    u, v, cell = place.cells(3.4, 3.4)
    often = 0.035 * place.chance(56)
    size = np.float32(0.15) + np.float32(0.3) * unit(keyed_hash(cell, 57))
    fitted = (unit(cell) < often) & (np.abs(u) < size) & (np.abs(v) < np.float32(0.6) - size)
    bright = np.where(unit(keyed_hash(cell, 58)) < 0.6, np.float32(1.24), np.float32(0.7))
    return gain * np.where(fitted, bright, np.float32(1))


def _park_cars(flat: Floats, place: _Place) -> None:
    """Paints cars in double rows with lanes between, and the lines between bays, in place."""
    bay = place.along * np.float32(1 / 2.5)
    block = (place.across + np.float32(2.6)) * np.float32(1 / 15.6)
    in_bay = (bay - np.rint(bay)) * np.float32(2.5)
    in_block = (block - np.floor(block)) * np.float32(15.6)
    second = in_block > 10.4
    in_row = np.where(second, in_block - np.float32(13.0), in_block - np.float32(2.6))
    cell = cell_hash(np.rint(bay), 2 * np.floor(block) + second, place.shapes.hash[place.row])
    taken = unit(cell) < np.float32(0.25) + np.float32(0.6) * place.chance(60)
    car = taken & (np.abs(in_bay) < 0.95) & (np.abs(in_row) < 2.2)
    line = ~car & (np.abs(in_bay) > 1.15) & (np.abs(in_row) < 2.6)
    paint = _CAR_PAINTS[keyed_hash(cell[car], 61) % len(_CAR_PAINTS)]
    for band, plane in enumerate(flat):
        plane[place.pixel[car]] = paint[:, band]
        plane[place.pixel[line]] *= np.float32(1.15)


def paint_road_cars(
    rgb: Floats, height: Floats, cars: Spots, *, cover: Covers, canvas: Canvas
) -> None:
    """Draws cars on roads, with their height, in place; nothing where pixels are too coarse."""
    if canvas.px > 1:
        return
    frame = canvas.bounds
    cars = cars.within(frame)
    reach = math.ceil(2.6 / canvas.px)
    step = np.arange(-reach, reach + 1)
    cols = np.floor((cars.x - frame.west) / canvas.px).astype(np.intp)[:, None] + step  # (n, k)
    rows = np.floor((frame.north - cars.y) / canvas.px).astype(np.intp)[:, None] + step
    cols, rows = cols.clip(0, canvas.shape[1] - 1), rows.clip(0, canvas.shape[0] - 1)
    dx = (canvas.x[cols] - cars.x[:, None]).astype(np.float32)[:, None, :]
    dy = (canvas.y[rows] - cars.y[:, None]).astype(np.float32)[:, :, None]
    axis_x, axis_y = cars.axis_x[:, None, None], cars.axis_y[:, None, None]
    inside = np.abs(dx * axis_x + dy * axis_y) < cars.radius[:, None, None]  # (n, k, k)
    inside &= np.abs(dy * axis_x - dx * axis_y) < 0.9
    car, row, col = np.nonzero(inside)
    pixel = rows[car, row] * canvas.shape[1] + cols[car, col]
    on_road = np.isin(cover.ravel()[pixel], (Cover.ROAD, Cover.ASPHALT, Cover.MARKING))
    car, pixel = car[on_road], pixel[on_road]
    paint = _CAR_PAINTS[keyed_hash(cars.hash, 62) % len(_CAR_PAINTS)]
    rgb.reshape(3, -1)[:, pixel] = paint[car].T
    height.reshape(-1)[pixel] += np.float32(CAR_HEIGHT)


_PATTERNS: tuple[tuple[tuple[Cover, ...], Callable[[_Place], Floats]], ...] = (
    ((Cover.FARMLAND, Cover.MEADOW), _crop_rows),
    ((Cover.VINEYARD, Cover.ORCHARD), _plant_rows),
    ((Cover.TURF,), _mown_bands),
    ((Cover.ALLOTMENTS,), _plots),
    ((Cover.ROOF, Cover.GLASS), _roof_faces),
)
