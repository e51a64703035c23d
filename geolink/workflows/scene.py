"""From a request to a scene: where it is, on which grid, and which sources cover it."""

from dataclasses import dataclass, replace
from pathlib import Path

from pyproj import CRS
from shapely import MultiPolygon, intersects
from shapely.geometry.base import BaseGeometry

from geolink.checkpoint import ModelCard
from geolink.errors import CheckpointError, CoverageError
from geolink.graphs.tags import TableTagEncoder, TagEncoder
from geolink.graphs.text_encoders import open_text_encoder
from geolink.grid import WGS84, Bounds, GridSpec, reproject
from geolink.sources.base import ImageSource
from geolink.sources.cache import Cache
from geolink.sources.entities import OsmEntities
from geolink.sources.network import Network
from geolink.sources.osm import read_osm
from geolink.sources.places import Place
from geolink.sources.sea import sea_polygons
from geolink.sources.simulated import SimulatedImagery
from geolink.tiles import TilePlan
from geolink.workflows.acquire import Materials, OsmFile
from geolink.workflows.request import PredictRequest

SIMULATED_GSD = 1.0
TILE_SIDE = 224


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
        entities: OSM in the grid's CRS, None where OSM is not used.
        files: the files that the sources are read from.
        native_gsd: metres per pixel of the imagery itself.
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


def lay_grid(place: Place, gsd: float, overlap: float) -> tuple[GridSpec, TilePlan]:
    """The grid of a place and its tiling; `overlap` is the share of a tile."""
    grid = GridSpec.from_bounds(place.crs, place.bounds_metric, gsd)
    return grid, TilePlan(grid, TILE_SIDE, round(overlap * TILE_SIDE))


def build_scene(
    request: PredictRequest, materials: Materials, supported_gsd: tuple[float, float] | None
) -> Scene:
    """Lays the grid and the tiles of a place, and opens its sources.

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
    entities = None if osm is None else _read_entities(osm, around, crs)
    imagery: ImageSource
    if raster is None:
        assert entities is not None  # see `locate`
        imagery = SimulatedImagery(entities, seed=request.seed, sea=sea_polygons(entities, around))
    else:
        imagery = raster
    tiles = plan.tiles_in(aoi).tolist()
    return Scene(place, aoi, grid, plan, tiles, imagery, entities, materials.files, native)


def _read_entities(osm: OsmFile, bounds: Bounds, crs: CRS) -> OsmEntities:
    entities = read_osm(osm.path, bounds, crs=crs)
    return entities if osm.info is None else replace(entities, info=osm.info)


def tag_semantics(card: ModelCard, *, offline: bool = False) -> tuple[TagEncoder, dict[str, int]]:
    """The tag encoder and the key counts that a model was trained with.

    Args:
        card: of the model.
        offline: use no text model but one that is here.

    Raises:
        CheckpointError: the card names an encoder that is not known.
        UnavailableError: its text model cannot be had, or its extra is not installed.
    """
    counts = dict(card.key_counts)
    table = TableTagEncoder()
    if card.tag_encoder == table.name:
        return table, counts
    network = Network(offline=offline)
    encoder = open_text_encoder(card.tag_encoder, cache=Cache(), network=network)
    if encoder is None:
        raise CheckpointError(
            f"the model {card.name} reads tags through {card.tag_encoder!r}, which is not available"
        )
    return encoder, counts
