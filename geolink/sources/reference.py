"""Reference labels from users' files: polygons, class rasters, and values of cells."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from rasterio.enums import Resampling
from shapely.errors import GEOSException

from geolink.errors import CoverageError, CRSError, InputError
from geolink.grid import WGS84, GridSpec
from geolink.legend import IGNORE, Legend
from geolink.sources.class_table import ClassTable, class_table
from geolink.sources.drawing import DrawnShapes
from geolink.sources.raster_checks import describe
from geolink.sources.raster_files import RasterFile
from geolink.sources.warping import OpenFiles, warp

logger = logging.getLogger(__name__)

# Columns that are taken for the class of a polygon where none is named, in this order.
CLASS_COLUMNS = ("class_name", "class_id", "class", "label", "landuse", "land_use", "zone")
_RASTERS = frozenset({".tif", ".tiff", ".vrt", ".img", ".png"})
_LOOKED_AT = 1024  # pixels per side that the values of a class raster are looked for in


class Labels(Protocol):
    """Labels that can be read on any grid of a scene."""

    def read(self, grid: GridSpec) -> NDArray[np.uint8]:
        """(height, width) class ids, IGNORE where there is no label."""
        ...


class NoLabels:
    """Labels of a scene whose pixels have none, because its samples are asked something else."""

    def read(self, grid: GridSpec) -> NDArray[np.uint8]:
        """(height, width) IGNORE."""
        return np.full(grid.shape, IGNORE, np.uint8)


@dataclass(frozen=True)
class Reference:
    """Labels of a scene, and what their numbers mean."""

    labels: Labels
    legend: Legend


def read_reference(
    path: Path,
    grid: GridSpec,
    *,
    legend: Legend | None = None,
    column: str | None = None,
    mapping: Path | None = None,
    ignore: Sequence[str] = (),
) -> Reference:
    """Labels of a scene from a vector file of polygons, or a raster of class numbers.

    Args:
        path: the file.
        grid: the scene; the labels have to meet it.
        legend: classes to map to; None takes the file's own.
        column: of polygons: the one with the class; by default the first of `CLASS_COLUMNS`.
        mapping: CSV file with the columns `value` and `class` (see `class_table`).
        ignore: values that are no class.

    Raises:
        InputError: the file is not readable, lacks the column, or has unknown classes.
        CRSError: the file does not say its CRS.
        CoverageError: the labels lie elsewhere.
    """
    if not path.exists():
        raise InputError(f"the label file {path} does not exist; check the path")
    if path.suffix.lower() in _RASTERS:
        return _raster_reference(path, grid, legend=legend, mapping=mapping, ignore=ignore)
    frame = _read_vector(path, grid.crs)
    named = _class_column(frame, column, source=path.name)
    if not frame[named].notna().any():
        raise InputError(
            f"{path.name} has no class in {named!r}; fill it in, or name another column"
        )
    frame = _polygons(frame[frame[named].notna()], source=path.name)
    # The classes are those of the whole file, so that all places that it covers have the same.
    values = [_as_text(value) for value in frame[named]]
    table = class_table(values, source=path.name, legend=legend, mapping=mapping, ignore=ignore)
    classes = np.array([table.ids[value] for value in values], np.uint8)
    within = shapely.intersects(frame.geometry.to_numpy(), shapely.box(*grid.bounds))
    if not within.any():
        raise CoverageError(f"{path.name} does not meet the imagery; check place and CRS of both")
    return Reference(PolygonLabels(frame[within], classes[within].tolist()), table.legend)


class PolygonLabels(DrawnShapes):
    """Polygons with a class each.

    Where they overlap, the smaller one wins, and among equally large ones the later row: what is
    drawn inside a larger area is the more specific statement. A polygon to be ignored takes part,
    and leaves no label where it lies on top.

    Args:
        frame: polygons, in a metric CRS.
        classes: class id of each row.
    """

    def __init__(self, frame: gpd.GeoDataFrame, classes: Sequence[int]) -> None:
        geometry = frame.geometry.to_numpy()
        order = np.argsort(-shapely.area(geometry), kind="stable")
        super().__init__(geometry[order], np.asarray(classes, np.uint8)[order], frame.crs)


class RasterLabels:
    """A raster of class numbers, read on any grid by its nearest pixel.

    Args:
        raster: the file, with one band of whole numbers.
        table: classes of the numbers.
    """

    def __init__(self, raster: RasterFile, table: ClassTable) -> None:
        self._raster = raster
        self._table = table
        self._files = OpenFiles()

    def read(self, grid: GridSpec) -> NDArray[np.uint8]:
        """(height, width) class ids, IGNORE beyond the raster and where it holds no data.

        Raises:
            InputError: the file cannot be read, or holds a number without a class.
        """
        if not self._raster.meets(grid):
            return np.full(grid.shape, IGNORE, np.uint8)
        values, valid = _nearest(self._raster, grid, self._files)
        numbers, place = np.unique(values[valid], return_inverse=True)
        texts = [str(number) for number in numbers.tolist()]
        self._table.require(texts, source=self._raster.name)
        labels = np.full(grid.shape, IGNORE, np.uint8)
        if texts:
            labels[valid] = np.array([self._table.ids[text] for text in texts], np.uint8)[place]
        return labels


@dataclass(frozen=True)
class CellValues:
    """Numbers to be predicted, one per cell of ground.

    Attributes:
        keys: name of each cell.
        centres: (n, 2) x and y, metres, in `crs`.
        sides: (n,) side of the square with the cell's area, metres; 0 for points.
        values: (n,) numbers.
        crs: a metric CRS.
    """

    keys: tuple[str, ...]
    centres: NDArray[np.float64]
    sides: NDArray[np.float64]
    values: NDArray[np.float64]
    crs: CRS


def read_cells(path: Path, crs: CRS, *, column: str) -> CellValues:
    """Cells with a number each: polygons or points of a vector file, or a CSV with lon and lat.

    Args:
        path: the file.
        crs: metric CRS of the scene.
        column: the one with the numbers.

    Raises:
        InputError: the file is not readable, lacks the column, or a number is missing.
        CRSError: a vector file does not say its CRS.
    """
    frame = _read_table(path, crs) if path.suffix.lower() == ".csv" else _read_vector(path, crs)
    _require_column(frame, column, source=path.name)
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(float)
    if missing := np.flatnonzero(~np.isfinite(values)).tolist():
        raise InputError(
            f"{len(missing):,} of {len(values):,} cells of {path.name} have no number in "
            f"{column!r}, the first in row {missing[0] + 1}; fill them in or take them out"
        )
    geometry = frame.geometry.to_numpy()
    return CellValues(
        keys=tuple(f"cell{number:06d}" for number in range(len(frame))),
        centres=shapely.get_coordinates(shapely.centroid(geometry)),
        sides=np.sqrt(shapely.area(geometry)),
        values=values,
        crs=crs,
    )


# Vector files


def _read_vector(path: Path, crs: CRS) -> gpd.GeoDataFrame:
    """All rows of a vector file with one layer, in `crs`."""
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        frames = {name: pyogrio.read_dataframe(path, layer=name) for name in layers}
    except (DataSourceError, DataLayerError, GEOSException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path.name} is not a vector file that GDAL reads, or is damaged; give a GeoPackage, "
            "GeoJSON or shapefile"
        ) from error
    filled = {name: frame for name, frame in frames.items() if len(frame)}
    if "zones" in filled:  # our own maps: their second layer is the tiles
        filled = {"zones": filled["zones"]}
    if len(filled) != 1:
        found = f"several layers ({', '.join(filled)})" if filled else "no features"
        raise InputError(f"{path.name} has {found}; give a file with one layer of labels")
    frame = next(iter(filled.values()))
    if frame.crs is None:
        raise CRSError(
            f"{path.name} has no coordinate reference system; assign one (ogr2ogr -a_srs, QGIS)"
        )
    frame = frame[frame.geometry.notna() & ~frame.geometry.is_empty]
    return frame.set_geometry(shapely.force_2d(frame.geometry.to_numpy()), crs=frame.crs).to_crs(
        crs
    )


def _read_table(path: Path, crs: CRS) -> gpd.GeoDataFrame:
    """The rows of a CSV file as points, in `crs`."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} is not a readable CSV file ({error})") from None
    for column in ("lon", "lat"):
        _require_column(table, column, source=path.name)
    lon, lat = (pd.to_numeric(table[name], errors="coerce") for name in ("lon", "lat"))
    if not (lon.between(-180, 180) & lat.between(-90, 90)).all():
        raise InputError(f"{path.name} has positions that are not degrees; check lon and lat")
    points = shapely.points(lon.to_numpy(float), lat.to_numpy(float))
    return gpd.GeoDataFrame(table, geometry=points, crs=WGS84).to_crs(crs)


def _require_column(frame: pd.DataFrame, column: str, *, source: str) -> None:
    columns = [str(name) for name in frame.columns if name != "geometry"]
    if column not in columns:
        raise InputError(
            f"{source} has no column {column!r}; it has {', '.join(columns) or 'none'}"
        )


def _class_column(frame: gpd.GeoDataFrame, column: str | None, *, source: str) -> str:
    """The column with the class of each polygon."""
    if column is not None:
        _require_column(frame, column, source=source)
        return column
    by_name = {str(name).casefold(): str(name) for name in frame.columns}
    found = next((by_name[name] for name in CLASS_COLUMNS if name in by_name), None)
    if found is None:
        columns = ", ".join(str(name) for name in frame.columns if name != "geometry")
        raise InputError(
            f"{source} does not say which column holds the class; name one of {columns or 'none'}"
        )
    return found


def _as_text(value: object) -> str:
    """A class value as text; numbers that a format made floats lose their point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _polygons(frame: gpd.GeoDataFrame, *, source: str) -> gpd.GeoDataFrame:
    """The polygons among some features, valid; others are counted."""
    flat = frame.geom_type.isin(["Polygon", "MultiPolygon"])
    if not flat.any():
        raise InputError(f"{source} has no polygons with a class; labels are drawn as polygons")
    if dropped := int((~flat).sum()):
        logger.warning("%s: left out %d features that are no polygons", source, dropped)
    frame = frame[flat]
    return frame.set_geometry(shapely.make_valid(frame.geometry.to_numpy(), method="structure"))


# Rasters


def _raster_reference(
    path: Path,
    grid: GridSpec,
    *,
    legend: Legend | None,
    mapping: Path | None,
    ignore: Sequence[str],
) -> Reference:
    # Overviews may hold averages of class numbers, which mean nothing.
    raster = replace(describe(str(path), (1,))[0][0], overviews=())
    if not np.issubdtype(np.dtype(raster.dtype), np.integer):
        raise InputError(
            f"{path.name} holds {raster.dtype} numbers, not classes; convert it to whole numbers"
        )
    if not raster.meets(grid):
        raise CoverageError(f"{path.name} does not meet the imagery; check place and CRS of both")
    values = sorted(set().union(*(_values_of(raster, part) for part in _parts(grid))))
    if not values:
        raise CoverageError(f"{path.name} has no label within the imagery; check place and nodata")
    table = class_table(
        [str(value) for value in values],
        source=path.name,
        legend=legend,
        mapping=mapping,
        ignore=[*ignore, *([] if legend else [str(IGNORE)])],
    )
    return Reference(RasterLabels(raster, table), table.legend)


def _parts(grid: GridSpec) -> Iterator[GridSpec]:
    """The grid in pieces that are small enough to be read at once."""
    for window in grid.blocks(_LOOKED_AT):
        yield grid.subgrid(window)


def _values_of(raster: RasterFile, grid: GridSpec) -> set[int]:
    if not raster.meets(grid):
        return set()
    values, valid = _nearest(raster, grid, OpenFiles())
    return set(np.unique(values[valid]).tolist())


def _nearest(
    raster: RasterFile, grid: GridSpec, files: OpenFiles
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """(height, width) values of the nearest pixels, and where there are any."""
    values, valid = warp(raster, grid, files, resampling=Resampling.nearest)
    return values[0], valid
