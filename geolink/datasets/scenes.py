"""Labelled data cut out of a scene: tiles with a class per pixel, and cells with a number."""

import copy
from collections.abc import Sequence
from itertools import islice
from typing import Self

import numpy as np
from numpy.typing import NDArray

from geolink.datasets.base import Item, LabelledData, OsmChange
from geolink.errors import CoverageError
from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE, Legend, new_legend
from geolink.samples import Sample, SceneSampler
from geolink.sources.base import SourceInfo
from geolink.sources.reference import CellValues
from geolink.tiles import TilePlan

LEAST_LABELLED = 0.01  # share of a tile's pixels


class SceneTiles(LabelledData):
    """Tiles of a scene that have labels.

    Args:
        sampler: cuts samples out of the scene.
        plan: the tiling.
        tiles: ids of the tiles within the area.
        legend: classes of the labels.
        city: name of the place.
        series: what tells these tiles from others of the same place, such as their scale.
        limit: greatest number of tiles, the first ones that have labels.
        sources: where images, OSM and labels come from.

    Raises:
        CoverageError: no tile has labels.
    """

    def __init__(
        self,
        sampler: SceneSampler,
        plan: TilePlan,
        tiles: Sequence[int],
        *,
        legend: Legend,
        city: str,
        series: str = "",
        limit: int | None = None,
        sources: Sequence[SourceInfo] = (),
    ) -> None:
        self._sampler = sampler
        name = f"{city}/{series}/" if series else f"{city}/"
        grids = ((f"{name}{tile:06d}", plan.tile_grid(tile)) for tile in tiles)
        labelled = (named for named in grids if self._is_labelled(named[1]))
        self._grids = dict(islice(labelled, limit))
        if not self._grids:
            raise CoverageError(
                f"none of the {len(tiles):,} tiles of {city} has labels on {LEAST_LABELLED:.0%} of "
                "its pixels or more; check that labels and imagery meet"
            )
        items = [Item(key, city, _centre(grid)) for key, grid in self._grids.items()]
        gsd = plan.grid.gsd
        super().__init__("segment", legend, items, gsd_range=(gsd, gsd), sources=sources)

    def sample(self, key: str) -> Sample:
        """The tile of a name."""
        return self._sampler.sample(self._grids[key])

    def label(self, key: str) -> NDArray[np.generic]:
        """(H, W) uint8 class ids of a tile."""
        return self._sampler.labels.read(self._grids[key])

    def disturbed(self, change: OsmChange) -> Self:
        """The tiles with the scene's objects changed."""
        changed = copy.copy(self)
        changed._sampler = self._sampler.disturbed(change.entities)
        return changed

    def _is_labelled(self, grid: GridSpec) -> bool:
        label = self._sampler.labels.read(grid)
        return bool((label != IGNORE).mean() >= LEAST_LABELLED)


class SceneCells(LabelledData):
    """One image per cell of ground, with a number to predict.

    The image of a cell is a square of `side` pixels of the scene's grid around its centre, as large
    as the cell where the scene's ground sampling distance is chosen so.

    Args:
        sampler: cuts samples out of the scene.
        grid: the scene.
        cells: the numbers.
        name: what they measure.
        side: height and width of an image, pixels.
        city: name of the place.
        sources: where images, OSM and numbers come from.

    Raises:
        CoverageError: no cell lies in the scene as a whole.
    """

    def __init__(
        self,
        sampler: SceneSampler,
        grid: GridSpec,
        cells: CellValues,
        *,
        name: str,
        side: int,
        city: str,
        sources: Sequence[SourceInfo] = (),
    ) -> None:
        self._sampler = sampler
        self._grids: dict[str, GridSpec] = {}
        self._values: dict[str, float] = {}
        for cell, centre, value in zip(cells.keys, cells.centres, cells.values, strict=True):
            window = _around(grid, centre, side)
            if window.intersection(grid.window) == window:
                self._grids[f"{city}/{cell}"] = grid.subgrid(window)
                self._values[f"{city}/{cell}"] = float(value)
        if not self._grids:
            raise CoverageError(
                f"none of the {len(cells.keys):,} cells lies within {city} as a whole; check place "
                "and ground sampling distance"
            )
        items = [Item(key, city, _centre(place)) for key, place in self._grids.items()]
        gsd_range = (grid.gsd, grid.gsd)
        legend = new_legend(name, [name])
        super().__init__("regress", legend, items, gsd_range=gsd_range, sources=sources)

    def sample(self, key: str) -> Sample:
        """The cell of a name."""
        cut = self._sampler.sample(self._grids[key])
        return Sample(cut.rgb, cut.graph, self.label(key), cut.givers)

    def label(self, key: str) -> NDArray[np.float32]:
        """(1,) the cell's number."""
        return np.array([self._values[key]], np.float32)

    def disturbed(self, change: OsmChange) -> Self:
        """The cells with the scene's objects changed."""
        changed = copy.copy(self)
        changed._sampler = self._sampler.disturbed(change.entities)
        return changed


def _centre(grid: GridSpec) -> tuple[float, float]:
    west, south, east, north = grid.bounds
    return (west + east) / 2, (south + north) / 2


def _around(grid: GridSpec, centre: NDArray[np.float64], side: int) -> PixelWindow:
    """The square of pixels whose centre is nearest to a position."""
    col = round((centre[0] - grid.west) / grid.gsd - side / 2)
    row = round((grid.north - centre[1]) / grid.gsd - side / 2)
    return PixelWindow(row, col, side, side)
