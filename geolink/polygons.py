"""Zones: clean polygons of a class map that tile the area, and what is known about each."""

import logging
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.features import shapes
from shapely import Geometry, STRtree

from geolink.errors import CoverageError
from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE, Legend
from geolink.mosaic import Blend
from geolink.rasters import BLOCK_SIDE, burn
from geolink.sieve import RegionGraph, merge_small, sieved_blocks
from geolink.sources.entities import ENTITY_TYPES, OsmEntities

logger = logging.getLogger(__name__)

Polygons = NDArray[np.object_]

# Where an edge of the area crosses a shared border, both neighbours compute the crossing, and may
# differ in the last bits; rounded to micrometres they agree.
_DECIMALS = 6


def zones(
    class_map: Path, area: Geometry, *, min_area_m2: float, tolerance_m: float
) -> gpd.GeoDataFrame:
    """Zones of one class each that tile `area`, except where the map has no data.

    Small regions join the class most around them (`sieve`), outlines are simplified with shared
    borders kept shared, and the result is cut to the area. Zones smaller than `min_area_m2` remain
    only where they have no neighbour. Memory follows the number of zones and their vertices, not
    the pixels.

    Args:
        class_map: single-band raster of class ids in a metric CRS, 255 where there is no data,
            that covers the area.
        area: valid polygon in the map's CRS.
        min_area_m2: smallest zone.
        tolerance_m: root of the area of the triangles that simplification may cut off.

    Returns:
        Valid single polygons with the columns class_id and geometry, by class, then from north to
        south and west to east.

    Raises:
        CoverageError: the area is empty or reaches beyond the map.
    """
    with rasterio.open(class_map) as raster:
        crs = CRS.from_user_input(raster.crs)
        transform = raster.transform
        grid = GridSpec(crs, transform.c, transform.f, transform.a, raster.height, raster.width)
    if shapely.is_empty(area) or not shapely.box(*grid.bounds.buffered(grid.gsd * 1e-6)).covers(
        area
    ):
        raise CoverageError(f"the area is empty or reaches beyond {class_map.name}")
    polygons, classes = _pixel_outlines(class_map, grid, math.ceil(min_area_m2 / grid.gsd**2))
    polygons = shapely.coverage_simplify(polygons, tolerance_m / grid.gsd, simplify_boundary=False)
    polygons = shapely.transform(polygons, lambda xy: _to_metres(xy, grid))
    polygons, classes = polygons[classes != IGNORE], classes[classes != IGNORE]
    polygons, classes = _clipped(polygons, classes, area)
    polygons, classes = _without_small(polygons, classes, min_area_m2)
    return _ordered(polygons, classes, crs)


def zone_statistics(
    zones: gpd.GeoDataFrame,
    grid: GridSpec,
    read: Callable[[PixelWindow], Blend],
    *,
    legend: Legend,
    entities: OsmEntities | None,
) -> gpd.GeoDataFrame:
    """Zones with what the map and OSM say about each.

    Added columns: class_name; confidence, the mean probability of the zone's class with OSM over
    the pixels whose centre lies in the zone (the pixel of an inner point where there is none);
    area_m2; osm_objects, the number of OSM entities that intersect the zone (one that crosses
    zones counts in each); osm_gain, the mean probability with OSM minus that without.

    Args:
        zones: result of `zones`.
        grid: grid of the map.
        read: gives the blended scores of a window of `grid`.
        legend: names of the classes.
        entities: OSM entities in the same CRS, None where OSM is not used.
    """
    polygons = zones.geometry.to_numpy()
    class_of = zones["class_id"].to_numpy()
    sums = np.zeros((len(zones), 3))  # probability with OSM, without, pixels
    tree = STRtree(polygons)
    for window in grid.blocks(BLOCK_SIDE):
        block_grid = grid.subgrid(window)
        here = np.sort(tree.query(shapely.box(*block_grid.bounds)))
        if len(here):
            owner = burn(polygons[here], range(len(here)), block_grid, fill=-1)
            sums[here] += _block_sums(read(window), owner, class_of[here])
    for zone in np.flatnonzero(sums[:, 2] == 0):  # narrower than a pixel
        window = _pixel_of(shapely.point_on_surface(polygons[zone]), grid)
        sums[zone] += _block_sums(read(window), np.zeros((1, 1), np.int32), class_of[[zone]])[0]
    with_osm, without = (sums[:, :2] / np.maximum(sums[:, 2:], 1)).T
    columns = {
        "class_id": class_of,
        "class_name": np.array(legend.names, dtype=object)[class_of],
        "confidence": with_osm,
        "area_m2": shapely.area(polygons),
        "osm_objects": _entities_in(polygons, entities),
        "osm_gain": with_osm - without,
    }
    return gpd.GeoDataFrame(columns, geometry=polygons, crs=zones.crs)


def _pixel_outlines(
    class_map: Path, grid: GridSpec, min_pixels: int
) -> tuple[Polygons, NDArray[np.uint8]]:
    """Outlines of the sieved regions in (column, row) units, with a vertex at every pixel corner.

    All corners are needed: where two regions meet on the straight side of a third, that one must
    have a vertex too, else borders do not match. "No data" regions are included.
    """
    with (
        tempfile.TemporaryDirectory(prefix=".zones.", dir=class_map.parent) as folder,
        rasterio.open(class_map) as raster,
    ):
        sieved = Path(folder) / "sieved.tif"
        profile = {"driver": "GTiff", "tiled": True, "compress": "deflate", "dtype": "uint8"}
        shape = {"height": grid.height, "width": grid.width, "count": 1}
        placed = {"transform": raster.transform, "crs": raster.crs, "nodata": None}

        def read(window: PixelWindow) -> NDArray[np.uint8]:
            block: NDArray[np.uint8] = raster.read(1, window=_ranges(window))
            return block

        with rasterio.open(sieved, "w", **profile, **shape, **placed) as out:
            for window, block in sieved_blocks(read, grid, min_pixels=min_pixels):
                out.write(block, 1, window=_ranges(window))
        with rasterio.open(sieved) as result:
            found = shapes(rasterio.band(result, 1), connectivity=4, transform=result.transform)
            outlines, values = zip(*found, strict=True)
    polygons = np.array(
        [shapely.Polygon(o["coordinates"][0], o["coordinates"][1:]) for o in outlines]
    )
    in_pixels = shapely.transform(polygons, lambda xy: _to_pixels(xy, grid))
    corners = shapely.transform(shapely.segmentize(in_pixels, 1.0), np.rint)
    return corners, np.array(values, dtype=np.uint8)


def _ranges(window: PixelWindow) -> tuple[tuple[int, int], tuple[int, int]]:
    """A window as rasterio takes it."""
    rows, cols = window.slices
    return (rows.start, rows.stop), (cols.start, cols.stop)


def _to_metres(xy: NDArray[np.float64], grid: GridSpec) -> NDArray[np.float64]:
    """(n, 2) columns and rows to x and y, the same sums for the same corner of any polygon."""
    metres: NDArray[np.float64] = np.array([grid.west, grid.north]) + xy * [grid.gsd, -grid.gsd]
    return metres


def _to_pixels(xy: NDArray[np.float64], grid: GridSpec) -> NDArray[np.float64]:
    """(n, 2) x and y of pixel corners to whole columns and rows."""
    pixels: NDArray[np.float64] = np.rint((xy - [grid.west, grid.north]) / [grid.gsd, -grid.gsd])
    return pixels


def _clipped(
    polygons: Polygons, classes: NDArray[np.uint8], area: Geometry
) -> tuple[Polygons, NDArray[np.uint8]]:
    """The single polygons inside `area`; those wholly inside stay as they are."""
    shapely.prepare(area)
    inside = shapely.covers(area, polygons)
    across = ~inside & shapely.intersects(area, polygons)
    cut = _rounded(shapely.intersection(polygons[across], area))
    cut = np.where(shapely.is_valid(cut), cut, shapely.make_valid(cut))
    parts, of = shapely.get_parts(cut, return_index=True)
    flat = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON  # not the points of contact
    return (
        np.concatenate([_rounded(polygons[inside]), parts[flat]]),
        np.concatenate([classes[inside], classes[across][of[flat]]]),
    )


def _rounded(polygons: Polygons) -> Polygons:
    rounded: Polygons = shapely.transform(polygons, lambda xy: np.round(xy, _DECIMALS))
    return rounded


def _without_small(
    polygons: Polygons, classes: NDArray[np.uint8], min_area_m2: float
) -> tuple[Polygons, NDArray[np.uint8]]:
    """Join what became smaller than `min_area_m2` by cutting and simplifying to its neighbours."""
    areas = shapely.area(polygons)
    small = np.flatnonzero(areas < min_area_m2)
    mine, other = STRtree(polygons).query(polygons[small], predicate="intersects")
    mine = small[mine]
    pairs = np.unique(np.sort(np.column_stack([mine, other])[mine != other], axis=1), axis=0)
    borders = shapely.length(shapely.intersection(polygons[pairs[:, 0]], polygons[pairs[:, 1]]))
    pairs, borders = pairs[borders > 0], borders[borders > 0]
    owner, classes = merge_small(RegionGraph(classes, areas, pairs, borders), min_area_m2)
    order = np.argsort(owner, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(owner[order]) > 0)) if len(order) else order
    merged = [
        polygons[group[0]] if len(group) == 1 else shapely.coverage_union_all(polygons[group])
        for group in np.split(order, first[1:])
        if len(group)
    ]
    parts, of = shapely.get_parts(merged, return_index=True)
    return parts, classes[order[first]][of]


def _ordered(polygons: Polygons, classes: NDArray[np.uint8], crs: CRS) -> gpd.GeoDataFrame:
    """The frame of zones, by class, then from north to south and west to east."""
    west, south, east, north = shapely.bounds(polygons).reshape(-1, 4).T
    order = np.lexsort((east, south, west, -north, classes))
    polygons, classes = shapely.normalize(polygons[order]), classes[order]
    if len(polygons) and not shapely.coverage_is_valid(polygons):
        logger.warning("some zones do not share their borders exactly")
    return gpd.GeoDataFrame({"class_id": classes.astype(np.int32)}, geometry=polygons, crs=crs)


def _block_sums(
    block: Blend, owner: NDArray[np.int32], class_of: NDArray[np.int32]
) -> NDArray[np.float64]:
    """(zones, 3) sums over a block's pixels: probability with OSM, without, and pixels."""
    rows, cols = np.nonzero((owner >= 0) & block.valid)
    zone = owner[rows, cols]
    with_osm, without = block.scores[:, class_of[zone], rows, cols].astype(np.float64)
    n = len(class_of)
    return np.column_stack(
        [
            np.bincount(zone, with_osm, minlength=n),
            np.bincount(zone, without, minlength=n),
            np.bincount(zone, minlength=n),
        ]
    )


def _pixel_of(point: Geometry, grid: GridSpec) -> PixelWindow:
    """The pixel that contains a point."""
    col = int((shapely.get_x(point) - grid.west) // grid.gsd)
    row = int((grid.north - shapely.get_y(point)) // grid.gsd)
    return PixelWindow(min(row, grid.height - 1), min(col, grid.width - 1), 1, 1)


def _entities_in(polygons: Polygons, entities: OsmEntities | None) -> NDArray[np.int32]:
    """(n,) number of OSM entities that intersect each polygon."""
    counts = np.zeros(len(polygons), np.int64)
    if entities is not None:
        for kind in ENTITY_TYPES:
            tree = STRtree(entities.frame(kind).geometry.to_numpy())
            of, _ = tree.query(polygons, predicate="intersects")
            counts += np.bincount(of, minlength=len(polygons))
    return counts.astype(np.int32)
