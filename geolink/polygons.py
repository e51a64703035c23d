"""Zones: clean polygons of a class map that tile the area, and what is known about each.

They are made row of blocks by row of blocks and kept on disk, so that memory does not follow the
area but the width of the map, the largest zone, and the zones too small to stay.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from shapely import Geometry, STRtree

from geolink.errors import CoverageError
from geolink.grid import Bounds, GridSpec, PixelWindow
from geolink.legend import Legend
from geolink.mosaic import Blend
from geolink.outlines import region_outlines
from geolink.rasters import BLOCK_SIDE, burn
from geolink.sieve import BLOCK_SIDE as SIEVE_SIDE
from geolink.sieve import RegionGraph, merge_small, sieved_blocks
from geolink.sources.entities import OsmEntities
from geolink.sources.entity_table import EntityTable
from geolink.zone_table import UNIT, Polygons, ZoneTable

# Where an edge of the area crosses a shared border, both neighbours compute the crossing, and may
# differ in the last bits; rounded to micrometres they agree.
_DECIMALS = 6

# Small zones whose neighbours are looked for at once.
_BATCH = 256


def find_zones(
    class_map: Path,
    area: Geometry,
    table: ZoneTable,
    *,
    min_area_m2: float,
    tolerance_m: float,
    side: int = SIEVE_SIDE,
) -> None:
    """Fill a table with zones of one class each that tile `area`, except where there is no data.

    Small regions join the class most around them (`sieve`), outlines are simplified with shared
    borders kept shared (`outlines`), and the result is cut to the area. Zones smaller than
    `min_area_m2` remain only where they have no neighbour. They come by class, then from north to
    south and west to east, the same whatever the side of the blocks.

    Args:
        class_map: single-band raster of class ids in a metric CRS, 255 where there is no data,
            that covers the area.
        area: valid polygon in the map's CRS.
        table: an empty table in the same CRS.
        min_area_m2: smallest zone.
        tolerance_m: how far outlines may leave the pixel edges; at most 0.99 pixels are used.
        side: height and width of the blocks, pixels.

    Raises:
        CoverageError: the area is empty or reaches beyond the map.
    """
    with rasterio.open(class_map) as raster:
        transform = raster.transform
        grid = GridSpec(
            CRS.from_user_input(raster.crs),
            transform.c,
            transform.f,
            transform.a,
            raster.height,
            raster.width,
        )
        extent = shapely.box(*grid.bounds.buffered(grid.gsd * 1e-6))
        if shapely.is_empty(area) or not extent.covers(area):
            raise CoverageError(f"the area is empty or reaches beyond {class_map.name}")

        def read(window: PixelWindow) -> NDArray[np.uint8]:
            rows, cols = window.slices
            block: NDArray[np.uint8] = raster.read(
                1, window=((rows.start, rows.stop), (cols.start, cols.stop))
            )
            return block

        min_pixels = math.ceil(min_area_m2 / grid.gsd**2)
        blocks = sieved_blocks(read, grid, min_pixels=min_pixels, side=side)
        for polygons, classes in region_outlines(
            blocks, grid.shape, tolerance_px=tolerance_m / grid.gsd
        ):
            polygons = shapely.transform(polygons, lambda xy: _to_metres(xy, grid))
            table.add(*_clipped(polygons, classes, area))
    table.arrange()
    _join_small(table, min_area_m2)


def add_statistics(
    table: ZoneTable,
    grid: GridSpec,
    read: Callable[[PixelWindow], Blend],
    *,
    legend: Legend,
    entities: OsmEntities | EntityTable | None,
) -> None:
    """Add to the zones of a table what the map and OSM say about each.

    That is class_name; confidence, the mean probability of the zone's class with OSM over the
    pixels whose centre lies in the zone (the pixel of an inner point where there is none);
    area_m2; osm_objects, the number of OSM entities that intersect the zone (one that crosses
    zones counts in each); osm_gain, the mean probability with OSM minus that without.

    Args:
        table: filled by `find_zones`.
        grid: grid of the map.
        read: gives the blended scores of a window of `grid`.
        legend: names of the classes.
        entities: OSM entities in the same CRS, None where OSM is not used.
    """
    table.name_classes(legend.names)
    for window in grid.blocks(BLOCK_SIDE):
        block_grid = grid.subgrid(window)
        here = table.near(block_grid.bounds)
        if len(here):
            polygons, class_of = table.zones(here)
            owner = burn(polygons, range(len(here)), block_grid, fill=-1)
            table.add_sums(here, _block_sums(read(window), owner, class_of))
    for zone in table.without_pixels():  # narrower than a pixel
        polygons, class_of = table.zones([zone])
        window = _pixel_of(shapely.point_on_surface(polygons[0]), grid)
        sums = _block_sums(read(window), np.zeros((1, 1), np.int32), class_of)
        table.add_sums(np.array([zone]), sums)
    if entities is not None:
        for ids, polygons in table.batches():
            table.set_objects(ids, entities.count_meeting(polygons))


def _to_metres(xy: NDArray[np.float64], grid: GridSpec) -> NDArray[np.float64]:
    """(n, 2) columns and rows to x and y, the same sums for the same corner of any polygon."""
    metres: NDArray[np.float64] = np.array([grid.west, grid.north]) + xy * [grid.gsd, -grid.gsd]
    return metres


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


def _join_small(table: ZoneTable, min_area_m2: float) -> None:
    """Join what became smaller than `min_area_m2` by cutting and simplifying to its neighbours."""
    small = table.smaller_than(min_area_m2)
    if not len(small):
        return
    some = (small[start : start + _BATCH] for start in range(0, len(small), _BATCH))
    found = [_borders(table, ids) for ids in some]
    pairs, borders = (np.concatenate(column) for column in zip(*found, strict=True))
    pairs, first = np.unique(pairs, axis=0, return_index=True)  # those of two small ones come twice
    borders = borders[first]
    ids = np.unique(np.append(small, pairs.ravel()))
    classes, areas = table.classes_and_areas(ids)
    owner, classes = merge_small(
        RegionGraph(classes, areas, np.searchsorted(ids, pairs), borders), min_area_m2
    )
    order = np.argsort(owner, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
        if len(group) > 1:
            polygons, _ = table.zones(ids[group])
            parts = shapely.get_parts(shapely.coverage_union_all(polygons))
            table.remove(ids[group])
            table.add(parts, np.full(len(parts), classes[group[0]]))
    table.arrange()


def _borders(
    table: ZoneTable, small: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(k, 2) ids of small zones and their neighbours, the lower first, and their common lengths."""
    polygons, _ = table.zones(small)
    near = np.unique(np.concatenate([table.near(Bounds(*p.bounds)) for p in polygons]))
    others, _ = table.zones(near)
    mine, other = STRtree(others).query(polygons, predicate="intersects")
    pairs = np.unique(np.sort(np.column_stack([small[mine], near[other]]), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    one, two = (others[np.searchsorted(near, column)] for column in pairs.T)
    lengths = shapely.length(shapely.intersection(one, two))
    return pairs[lengths > 0], lengths[lengths > 0]


def _block_sums(
    block: Blend, owner: NDArray[np.int32], class_of: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """(zones, 3) sums over a block's pixels, as `ZoneTable.add_sums` takes them."""
    rows, cols = np.nonzero((owner >= 0) & block.valid)
    zone = owner[rows, cols]
    with_osm, without = np.rint(block.scores[:, class_of[zone], rows, cols] / np.float64(UNIT))
    n = len(class_of)
    sums = [np.bincount(zone, values, minlength=n) for values in (with_osm, without)]
    return np.column_stack([*sums, np.bincount(zone, minlength=n)]).astype(np.int64)


def _pixel_of(point: Geometry, grid: GridSpec) -> PixelWindow:
    """The pixel that contains a point."""
    col = int((shapely.get_x(point) - grid.west) // grid.gsd)
    row = int((grid.north - shapely.get_y(point)) // grid.gsd)
    return PixelWindow(min(row, grid.height - 1), min(col, grid.width - 1), 1, 1)
