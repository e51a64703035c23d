"""From a request to a scene: where it is, on which grid, and which sources cover it."""

from dataclasses import dataclass
from pathlib import Path

from shapely import intersects
from shapely.geometry.base import BaseGeometry

from geolink.checkpoint import ModelCard
from geolink.errors import CheckpointError, ConfigError, CoverageError, UnavailableError
from geolink.graphs.tags import TableTagEncoder, TagEncoder
from geolink.graphs.text_encoders import open_text_encoder
from geolink.grid import WGS84, Bounds, GridSpec, reproject
from geolink.sources.base import ImageSource
from geolink.sources.cache import Cache
from geolink.sources.entities import OsmEntities
from geolink.sources.imagery import RasterImagery, open_imagery
from geolink.sources.network import Network
from geolink.sources.osm import read_osm
from geolink.sources.places import (
    SAMPLE_CITY,
    Place,
    place_from_bbox,
    place_from_city,
    place_from_file,
    place_from_raster,
    sample_extract,
)
from geolink.sources.sea import sea_polygons
from geolink.sources.simulated import SimulatedImagery
from geolink.tiles import TilePlan
from geolink.workflows.request import PredictRequest

SIMULATED = "simulated"
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
    """

    place: Place
    aoi: BaseGeometry
    grid: GridSpec
    plan: TilePlan
    tiles: list[int]
    imagery: ImageSource
    entities: OsmEntities | None
    files: tuple[Path, ...]


def named_place(request: PredictRequest) -> Place | None:
    """The one place that a request names; None where it is the raster's own footprint.

    Raises:
        ConfigError: there is neither a place nor a raster.
    """
    if request.city is not None:
        return place_from_city(request.city)
    if request.bbox is not None:
        return place_from_bbox(Bounds(*request.bbox))
    if request.aoi is not None:
        return place_from_file(request.aoi)
    if request.imagery in (None, SIMULATED):
        raise ConfigError(
            "give a place (--city, --bbox or --aoi) or --imagery FILE to map it whole"
        )
    return None


def osm_path(request: PredictRequest) -> Path | None:
    """The OSM file of a request, None where OSM is not wanted.

    Raises:
        UnavailableError: the place needs an extract and none is given.
    """
    if request.osm == "none":
        return None
    if request.osm is not None:
        return Path(request.osm)
    if request.city == SAMPLE_CITY:
        return sample_extract()
    raise UnavailableError(
        "no OSM extract for this place; give one with --osm FILE.osm.pbf, or --no-osm"
    )


def raster_of(request: PredictRequest) -> RasterImagery | None:
    """The opened raster of a request, None where its imagery is simulated.

    Raises:
        UnavailableError: the place needs imagery and none is given.
    """
    if request.imagery == SIMULATED or (request.imagery is None and request.city == SAMPLE_CITY):
        return None
    if request.imagery is None:
        raise UnavailableError(
            "no imagery for this place; give a raster with --imagery FILE, or --imagery simulated"
        )
    return open_imagery(Path(request.imagery), bands=request.bands)


def working_gsd(
    asked: float | None, raster: RasterImagery | None, supported: tuple[float, float]
) -> float:
    """Metres per pixel: as asked, else the raster's own, kept within what the model has seen."""
    if asked is not None:
        return asked
    native = SIMULATED_GSD if raster is None else raster.native_gsd
    # Two significant digits: grids of one sensor stay the same in spite of projection noise.
    return float(f"{min(max(native, supported[0]), supported[1]):.2g}")


def build_scene(request: PredictRequest, supported_gsd: tuple[float, float]) -> Scene:
    """Opens every source of a request and lays the grid and the tiles.

    Raises:
        InputError, CoverageError: an input cannot be used, or misses the area.
        UnavailableError: a source is needed that is not here.
    """
    place = named_place(request)
    raster = raster_of(request)
    osm = osm_path(request)
    if raster is None and osm is None:
        raise ConfigError("simulated imagery is drawn from OSM: it cannot be used without OSM")
    if place is None:
        assert raster is not None  # checked by named_place
        place = place_from_raster(raster)
    crs = place.crs
    aoi = place.aoi_metric
    if raster is not None and not intersects(reproject(raster.footprint, WGS84, crs), aoi):
        raise CoverageError(f"{raster.info.description} does not meet the area of {place.name}")
    gsd = working_gsd(request.gsd, raster, supported_gsd)
    grid = GridSpec.from_bounds(crs, place.bounds_metric, gsd)
    plan = TilePlan(grid, TILE_SIDE, round(request.overlap * TILE_SIDE))
    around = grid.bounds.buffered(TILE_SIDE * gsd)  # edge tiles reach beyond the grid
    entities = None if osm is None else read_osm(osm, around, crs=crs)
    pictures = () if raster is None else tuple(Path(r.path) for r in raster.rasters)
    files = pictures if osm is None else (*pictures, osm)
    imagery: ImageSource
    if raster is None:
        assert entities is not None  # checked above
        imagery = SimulatedImagery(entities, seed=request.seed, sea=sea_polygons(entities, around))
    else:
        imagery = raster
    return Scene(place, aoi, grid, plan, plan.tiles_in(aoi).tolist(), imagery, entities, files)


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
