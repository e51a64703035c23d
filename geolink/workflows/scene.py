"""From a request to a scene: where it is, on which grid, and which sources cover it."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import shapely
from pyproj import CRS
from shapely import MultiPolygon, intersects
from shapely.geometry.base import BaseGeometry

from geolink.checkpoint import ModelCard
from geolink.errors import CheckpointError, CoverageError
from geolink.files import full_disk_named
from geolink.graphs.tags import TagEncoder
from geolink.graphs.text_encoders import open_tag_encoder
from geolink.grid import WGS84, Bounds, GridSpec, reproject
from geolink.sources.base import ImageSource
from geolink.sources.cache import Cache
from geolink.sources.entities import OsmEntities
from geolink.sources.entity_table import EntityTable, keep_entities
from geolink.sources.network import Network
from geolink.sources.osm import READ_MARGIN, read_osm, read_osm_parts
from geolink.sources.places import Place
from geolink.sources.sea import sea_polygons
from geolink.sources.simulated import SimulatedImagery
from geolink.tiles import TilePlan
from geolink.workflows.acquire import Materials, OsmFile
from geolink.workflows.request import PredictRequest

SIMULATED_GSD = 1.0
TILE_SIDE = 224

# An OSM file is read in parts of the area: bytes of it to a part, and metres a side at least, for
# each is read with a margin and every reading runs through the whole file.
PART_BYTES, _LEAST_PART = 4_000_000, 4 * READ_MARGIN


@dataclass(frozen=True)
class Scene:
    """What a prediction works on.

    Attributes:
        place: name and area of interest.
        aoi: the area of interest in the grid's CRS.
        grid: all pixels.
        plan: the tiling of the grid.
        tiles: ids of the tiles that meet the area.
        imagery: the pixels.
        entities: OSM in the grid's CRS, None where OSM is not used, or on disk.
        files: the files that the sources are read from.
        native_gsd: metres per pixel of the imagery itself.
        table: OSM on disk, for scenes of any size.
    """

    place: Place
    aoi: BaseGeometry
    grid: GridSpec
    plan: TilePlan
    tiles: list[int]
    imagery: ImageSource
    entities: OsmEntities | None
    files: tuple[Path, ...]
    native_gsd: float
    table: EntityTable | None = None

    @property
    def osm(self) -> OsmEntities | EntityTable | None:
        """OSM, wherever it is held; None where it is not used."""
        return self.table if self.entities is None else self.entities

    @property
    def around(self) -> Bounds:
        """The grid's bounds and a tile more: edge tiles reach beyond the grid."""
        return around_grid(self.grid)

    def sea(self) -> MultiPolygon | None:
        """The sea around the scene; None where OSM is not used."""
        return None if self.entities is None else sea_polygons(self.entities, self.around)


def around_grid(grid: GridSpec) -> Bounds:
    """What the tiles of a grid can reach."""
    return grid.bounds.buffered(TILE_SIDE * grid.gsd)


def working_gsd(asked: float | None, native: float, supported: tuple[float, float] | None) -> float:
    """Metres per pixel: as asked, else the imagery's own, kept within what the model has seen."""
    if asked is not None:
        return asked
    least, greatest = supported or (native, native)
    # Two significant digits: grids of one sensor stay the same in spite of projection noise.
    return float(f"{min(max(native, least), greatest):.2g}")


def lay_grid(
    place: Place, gsd: float, overlap: float, *, side: int = TILE_SIDE
) -> tuple[GridSpec, TilePlan]:
    """The grid of a place and its tiling; `overlap` is the share of a tile of `side` pixels."""
    grid = GridSpec.from_bounds(place.crs, place.bounds_metric, gsd)
    return grid, TilePlan(grid, side, round(overlap * side))


def build_scene(
    request: PredictRequest,
    materials: Materials,
    supported_gsd: tuple[float, float] | None,
    *,
    osm_on_disk: bool = False,
) -> Scene:
    """Lays the grid and the tiles of a place, and opens its sources.

    With `osm_on_disk`, OSM is not read, but left to `with_osm_on_disk`; imagery that is rendered
    from OSM needs it in memory all the same.

    Raises:
        InputError, CoverageError: an input cannot be used, or misses the area.
    """
    place, raster, osm = materials.place, materials.imagery, materials.osm
    crs, aoi = place.crs, place.aoi_metric
    if raster is not None and not intersects(reproject(raster.footprint, WGS84, crs), aoi):
        raise CoverageError(f"{raster.info.description} does not meet the area of {place.name}")
    native = SIMULATED_GSD if raster is None else raster.native_gsd
    gsd = working_gsd(request.gsd, native, supported_gsd)
    grid, plan = lay_grid(place, gsd, request.overlap)
    around = around_grid(grid)
    osm_on_disk = osm_on_disk and raster is not None
    entities = None if osm is None or osm_on_disk else _read_entities(osm, around, crs)
    imagery: ImageSource
    if raster is None:
        assert entities is not None  # see `locate`
        imagery = SimulatedImagery(entities, seed=request.seed, sea=sea_polygons(entities, around))
    else:
        imagery = raster
    tiles = plan.tiles_in(aoi).tolist()
    return Scene(place, aoi, grid, plan, tiles, imagery, entities, materials.files, native)


def with_osm_on_disk(scene: Scene, osm: OsmFile | None, path: Path) -> Scene:
    """The scene with its OSM in a table, which is made unless an earlier run has left it there.

    An extract is read a part of the area at a time, so that memory follows the part.

    Raises:
        InputError: the file cannot be read.
        OutputError: the table cannot be written.
    """
    if osm is None or scene.entities is not None:
        return scene
    if path.exists():
        return replace(scene, table=EntityTable(path))
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        crs, reach = scene.grid.crs, scene.aoi.buffer(2 * TILE_SIDE * scene.grid.gsd)
        parts = lay_parts(scene.around, osm.path.stat().st_size)
        parts = [part for part in parts if intersects(reach, shapely.box(*part))]
        found = read_osm_parts(osm.path, scene.around, parts, crs=crs)
        table = keep_entities(path, (_described(part, osm) for part in found), crs)
    return replace(scene, table=table)


def lay_parts(area: Bounds, size: int, *, part_bytes: int = PART_BYTES) -> list[Bounds]:
    """Pieces of an area that hold about `part_bytes` each of an OSM file of `size` bytes."""
    count = math.sqrt(size / part_bytes)
    rows, cols = (
        max(1, math.ceil(min(count, length / _LEAST_PART))) for length in (area.height, area.width)
    )
    xs = np.linspace(area.west, area.east, cols + 1).tolist()
    ys = np.linspace(area.south, area.north, rows + 1).tolist()
    return [Bounds(w, s, e, n) for s, n in pairwise(ys) for w, e in pairwise(xs)]


def _described(entities: OsmEntities, osm: OsmFile) -> OsmEntities:
    """The entities with the provenance that is known of their file."""
    return entities if osm.info is None else replace(entities, info=osm.info)


def _read_entities(osm: OsmFile, bounds: Bounds, crs: CRS) -> OsmEntities:
    return _described(read_osm(osm.path, bounds, crs=crs), osm)


def tag_semantics(card: ModelCard, *, offline: bool = False) -> tuple[TagEncoder, dict[str, int]]:
    """The tag encoder and the key counts that a model was trained with.

    Args:
        card: of the model.
        offline: use no text model but one that is here.

    Raises:
        CheckpointError: the card names an encoder that is not known.
        UnavailableError: its text model cannot be had, or its extra is not installed.
    """
    network = Network(offline=offline)
    encoder = open_tag_encoder(card.tag_encoder, cache=Cache(), network=network)
    if encoder is None:
        raise CheckpointError(
            f"the model {card.name} reads tags through {card.tag_encoder!r}, which is not available"
        )
    return encoder, dict(card.key_counts)
