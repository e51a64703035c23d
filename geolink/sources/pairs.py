"""Finds the pairs of image and OSM objects that lie in folders, for pretraining."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyproj import CRS

from geolink.errors import ConfigError, InputError
from geolink.grid import WGS84, Bounds, reproject_bounds
from geolink.sources.base import SourceInfo
from geolink.sources.candidates import PairSource
from geolink.sources.osm_extents import best_covering, osm_extent, rectangle_around
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
    osm: str | Path | Sequence[str | Path] | None = None,
    *,
    gsd: Sequence[float] = (),
    side: int = TILE_SIDE,
) -> list[PairSource]:
    """The sources of pairs in a folder, or of one raster.

    Folders are searched through: pictures with a bounding box beside them (see `PicturePairs`)
    share sources, every georeferenced raster is one of its own.

    Args:
        imagery: a raster, or a folder of rasters and pictures.
        osm: OSM extracts or vector files, of which every image takes the one that covers most of
            it; pictures can do without, as they have files beside them.
        gsd: metres per pixel of the tiles cut from rasters, a set of tiles for each; by default
            the raster's own.
        side: height and width of these tiles, pixels.

    Raises:
        InputError: there is no image, or rasters have no OSM file.
    """
    close_scenes()
    root = Path(imagery)
    cover = _Cover.of(() if osm is None else [osm] if isinstance(osm, str | Path) else osm)
    if not root.exists():
        raise InputError(f"the imagery {root} does not exist; check the path")
    files = sorted(_files(root)) if root.is_dir() else [root]
    pictures = [file for file in files if _has_sidecar(file)]
    rasters = [f for f in files if f.suffix.lower() in RASTER_SUFFIXES and f not in set(pictures)]
    if not pictures and not rasters:
        raise InputError(
            f"{root} has no image; these are looked for: {', '.join(sorted(RASTER_SUFFIXES))}"
        )
    if rasters and not cover.files:
        raise InputError(f"no OSM data for the raster {rasters[0].name}; give an extract")
    folder = root if root.is_dir() else root.parent
    sources: list[PairSource] = [*_picture_pairs(pictures, folder, cover)]
    for metres in (gsd or (None,)) if rasters else ():
        named = {path: path.relative_to(folder).as_posix() for path in rasters}
        sources += _raster_pairs(named, cover, side, metres)
    if not sources:
        raise InputError(f"not one raster in {root} can be used; the warnings say why")
    return sources


def fetched_pairs(
    path: Path, osm: Path, *, name: str, info: SourceInfo, gsd: Sequence[float], side: int
) -> list[PairSource]:
    """The pairs of imagery that was fetched for the area of an OSM file.

    Args:
        path: the raster, or a folder of rasters that make one image.
        osm: the extract or vector file.
        name: what the image is called.
        info: its provenance.
        gsd: metres per pixel of the tiles, a set of tiles for each; by default the image's own.
        side: height and width of the tiles, pixels.
    """
    close_scenes()
    return [
        RasterPairs(path, osm, side, metres, label=name, info=info) for metres in gsd or (None,)
    ]


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
    """Whether a file is a picture with a record beside it, however damaged."""
    return file.suffix.lower() in PICTURE_SUFFIXES and file.with_suffix(".json").is_file()


@dataclass(frozen=True)
class _Cover:
    """OSM files and where they lie, which is asked for only where there are several."""

    files: tuple[Path, ...]
    extents: tuple[Bounds, ...]

    @classmethod
    def of(cls, osm: Iterable[str | Path]) -> "_Cover":
        files = tuple(dict.fromkeys(map(Path, osm)))
        if missing := [path for path in files if not path.exists()]:
            raise InputError(f"the OSM file {missing[0]} does not exist; check the path")
        return cls(files, tuple(map(osm_extent, files)) if len(files) > 1 else ())

    def file_for(self, degrees: Bounds) -> Path | None:
        """The file that covers most of an area; None where there is none."""
        if not self.extents:
            return next(iter(self.files), None)
        best = best_covering(degrees, self.extents)
        return None if best is None else self.files[best]


def _picture_pairs(pictures: Sequence[Path], folder: Path, cover: _Cover) -> Iterator[PicturePairs]:
    """The pictures of each OSM file; those without one have theirs beside them."""
    by_file: defaultdict[Path | None, list[str]] = defaultdict(list)
    for picture in pictures:
        sidecar = read_sidecar(picture)
        osm = cover.file_for(sidecar.bounds) if sidecar else None
        by_file[osm].append(picture.relative_to(folder).as_posix())
    for osm, names in by_file.items():
        for start in range(0, len(names), _PICTURES_AT_ONCE):
            yield PicturePairs(folder, tuple(names[start : start + _PICTURES_AT_ONCE]), osm)


def _raster_pairs(
    rasters: Mapping[Path, str], cover: _Cover, side: int, gsd: float | None
) -> list[RasterPairs]:
    """One source per raster; those of one OSM file and UTM zone read OSM for their common area."""
    sources: list[RasterPairs] = []
    for path, name in rasters.items():
        try:
            sources.append(_raster_source(path, name, cover, side, gsd))
        except InputError as error:
            if len(rasters) == 1:
                raise
            logger.warning("left out: %s", error)
    zones: defaultdict[tuple[Path, CRS], list[Bounds]] = defaultdict(list)
    for source in sources:
        zones[source.osm, source.grid.crs].append(source.grid.bounds)
    areas = {zone: _common_area(bounds) for zone, bounds in zones.items()}
    return [replace(source, area=areas[source.osm, source.grid.crs]) for source in sources]


def _raster_source(
    path: Path, name: str, cover: _Cover, side: int, gsd: float | None
) -> RasterPairs:
    """A raster with the OSM file that covers it.

    Raises:
        InputError: the raster cannot be used, or no OSM file covers it.
    """
    source = RasterPairs(path, cover.files[0], side, gsd, label=name)
    osm = cover.file_for(reproject_bounds(source.grid.bounds, source.grid.crs, WGS84))
    if osm is None:
        raise InputError(f"none of the OSM files covers the raster {name}; add one that does")
    return replace(source, osm=osm)


def _common_area(bounds: Sequence[Bounds]) -> Bounds | None:
    """The rectangle around several; None where most of it lies between them."""
    whole = rectangle_around(bounds)
    covered = sum(part.width * part.height for part in bounds)
    return whole if whole.width * whole.height <= _SCATTERED * covered else None
