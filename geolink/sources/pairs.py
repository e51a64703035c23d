"""Finds the pairs of image and OSM objects that lie in folders, for pretraining."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pyproj import CRS

from geolink.errors import ConfigError, InputError
from geolink.grid import Bounds
from geolink.sources.candidates import PairSource
from geolink.sources.picture_pairs import PICTURE_SUFFIXES, PicturePairs, read_sidecar
from geolink.sources.scene_pairs import (
    SIMULATED_GSD,
    TILE_SIDE,
    RasterPairs,
    SimulatedPairs,
    close_scenes,
)

logger = logging.getLogger(__name__)

# Files that are taken for rasters; pictures without a bounding box may be rasters, too.
RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img"}) | PICTURE_SUFFIXES

_PICTURES_AT_ONCE = 1000  # in one source, so that it stays cheap to send
# Rasters read OSM together unless they lie so scattered that most of their common area is empty.
_SCATTERED = 4.0


def find_pairs(
    imagery: str | Path,
    osm: str | Path | None = None,
    *,
    gsd: Sequence[float] = (),
    side: int = TILE_SIDE,
) -> list[PairSource]:
    """The sources of pairs in a folder, or of one raster.

    Folders are searched through: pictures with a bounding box beside them (see `PicturePairs`)
    share sources, every georeferenced raster is one of its own.

    Args:
        imagery: a raster, or a folder of rasters and pictures.
        osm: OSM extract or vector file; pictures can do without, as they have files beside them.
        gsd: metres per pixel of the tiles cut from rasters, a set of tiles for each; by default
            the raster's own.
        side: height and width of these tiles, pixels.

    Raises:
        InputError: there is no image, or rasters have no OSM file.
    """
    close_scenes()
    root, extract = Path(imagery), None if osm is None else Path(osm)
    if not root.exists():
        raise InputError(f"the imagery {root} does not exist; check the path")
    if extract is not None and not extract.exists():
        raise InputError(f"the OSM file {extract} does not exist; check the path")
    files = sorted(_files(root)) if root.is_dir() else [root]
    pictures = [file for file in files if _has_sidecar(file)]
    rasters = [f for f in files if f.suffix.lower() in RASTER_SUFFIXES and f not in set(pictures)]
    if not pictures and not rasters:
        raise InputError(
            f"{root} has no image; these are looked for: {', '.join(sorted(RASTER_SUFFIXES))}"
        )
    sources: list[PairSource] = []
    if pictures:
        folder = root if root.is_dir() else root.parent
        names = [file.relative_to(folder).as_posix() for file in pictures]
        sources += [
            PicturePairs(folder, tuple(names[i : i + _PICTURES_AT_ONCE]), extract)
            for i in range(0, len(names), _PICTURES_AT_ONCE)
        ]
    if rasters and extract is None:
        raise InputError(f"no OSM data for the raster {rasters[0].name}; give an extract")
    if rasters and extract is not None:
        for metres in gsd or (None,):
            sources += _raster_pairs(rasters, extract, side, metres)
    return sources


def simulated_pairs(
    extracts: Iterable[str | Path],
    *,
    seeds: Sequence[int] = (0,),
    gsd: Sequence[float] = (),
    side: int = TILE_SIDE,
    limit: int | None = None,
) -> list[PairSource]:
    """Simulated orthophotos over OSM extracts: each extract in each ground sampling distance.

    Args:
        extracts: OSM extracts (`.osm.pbf`).
        seeds: one look (season, light, camera) for each.
        gsd: metres per pixel, 1 by default.
        side: height and width of a tile, pixels.
        limit: greatest number of tiles per extract, look and ground sampling distance.

    Raises:
        InputError: an extract does not exist.
        ConfigError: there is no extract or seed, or a number is not positive.
    """
    close_scenes()
    paths = list(dict.fromkeys(map(Path, extracts)))
    if not paths or not seeds or min(seeds) < 0 or (limit is not None and limit < 1):
        raise ConfigError("simulated pairs need an extract, seeds from 0, and a limit from 1")
    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"the OSM file {missing[0]} does not exist; check the path")
    return [
        SimulatedPairs(path, tuple(dict.fromkeys(seeds)), side, metres, limit)
        for path in paths
        for metres in gsd or (SIMULATED_GSD,)
    ]


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, hidden ones and folders left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _has_sidecar(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_SUFFIXES and read_sidecar(file) is not None


def _raster_pairs(
    rasters: Sequence[Path], osm: Path, side: int, gsd: float | None
) -> list[RasterPairs]:
    """One source per raster; those of one UTM zone read OSM for their common area."""
    sources: list[RasterPairs] = []
    zones: defaultdict[CRS, list[Bounds]] = defaultdict(list)
    for path in rasters:
        source = RasterPairs(path, osm, side, gsd)
        try:
            zones[source.grid.crs].append(source.grid.bounds)
        except InputError as error:
            if len(rasters) == 1:
                raise
            logger.warning("left out: %s", error)
            continue
        sources.append(source)
    areas = {crs: _common_area(bounds) for crs, bounds in zones.items()}
    return [replace(source, area=areas[source.grid.crs]) for source in sources]


def _common_area(bounds: Sequence[Bounds]) -> Bounds | None:
    """The rectangle around several; None where most of it lies between them."""
    edges = np.array(bounds)
    around = Bounds(*edges[:, :2].min(axis=0).tolist(), *edges[:, 2:].max(axis=0).tolist())
    covered = sum(part.width * part.height for part in bounds)
    return around if around.width * around.height <= _SCATTERED * covered else None
