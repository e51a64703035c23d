"""OSM objects of an area, from an extract (`.osm.pbf`) or a vector file.

Extracts are read through pyrosm's streaming engine, restricted to the area, so that memory follows
the area and not the file. Whatever cannot be used is left out, counted by reason and logged once.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from pyproj.exceptions import ProjError
from shapely.errors import GEOSException

from geolink.errors import CRSError, InputError
from geolink.grid import WGS84, Bounds, reproject_bounds, require_metric
from geolink.sources.area_rules import is_area
from geolink.sources.base import SourceInfo
from geolink.sources.entities import EntityType, OsmEntities, sorting_text
from geolink.sources.pbf import (
    extract_bounds,
    extract_timestamp,
    iso_date,
    raw_objects,
    require_file,
)
from geolink.sources.sea import sea_polygons
from geolink.sources.tags import frame_tags

__all__ = [
    "extract_bounds",
    "extract_timestamp",
    "iso_date",
    "raw_objects",
    "read_osm",
    "read_osm_parts",
    "sea_polygons",
]

logger = logging.getLogger(__name__)

LICENCE = "ODbL-1.0"
ATTRIBUTION = "© OpenStreetMap contributors"

# pyrosm finds a way by its nodes, so a large area around the AOI without a node in it would be
# missed; objects are therefore searched this many metres beyond the AOI.
READ_MARGIN = 2_000.0

# Relations that are areas; all others (routes, restrictions, sites) only refer to their members.
AREA_RELATIONS = ("multipolygon", "boundary")

# How a relation is put together, not what it is; `members` is added by pyrosm.
NOT_TAGS_OF_RELATIONS = ("type", "members")

_DIMENSION_TYPES: tuple[EntityType, ...] = ("point", "line", "polygon")

Dropped = dict[str, set[str]]  # ids of what is left out, by reason


def read_osm(path: str | Path, bounds: Bounds, *, crs: CRS) -> OsmEntities:
    """The OSM objects that meet `bounds`, as points, lines and polygons.

    Closed ways become polygons by the area rules (`area_rules`), multipolygon and boundary
    relations become polygons (their `type` tag, which only says so, is left out), other relations
    are dropped. Multi-part geometries are split into rows with the same `osm_id`. Polygons that
    reach further than `READ_MARGIN` beyond the area are cut there. Rows are sorted by type and id.

    Args:
        path: an extract (`*.pbf`), or a vector file that GDAL reads, all of its layers, with a
            `label` column, a `tags` column, or one column per tag.
        bounds: the area, in `crs`.
        crs: the scene's metric CRS, which the result is in.

    Returns:
        The entities; all frames are empty where nothing meets the area.

    Raises:
        InputError: the file is missing, truncated, or of a kind that cannot be read.
        CRSError: `crs` is not metric, or a layer of a vector file has no CRS.
    """
    (entities,) = read_osm_parts(path, bounds, [bounds], crs=crs)
    return entities


def read_osm_parts(
    path: str | Path, bounds: Bounds, parts: Iterable[Bounds], *, crs: CRS
) -> Iterator[OsmEntities]:
    """What `read_osm` finds, a part of the area at a time.

    An entity that is found in several parts is the same in each. Together, parts that cover the
    area hold all its entities, though not every part all those that reach into it.

    Args:
        path: as for `read_osm`.
        bounds: the whole area, in `crs`.
        parts: pieces of the area.
        crs: as for `read_osm`.

    Yields:
        For each part the entities found there that meet the whole area; `dropped` counts those of
        all parts so far.

    Raises:
        InputError, CRSError: as `read_osm`.
    """
    path = Path(path)
    require_metric(crs)
    require_file(path)
    is_extract = path.name.endswith(".pbf") and path.is_file()
    dropped: Dropped = {}
    for part in parts:
        if is_extract:
            frame, date = _read_pbf(path, bounds, part, crs, dropped)
        else:
            frame, date = _read_vector(path, bounds, part, crs, dropped), None
        info = SourceInfo(path.name, date=date, licence=LICENCE, attribution=ATTRIBUTION)
        yield _entities(frame, bounds, info, dropped)


# --- extracts -----------------------------------------------------------------------------------


def _read_pbf(
    path: Path, bounds: Bounds, part: Bounds, crs: CRS, dropped: Dropped
) -> tuple[gpd.GeoDataFrame, str | None]:
    """Tagged objects around `part` in `crs`, and the date of the extract."""
    parts, newest = [], 0
    areas = _boxes(bounds, part, crs)
    # Read together, pyrosm gives the ways of a relation up to it, and a street with a bus route on
    # it would be gone with the route.
    for (read, cut), relations in product(areas, (False, True)):
        raw = raw_objects(path, read, relations=relations)
        if raw is None:
            continue
        newest = max(newest, int(raw["timestamp"].max()))
        frame = _raw_frame(raw)
        del raw  # a country is not to be held twice
        parts.append(_metric_frame(_ways_and_relations(frame, dropped), cut, crs, dropped))
        del frame
    frame = pd.concat(parts) if parts else _empty_frame(crs)
    # The two sides of the antimeridian may both return an object that lies on it.
    unique = ~frame.duplicated(["osm_id", "geometry"])
    return frame.loc[unique], iso_date(extract_timestamp(path) or newest)


def _boxes(
    bounds: Bounds, part: Bounds, crs: CRS, source: CRS = WGS84
) -> list[tuple[Bounds, Bounds]]:
    """Boxes to read a part of an area in, in the CRS of the source, with those to cut at."""
    read, cut = (
        _degree_boxes(box.buffered(READ_MARGIN), crs)
        if source.is_geographic
        else [reproject_bounds(box.buffered(READ_MARGIN), crs, source)]
        for box in (part, bounds)
    )
    if len(cut) == 1:
        return [(box, cut[0]) for box in read]
    halves = {box.east == 180.0: box for box in cut}  # which side of the antimeridian
    return [(box, halves[box.west > 0]) for box in read]


def _degree_boxes(bounds: Bounds, crs: CRS) -> list[Bounds]:
    """`bounds` in degrees: one box, or two where it crosses the antimeridian."""
    degrees = reproject_bounds(bounds, crs, WGS84)
    if degrees.west <= degrees.east:
        return [degrees]
    return [degrees._replace(east=180.0), degrees._replace(west=-180.0)]


def _raw_frame(raw: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """The table of pyrosm in the columns of `OsmEntities`, geometry in degrees."""
    tags = frame_tags(raw[["tags"]])
    for row in tags:
        if "id_tag" in row:  # pyrosm's name for a tag with the key `id`
            row["id"] = row.pop("id_tag")
    columns = {"osm_id": raw["osm_type"] + "/" + raw["id"].astype(str), "tags": tags}
    return gpd.GeoDataFrame(columns, geometry=raw.geometry.array, crs=WGS84)


def _ways_and_relations(frame: gpd.GeoDataFrame, dropped: Dropped) -> gpd.GeoDataFrame:
    """Ways turned into lines or polygons by the area rules, relations into polygons or nothing."""
    geometry = frame.geometry.to_numpy().copy()
    tags = frame["tags"].to_numpy().copy()
    kind = frame["osm_id"].str.partition("/")[0].to_numpy()
    for i in np.flatnonzero((kind == "way") & _is_closed(geometry)):
        geometry[i] = _way_geometry(geometry[i], tags[i])
    is_relation = kind == "relation"
    for i in np.flatnonzero(is_relation):
        geometry[i] = _relation_geometry(geometry[i], tags[i])
        tags[i] = {k: v for k, v in tags[i].items() if k not in NOT_TAGS_OF_RELATIONS}
    lost = is_relation & shapely.is_missing(geometry)
    _note(dropped, "relation without an area of its own", frame[lost])
    result = frame.assign(tags=tags)
    return result.set_geometry(gpd.GeoSeries(geometry, result.index, crs=frame.crs))[~lost]


def _is_closed(geometry: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Polygons, and lines that end where they start."""
    rings = shapely.is_closed(geometry) & (shapely.get_num_points(geometry) >= 4)
    return np.asarray((shapely.get_type_id(geometry) == shapely.GeometryType.POLYGON) | rings)


def _way_geometry(geometry: shapely.Geometry, tags: dict[str, str]) -> shapely.Geometry:
    """A closed way as the polygon or the line that its tags ask for."""
    ring = shapely.get_coordinates(geometry)  # a way has no holes
    return shapely.Polygon(ring) if is_area(tags) else shapely.LineString(ring)


def _relation_geometry(geometry: shapely.Geometry, tags: dict[str, str]) -> shapely.Geometry | None:
    """The area of a relation, None where it has none of its own or its rings are open."""
    if tags.get("type") not in AREA_RELATIONS or geometry is None:
        return None
    if shapely.get_dimensions(geometry) == 1:  # pyrosm keeps e.g. pedestrian squares as lines
        geometry = shapely.build_area(geometry)
    is_surface = shapely.get_dimensions(geometry) == 2 and not shapely.is_empty(geometry)
    return geometry if is_surface else None


# --- vector files -------------------------------------------------------------------------------


def _read_vector(
    path: Path, bounds: Bounds, part: Bounds, crs: CRS, dropped: Dropped
) -> gpd.GeoDataFrame:
    """Features of all layers around `part`, in `crs`."""
    try:
        layers = pyogrio.list_layers(path)
        parts = [
            _read_layer(path, str(name), bounds, part, crs, dropped)
            for name, geometry_type in layers
            if geometry_type is not None
        ]
    except (DataSourceError, DataLayerError, GEOSException, ProjError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not a vector file that GDAL can read, or is damaged; give an .osm.pbf, "
            "GeoPackage, GeoJSON, FlatGeobuf or shapefile"
        ) from error
    if not parts:
        raise InputError(f"{path} has no layer with geometries; export one from the source data")
    return pd.concat(parts)


def _read_layer(
    path: Path, layer: str, bounds: Bounds, part: Bounds, crs: CRS, dropped: Dropped
) -> gpd.GeoDataFrame:
    info = pyogrio.read_info(path, layer=layer)
    if info["crs"] is None:
        raise CRSError(f"layer {layer!r} of {path} has no CRS; assign one (ogr2ogr -a_srs, QGIS)")
    source = CRS.from_user_input(info["crs"])
    parts = []
    for read, cut in _boxes(bounds, part, crs, source):
        raw = pyogrio.read_dataframe(path, layer=layer, bbox=tuple(read), fid_as_index=True)
        columns = {"osm_id": _feature_ids(raw, layer), "tags": frame_tags(raw)}
        geometry = shapely.force_2d(raw.geometry.to_numpy())
        frame = gpd.GeoDataFrame(columns, geometry=geometry, crs=source)
        parts.append(_metric_frame(frame, cut, crs, dropped))
    return pd.concat(parts)


def _feature_ids(frame: pd.DataFrame, layer: str) -> list[str]:
    """`way/2` where the table says so, otherwise layer name and feature number."""
    column = next((c for c in ("@id", "osm_id", "osmid", "id") if c in frame), None)
    numbered = [f"{layer}/{fid}" for fid in frame.index]
    if column is None:
        return numbered
    ids = [None if pd.isna(value) else _plain(value) for value in frame[column]]
    if "osm_type" in frame:
        ids = [
            value if value is None else f"{kind}/{value}"
            for kind, value in zip(frame["osm_type"], ids, strict=True)
        ]
    return [number if value is None else value for number, value in zip(numbered, ids, strict=True)]


def _plain(value: object) -> str:
    """An id as text; GDAL hands on integer columns with gaps as floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# --- what both share ----------------------------------------------------------------------------


def _empty_frame(crs: CRS) -> gpd.GeoDataFrame:
    columns = {"osm_id": pd.Series([], dtype=object), "tags": pd.Series([], dtype=object)}
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries([], crs=crs), crs=crs)


def _metric_frame(
    frame: gpd.GeoDataFrame, area: Bounds, crs: CRS, dropped: Dropped
) -> gpd.GeoDataFrame:
    """Usable rows in `crs`, polygons cut to `area` (in the frame's CRS)."""
    frame = _repaired(_tagged(_finite(frame, dropped), dropped), dropped)
    frame = frame.set_geometry(_cut(frame.geometry, area))
    frame = frame.loc[~frame.geometry.is_empty].to_crs(crs)
    return _repaired(frame, dropped)  # a hair's breadth may close or cross in another CRS


def _finite(frame: gpd.GeoDataFrame, dropped: Dropped) -> gpd.GeoDataFrame:
    geometry = frame.geometry.to_numpy()
    missing = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    coordinates, owner = shapely.get_coordinates(geometry, return_index=True)
    infinite = np.zeros(len(frame), dtype=bool)
    infinite[owner[~np.isfinite(coordinates).all(axis=1)]] = True
    _note(dropped, "no geometry", frame[missing])
    _note(dropped, "coordinates that are not finite", frame[infinite])
    return frame.loc[~(missing | infinite)]


def _tagged(frame: gpd.GeoDataFrame, dropped: Dropped) -> gpd.GeoDataFrame:
    bare = ~frame["tags"].map(bool).to_numpy(dtype=bool)
    _note(dropped, "no tags", frame[bare])
    return frame.loc[~bare]


def _repaired(frame: gpd.GeoDataFrame, dropped: Dropped) -> gpd.GeoDataFrame:
    """Invalid geometries made valid; those that lose their dimension by it are dropped."""
    geometry = frame.geometry.to_numpy().copy()
    invalid = np.flatnonzero(~shapely.is_valid(geometry))
    for i in invalid:
        dimension = shapely.get_dimensions(geometry[i])
        geometry[i] = _of_dimension(shapely.make_valid(geometry[i]), dimension)
    broken = shapely.is_empty(geometry)
    _note(dropped, "broken geometry", frame[broken])
    return frame.set_geometry(gpd.GeoSeries(geometry, frame.index, crs=frame.crs)).loc[~broken]


def _of_dimension(geometry: shapely.Geometry, dimension: int) -> shapely.Geometry:
    """The parts of a geometry that have the dimension (0 point, 1 line, 2 polygon), else empty."""
    parts = shapely.get_parts(shapely.get_parts(geometry))  # a collection may hold multi-parts
    kept = parts[shapely.get_dimensions(parts) == dimension]
    return kept[0] if len(kept) == 1 else shapely.union_all(kept)


def _cut(geometry: gpd.GeoSeries, area: Bounds) -> gpd.GeoSeries:
    """Polygons cut to `area`; country borders would otherwise leave the validity of a UTM zone."""
    result = geometry.to_numpy().copy()
    edges = shapely.bounds(result)
    beyond = (edges[:, :2] < area[:2]).any(axis=1) | (edges[:, 2:] > area[2:]).any(axis=1)
    for i in np.flatnonzero(beyond & (shapely.get_dimensions(result) == 2)):
        result[i] = _of_dimension(shapely.intersection(result[i], shapely.box(*area)), 2)
    return gpd.GeoSeries(result, geometry.index, crs=geometry.crs)


def _entities(
    frame: gpd.GeoDataFrame, bounds: Bounds, info: SourceInfo, dropped: Dropped
) -> OsmEntities:
    """Single-part rows that meet `bounds`, by type, in order."""
    frame = frame.explode(ignore_index=True)
    frame = frame.loc[frame.geometry.intersects(shapely.box(*bounds))]
    order = sorted(range(len(frame)), key=[sorting_text(i) for i in frame["osm_id"]].__getitem__)
    frame = frame.iloc[order]
    dimensions = shapely.get_dimensions(frame.geometry.to_numpy())
    frames = {
        kind: frame.loc[dimensions == i].reset_index(drop=True)
        for i, kind in enumerate(_DIMENSION_TYPES)
    }
    counts = {reason: len(ids) for reason, ids in sorted(dropped.items())}
    if counts:
        said = ", ".join(f"{count} with {reason}" for reason, count in counts.items())
        logger.info("%s: left out %s", info.description, said)
    return OsmEntities(**frames, info=info, dropped=counts)


def _note(dropped: Dropped, reason: str, frame: gpd.GeoDataFrame) -> None:
    if len(frame):
        dropped.setdefault(reason, set()).update(frame["osm_id"])
