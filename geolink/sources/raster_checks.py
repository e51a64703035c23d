"""What a raster file says of itself, with everything checked that can be wrong with it."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import rasterio.errors
from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError as ProjCRSError
from pyproj.exceptions import ProjError
from rasterio import DatasetReader
from rasterio.enums import ColorInterp, MaskFlags

from geolink.errors import CRSError, InputError
from geolink.grid import WGS84, utm_crs
from geolink.sources.base import SourceInfo
from geolink.sources.raster_files import (
    RasterFile,
    apply_affine,
    edge_of,
    open_raster,
    raster_name,
    read_errors_named,
    transformer,
)

logger = logging.getLogger(__name__)

_WANTED = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def describe(path: str, bands: tuple[int, ...] | None) -> tuple[list[RasterFile], SourceInfo]:
    """A raster's records and provenance, with everything checked that can be wrong with it.

    Args:
        path: as GDAL opens it.
        bands: one-based indexes of the bands to read; by default those that are RGB.

    Returns:
        The raster, once for each turn around the earth that it reaches into, and what it says of
        itself.

    Raises:
        InputError: no such file, not a raster, damaged, or not RGB.
        CRSError: it is not georeferenced.
    """
    name = raster_name(path)
    with _opened_for_checks(path) as dataset:
        crs = _checked_crs(dataset, name=name)
        chosen = _checked_bands(dataset, bands, name=name)
        dtype = _checked_dtype(dataset, chosen, name=name)
        steps, gsd = _ground_steps(dataset, crs, name=name)
        alpha = ColorInterp.alpha in dataset.colorinterp
        masked = alpha or dataset.mask_flag_enums[chosen[0] - 1] != [MaskFlags.all_valid]
        raster = RasterFile(
            path=path,
            crs=crs,
            transform=dataset.transform,
            height=dataset.height,
            width=dataset.width,
            bands=chosen,
            alpha=dataset.colorinterp.index(ColorInterp.alpha) + 1 if alpha else None,
            count=dataset.count,
            dtype=dtype,
            nodata=math.nan if dtype.startswith("float") and not masked else dataset.nodata,
            overviews=tuple(dataset.overviews(chosen[0])),
            steps_m=steps,
            gsd=gsd,
        )
        return _worlds(raster), _provenance(dataset, name=name)


def _worlds(raster: RasterFile) -> list[RasterFile]:
    """The raster, once for each range of longitudes -180 to 180 that it reaches into.

    Longitudes beyond 180 degrees name places that warping looks for 360 degrees away.
    """
    if not raster.crs.is_geographic:
        return [raster]
    lon = edge_of(raster)[0]
    first = math.floor((lon.min() + 180.0) / 360.0)
    end = math.ceil((lon.max() + 180.0) / 360.0)
    return [_turned(raster, turn) for turn in range(first, end)]


def _turned(raster: RasterFile, turns: int) -> RasterFile:
    """The raster with its longitudes counted from `turns` turns further east."""
    old = raster.transform
    return replace(
        raster, transform=Affine(old.a, old.b, old.c - 360.0 * turns, old.d, old.e, old.f)
    )


@contextmanager
def _opened_for_checks(path: str) -> Iterator[DatasetReader]:
    """The open dataset, with a clear error where it does not open."""
    with warnings.catch_warnings():
        # A missing georeference gets an error of ours.
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            dataset = open_raster(path)
        except (rasterio.errors.RasterioIOError, UnicodeDecodeError) as error:
            problem = "is not a raster that GDAL reads, or is damaged"
            if not Path(path).exists():
                problem = "does not exist; check the path"
            raise InputError(f"the image {path} {problem}") from error
        with dataset, read_errors_named(raster_name(path)):
            yield dataset


def _checked_crs(dataset: DatasetReader, *, name: str) -> CRS:
    """The CRS of a georeferenced dataset."""
    if dataset.crs is None and (dataset.gcps[0] or dataset.rpcs):
        raise CRSError(
            f"{name} is located by control points or RPCs only; rectify it first with gdalwarp"
        )
    if dataset.crs is None:
        raise CRSError(
            f"{name} has no coordinate reference system; assign one with gdal_edit -a_srs"
        )
    if dataset.transform.is_identity:
        raise CRSError(
            f"{name} has no position on the ground; give it one with gdal_edit -a_ullr, "
            "or a world file"
        )
    try:
        crs = CRS.from_wkt(dataset.crs.to_wkt())
    except ProjCRSError as error:
        raise CRSError(
            f"the coordinate reference system of {name} is unknown; assign one with "
            "gdal_edit -a_srs"
        ) from error
    if not (crs.is_geographic or crs.is_projected):
        raise CRSError(
            f"{name} is in the local system {crs.name}, which has no place on earth; "
            "assign another with gdal_edit -a_srs"
        )
    return crs


def _checked_bands(
    dataset: DatasetReader, bands: tuple[int, ...] | None, *, name: str
) -> tuple[int, ...]:
    """One-based indexes of the bands: as asked, or red, green and blue as named or alone."""
    if bands is not None:
        if not all(1 <= band <= dataset.count for band in bands):
            raise InputError(
                f"{name} has the bands 1 to {dataset.count}; choose of these, not {bands}"
            )
        return bands
    meaning = list(dataset.colorinterp)
    if all(colour in meaning for colour in _WANTED):
        red, green, blue = (meaning.index(colour) + 1 for colour in _WANTED)
        return red, green, blue
    if ColorInterp.palette in meaning:
        raise InputError(f"{name} has a colour table; expand it with gdal_translate -expand rgb")
    colours = [i for i, colour in enumerate(meaning, start=1) if colour != ColorInterp.alpha]
    if len(colours) < 3:
        raise InputError(
            f"{name} has {len(colours)} band(s) where RGB needs three; to use grey values, "
            "repeat one with bands 1,1,1"
        )
    if len(colours) > 3:
        raise InputError(
            f"{name} has {len(colours)} bands and does not say which are red, green and blue; "
            "choose three with bands, e.g. 3,2,1"
        )
    return colours[0], colours[1], colours[2]


def _checked_dtype(dataset: DatasetReader, bands: tuple[int, ...], *, name: str) -> str:
    """The real data type that the bands share."""
    dtypes = sorted({dataset.dtypes[band - 1] for band in bands})
    if len(dtypes) > 1 or "complex" in dtypes[0]:
        raise InputError(
            f"the bands of {name} hold {', '.join(dtypes)}; convert them to one real type with "
            "gdal_translate -ot"
        )
    return str(dtypes[0])


def _ground_steps(
    dataset: DatasetReader, crs: CRS, *, name: str
) -> tuple[tuple[float, float], float]:
    """Metres of a column step and of a row step at the centre, and the side of its pixel."""
    col, row = dataset.width / 2, dataset.height / 2
    corners = np.array([[col, row], [col + 1, row], [col, row + 1]]).T
    x, y = apply_affine(dataset.transform, corners[0], corners[1])
    try:
        lon, lat = transformer(crs, WGS84).transform(x, y)
    except ProjError:  # of a system that leads nowhere
        lon = lat = np.full(3, np.nan)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all() and abs(lat).max() <= 90):
        raise CRSError(
            f"the centre of {name} is no place on earth in {crs.name}; its coordinate reference "
            "system or position is wrong, so assign the right one with gdal_edit"
        )
    to_metres = transformer(WGS84, utm_crs(lon[0], lat[0]))
    points = np.stack(to_metres.transform(lon, lat))
    steps = points[:, 1:] - points[:, :1]
    width, height = np.hypot(*steps)
    side = math.sqrt(abs(np.linalg.det(steps)))
    # Seven digits remove the noise of projecting there and back: 0.5 m stays 0.5 m.
    return (float(width), float(height)), float(f"{side:.7g}")


def _provenance(dataset: DatasetReader, *, name: str) -> SourceInfo:
    """What the file says of itself."""
    tags = dataset.tags()
    date = dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME") or tags.get("TIFFTAG_DATETIME")
    return SourceInfo(
        description=name,
        date=_iso_date(date) if date else None,
        attribution=tags.get("TIFFTAG_COPYRIGHT"),
    )


def _iso_date(text: str) -> str | None:
    """An ISO 8601 date of GDAL's (ISO) or TIFF's (2024:05:31 10:20:30) spelling."""
    day, _, time = text.strip().replace("T", " ").partition(" ")
    try:
        return (
            datetime.fromisoformat(f"{day.replace(':', '-')} {time or '00:00'}").date().isoformat()
        )
    except ValueError:
        logger.info("the image's date %r is not understood and left out", text)
        return None
