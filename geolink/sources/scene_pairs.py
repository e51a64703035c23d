"""Pretraining pairs cut from scenes: from a georeferenced raster, or a simulated orthophoto."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from pyproj import CRS

from geolink.grid import WGS84, Bounds, GridSpec, PixelWindow, reproject_bounds, utm_crs
from geolink.sources.base import ImageSource, SourceInfo
from geolink.sources.candidates import Filters, Provenance, Rejection, png, sample_key
from geolink.sources.entities import OsmEntities
from geolink.sources.imagery import RasterImagery, open_imagery
from geolink.sources.osm import extract_bounds, read_osm
from geolink.sources.places import place_from_raster
from geolink.sources.sea import sea_polygons
from geolink.sources.shard_files import TileSample
from geolink.sources.simulated import SimulatedImagery
from geolink.sources.tile_objects import ObjectIndex

TILE_SIDE = 224
SIMULATED_GSD = 1.0
# Per process. A scene holds all OSM objects of its area, a raster a few dozen blocks of pixels.
_OPEN_SCENES = 2


@dataclass(frozen=True)
class RasterPairs:
    """Tiles of one georeferenced raster and the OSM objects on them.

    Tiles lie side by side on a grid of the raster's UTM zone; the last ones of a row and a column
    are moved back, so that they end with it.

    Attributes:
        path: the raster.
        osm: OSM extract or vector file.
        side: height and width of a tile, pixels.
        gsd: metres per pixel; None is the raster's own, to two digits.
        area: what is read of the OSM file, in the raster's UTM zone; None is the raster's area.
            Rasters of one region share what they read if they name the same area.
        label: what it is called; the file name by default.
        info: provenance of the pixels, instead of what the file says of itself.
    """

    path: Path
    osm: Path
    side: int = TILE_SIDE
    gsd: float | None = None
    area: Bounds | None = None
    label: str = ""
    info: SourceInfo | None = None

    @property
    def name(self) -> str:
        """What the raster is called."""
        return self.label or self.path.name

    def files(self) -> list[Path]:
        """The raster, or the files of one in pieces, and the OSM file."""
        return [*(Path(part.path) for part in _raster(self.path, self.info).rasters), self.osm]

    @property
    def grid(self) -> GridSpec:
        """All pixels."""
        imagery = _raster(self.path, self.info)
        place = place_from_raster(imagery)
        gsd = self.gsd or float(f"{imagery.native_gsd:.2g}")
        return GridSpec.from_bounds(place.crs, place.bounds_metric, gsd)

    def __len__(self) -> int:
        return _tile_count(self.grid, self.side)

    def read(self, number: int, filters: Filters) -> TileSample | Rejection:
        """One tile, row by row from the north-west."""
        scene = _raster_scene(self)
        return _cut(scene, _tile(scene.grid, self.side, number), self.name, filters)

    def provenance(self) -> Provenance:
        """The raster's and the extract's own words."""
        return _raster_scene(self).provenance


@dataclass(frozen=True)
class SimulatedPairs:
    """Simulated orthophotos over an OSM extract: the same place once for each seed.

    Attributes:
        osm: OSM extract (`.osm.pbf`).
        seeds: one look of the place (season, light, camera) for each.
        side: height and width of a tile, pixels.
        gsd: metres per pixel.
        limit: greatest number of tiles per seed, drawn at random; None takes all.
    """

    osm: Path
    seeds: tuple[int, ...] = (0,)
    side: int = TILE_SIDE
    gsd: float = SIMULATED_GSD
    limit: int | None = None

    @property
    def name(self) -> str:
        """The extract's file name, marked as simulated."""
        return f"simulated {self.osm.name}"

    def files(self) -> list[Path]:
        """The extract."""
        return [self.osm]

    def __len__(self) -> int:
        return len(self.seeds) * self._per_seed

    def read(self, number: int, filters: Filters) -> TileSample | Rejection:
        """One tile in one look; all tiles of a seed follow one another."""
        look, tile = divmod(number, self._per_seed)
        seed = self.seeds[look]
        scene = _simulated_scene(self.osm, self.gsd, seed)
        if self.limit is not None:
            drawn = np.random.default_rng(seed).permutation(_tile_count(scene.grid, self.side))
            tile = int(drawn[tile])
        return _cut(scene, _tile(scene.grid, self.side, tile), f"{self.name} {seed}", filters)

    def provenance(self) -> Provenance:
        """The extract's own words; the imagery is marked as simulated."""
        return _simulated_scene(self.osm, self.gsd, 0).provenance

    @property
    def _per_seed(self) -> int:
        tiles = _tile_count(_extract_grid(self.osm, self.gsd), self.side)
        return tiles if self.limit is None else min(self.limit, tiles)


# --- tiles of a grid ----------------------------------------------------------------------------


def _tile_count(grid: GridSpec, side: int) -> int:
    return -(-grid.height // side) * -(-grid.width // side)


def _tile(grid: GridSpec, side: int, number: int) -> GridSpec:
    """A tile by its number, moved back where it would leave a grid that is large enough for it."""
    row, col = divmod(number, -(-grid.width // side))
    row_off = min(row * side, max(grid.height - side, 0))
    col_off = min(col * side, max(grid.width - side, 0))
    return grid.subgrid(PixelWindow(row_off, col_off, side, side))


# --- opened scenes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scene:
    """An opened source: pixels, objects, and where they come from."""

    grid: GridSpec
    imagery: ImageSource
    objects: ObjectIndex
    osm: SourceInfo
    left_out: Mapping[str, int]

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.imagery.info, self.osm, self.left_out)


@lru_cache(maxsize=_OPEN_SCENES)
def _raster(path: Path, info: SourceInfo | None) -> RasterImagery:
    return open_imagery(path, info=info)


@lru_cache(maxsize=_OPEN_SCENES)
def _raster_scene(source: RasterPairs) -> _Scene:
    grid = source.grid
    entities, objects = _objects(source.osm, source.area or grid.bounds, grid.crs)
    return _Scene(grid, _raster(source.path, source.info), objects, entities.info, entities.dropped)


@lru_cache(maxsize=_OPEN_SCENES)
def _extract_grid(osm: Path, gsd: float) -> GridSpec:
    degrees = extract_bounds(osm)
    crs = utm_crs((degrees.west + degrees.east) / 2, (degrees.south + degrees.north) / 2)
    return GridSpec.from_bounds(crs, reproject_bounds(degrees, WGS84, crs), gsd)


@lru_cache(maxsize=_OPEN_SCENES)
def _simulated_scene(osm: Path, gsd: float, seed: int) -> _Scene:
    if seed != 0:  # another look at the geometry that the first has prepared
        first = _simulated_scene(osm, gsd, 0)
        assert isinstance(first.imagery, SimulatedImagery)
        return replace(first, imagery=first.imagery.with_seed(seed))
    grid = _extract_grid(osm, gsd)
    around = grid.bounds.buffered(TILE_SIDE * gsd)  # what casts shadows on the tiles at the edge
    entities, objects = _objects(osm, around, grid.crs)
    imagery = SimulatedImagery(entities, sea=sea_polygons(entities, around))
    return _Scene(grid, imagery, objects, entities.info, entities.dropped)


@lru_cache(maxsize=_OPEN_SCENES)
def _objects(osm: Path, area: Bounds, crs: CRS) -> tuple[OsmEntities, ObjectIndex]:
    """The objects of an area, which several rasters or ground sampling distances may share."""
    entities = read_osm(osm, area, crs=crs)
    return entities, ObjectIndex(entities, crs)


def close_scenes() -> None:
    """Forgets what is open, so that files which were replaced are looked at anew."""
    for opened in (_raster, _raster_scene, _extract_grid, _simulated_scene, _objects):
        opened.cache_clear()


def _cut(scene: _Scene, tile: GridSpec, name: str, filters: Filters) -> TileSample | Rejection:
    """The sample of a tile; objects are looked at first, as pixels cost more."""
    objects = scene.objects.within(tile.bounds)
    if (problem := filters.refuse_objects(objects)) is not None:
        return problem
    pixels = scene.imagery.read(tile)
    if (problem := filters.refuse_pixels(pixels)) is not None:
        return problem
    crs, info = tile.crs.to_string(), scene.imagery.info
    meta = {
        "source": info.description,
        "date": info.date,
        "simulated": info.simulated,
        "gsd": tile.gsd,
        "crs": crs,
        "bounds": list(tile.bounds),
    }
    key = sample_key(name, f"{name} {crs} {tile.west!r} {tile.north!r} {tile.gsd!r}")
    return TileSample(key, png(pixels.rgb), "png", objects, meta)
