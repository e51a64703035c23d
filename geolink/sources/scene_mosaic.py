"""Scenes on a server, laid over one another: each pixel is of the first scene that is clear there.

Scenes are read by window straight from their cloud-optimised files, by GDAL over HTTP and with the
same warping as local rasters: what is fetched is what would be read from the downloaded scenes,
masks and overviews included, whatever the catalogue says or does not say of their projection.
"""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import Resampling
from shapely.geometry.base import BaseGeometry

from geolink.errors import InputError, UnavailableError
from geolink.grid import WGS84, GridSpec, reproject
from geolink.sources.base import SourceInfo
from geolink.sources.chunks import Pixels
from geolink.sources.network import CONNECT_S, USER_AGENT, Network
from geolink.sources.raster_checks import describe
from geolink.sources.raster_files import REMOTE, RasterFile
from geolink.sources.warping import OpenFiles, warp

# Of Sentinel-2's scene classification: all but no data, defects, cloud shadow, cloud and cirrus.
_CLEAR_CLASSES = (2, 4, 5, 6, 7, 11)
_LAYERS = 8.0  # scenes looked at for one chunk; a scene over half of it counts half
_EMPTY, _UNCLEAR, _CLEAR = 0, 1, 2  # what a pixel has so far

T = TypeVar("T")

Values = NDArray[np.generic]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One image of a catalogue.

    Attributes:
        name: its id.
        day: of acquisition, ISO 8601.
        cloud: share of clouds, per cent; 0 where unknown.
        footprint: EPSG:4326.
        assets: addresses of the file with RGB, or of those with red, green and blue.
        classes: address of the scene classification, None where every valid pixel is clear.
    """

    name: str
    day: str
    cloud: float
    footprint: BaseGeometry
    assets: tuple[str, ...]
    classes: str | None = None


@dataclass(frozen=True)
class Credit:
    """What must be said of images made of scenes.

    Attributes:
        title: the collection in words.
        licence: SPDX id or short name.
        attribution: the credit line; `{years}` stands for the years of the scenes.
    """

    title: str
    licence: str | None
    attribution: str | None

    def info(self, days: Sequence[str]) -> SourceInfo:
        """Provenance of an image made of scenes of these days (ISO 8601)."""
        first, last = min(days), max(days)
        years = first[:4] if first[:4] == last[:4] else f"{first[:4]}-{last[:4]}"
        return SourceInfo(
            description=self.title,
            date=first if first == last else f"{first}/{last}",
            licence=self.licence,
            attribution=self.attribution and self.attribution.replace("{years}", years),
        )


class SceneMosaic:
    """Pixels of many scenes.

    A pixel is of the first scene that is clear there. Where none is, it is of the first scene
    that has data there, however cloudy; where none has data, it stays empty.

    Args:
        scenes: in order of preference.
        credit: for all of them.
        network: how patient to be.
    """

    workers = 4

    def __init__(self, scenes: Sequence[Scene], credit: Credit, network: Network) -> None:
        self.scenes = tuple(scenes)
        self._credit = credit
        self._network = network
        self._options = _gdal_options(network)
        self._footprints = np.array([scene.footprint for scene in scenes], dtype=object)
        self._files = OpenFiles()
        self._rasters: dict[str, list[RasterFile]] = {}
        self._lock = threading.Lock()

    def prepare(self, folder: object) -> None:
        """Nothing: chunks share no files."""

    def info(self, scenes: Sequence[str]) -> SourceInfo:
        """Provenance of an image made of the scenes with these ids."""
        return self._credit.info([scene.day for scene in self.scenes if scene.name in scenes])

    def gsd(self, scene: Scene) -> float:
        """Ground sampling distance of a scene, metres.

        Raises:
            UnavailableError: it cannot be read.
        """
        with rasterio.Env(**self._options), _failures_named(scene, scene.assets[0]):
            return self._described(scene, scene.assets[0], _bands(scene))[0].gsd

    def read(self, grid: GridSpec) -> Pixels:
        """Pixels of `grid`, of the scenes' own data type.

        Raises:
            UnavailableError: a scene cannot be read, or is not what it should be.
        """
        canvas = _Canvas(grid)
        outline = reproject(shapely.segmentize(shapely.box(*grid.bounds), 1000.0), grid.crs, WGS84)
        shares = shapely.area(shapely.intersection(self._footprints, outline))
        shares /= shapely.area(outline)
        looked = 0.0
        with rasterio.Env(**self._options):
            for index in np.flatnonzero(shares > 0.0):
                self._lay(canvas, self.scenes[index], int(index))
                looked += shares[index]
                if canvas.complete or looked >= _LAYERS:
                    break
        return canvas.pixels([scene.name for scene in self.scenes])

    def _lay(self, canvas: "_Canvas", scene: Scene, index: int) -> None:
        """Puts a scene below what is on the canvas."""
        clear: Mask | None = None
        if scene.classes is not None:
            classes, known = self._layer(
                scene, scene.classes, canvas.grid, bands=(1,), resampling=Resampling.nearest
            )
            clear = known & np.isin(classes[0], _CLEAR_CLASSES)
            if not canvas.wants(clear):
                return
        bands = _bands(scene)
        layers = [self._layer(scene, address, canvas.grid, bands=bands) for address in scene.assets]
        values = np.concatenate([layer for layer, _ in layers])
        valid = np.logical_and.reduce([mask for _, mask in layers])
        canvas.put(values, valid, valid if clear is None else valid & clear, index)

    def _layer(
        self,
        scene: Scene,
        address: str,
        grid: GridSpec,
        *,
        bands: tuple[int, ...] | None,
        resampling: Resampling | None = None,
    ) -> tuple[Values, Mask]:
        """Values (bands, height, width) of one file, and where they are valid."""
        with _failures_named(scene, address):
            rasters = self._described(
                scene, address, bands
            )  # two where it crosses the antimeridian
            values = np.zeros((len(rasters[0].bands), *grid.shape), dtype=rasters[0].dtype)
            valid = np.zeros(grid.shape, dtype=bool)
            for raster in rasters:
                if raster.meets(grid):
                    read = partial(warp, raster, grid, self._files, resampling=resampling)
                    more, found = self._patiently(scene, address, read)
                    found &= ~valid
                    values[:, found] = more[:, found]
                    valid |= found
        return values, valid

    def _described(
        self, scene: Scene, address: str, bands: tuple[int, ...] | None
    ) -> list[RasterFile]:
        """Records of a file, made once; one at a time, since checks silence warnings globally."""
        with self._lock:
            if address not in self._rasters:
                read = partial(describe, REMOTE + address, bands)
                self._rasters[address], _ = self._patiently(scene, address, read)
            return self._rasters[address]

    def _patiently(self, scene: Scene, address: str, read: Callable[[], T]) -> T:
        """What `read` returns; where it fails, its server says when to try again.

        GDAL does not hear for how long a busy server wants to be left alone, nor tell why it could
        not read a block. Our network asks for one byte: it waits as it is told, and says what is
        wrong.
        """
        for _ in range(self._network.retries):
            try:
                return read()
            except InputError as error:
                if error.__cause__ is None:  # it was read, and is of no use
                    raise
            self._files.forget()
            head = {"Range": "bytes=0-0"}
            with self._network.open(address, what=f"the scene {scene.name}", headers=head):
                pass
        return read()


class _Canvas:
    """One chunk while scenes are laid on it from the best to the least."""

    def __init__(self, grid: GridSpec) -> None:
        self.grid = grid
        self._values: Values = np.zeros((3, *grid.shape), dtype=np.uint8)
        self._state = np.full(grid.shape, _EMPTY, dtype=np.uint8)
        self._origin = np.zeros(grid.shape, dtype=np.int32)

    @property
    def complete(self) -> bool:
        """True where nothing can be gained any more."""
        return bool((self._state == _CLEAR).all())

    def wants(self, clear: Mask) -> bool:
        """True where a scene that is clear there may give a pixel that is missing or unclear."""
        return bool((self._state == _EMPTY).any() or (clear & (self._state == _UNCLEAR)).any())

    def put(self, values: Values, valid: Mask, clear: Mask, index: int) -> None:
        """Takes what is better than what is there; `clear` is a part of `valid`."""
        if not self._state.any():
            self._values = np.zeros_like(values)
        elif values.dtype != self._values.dtype:
            raise UnavailableError(
                f"the scenes hold {self._values.dtype} and {values.dtype}, which do not fit "
                "together; choose another asset"
            )
        better = (clear & (self._state != _CLEAR)) | (valid & (self._state == _EMPTY))
        self._values[:, better] = values[:, better]
        self._origin[better] = index
        self._state[better] = np.where(clear, _CLEAR, _UNCLEAR)[better]

    def pixels(self, names: Sequence[str]) -> Pixels:
        """What is on it; `names` are those of the scenes by index."""
        valid = self._state != _EMPTY
        used = np.unique(self._origin[valid])
        return Pixels(self._values, valid, tuple(names[index] for index in used))


def _bands(scene: Scene) -> tuple[int, ...] | None:
    """Bands to read of each file: those that are RGB, or the only one of three."""
    return None if len(scene.assets) == 1 else (1,)


def _gdal_options(network: Network) -> dict[str, object]:
    """Settings of GDAL for files on servers: few small requests, patience, nothing left behind."""
    return {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no looking for side files
        "GDAL_INGESTED_BYTES_AT_OPEN": 32768,  # the header in one request
        "GDAL_NUM_THREADS": 2,  # makes the driver ask for all blocks of a window, and only these
        "GDAL_HTTP_USERAGENT": USER_AGENT,
        "GDAL_HTTP_CONNECTTIMEOUT": round(CONNECT_S),
        "GDAL_HTTP_LOW_SPEED_TIME": max(round(network.timeout_s), 1),
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1,  # byte per second
        "GDAL_HTTP_MAX_RETRY": network.retries,
        "GDAL_HTTP_RETRY_DELAY": 0.5,
        "GDAL_HTTP_RETRY_CODES": "500,502,504",  # the others say when to come back
        "CPL_VSIL_CURL_NON_CACHED": REMOTE,  # failures are not remembered
    }


@contextmanager
def _failures_named(scene: Scene, address: str) -> Iterator[None]:
    """What goes wrong with a file on a server, as one sentence without the address's query."""
    try:
        yield
    except InputError as error:
        host = urlsplit(address).netloc.rpartition("@")[2]
        if error.__cause__ is None:  # it was read, and is of no use, perhaps since it was cut
            raise UnavailableError(
                f"the scene {scene.name} cannot be used: {error} (as {host} sent it)"
            ) from error
        raise UnavailableError(
            f"the scene {scene.name} cannot be read from {host}: {_reason(error)}; run the same "
            "command again, which goes on where it stopped"
        ) from error


def _reason(error: BaseException | None) -> str:
    """Why GDAL could not read a file on a server."""
    reason = "the file breaks off or is damaged"
    while error is not None:
        if status := re.search(r"response code: (\d{3})", str(error)):
            return f"it answers {status[1]}"
        if "not recognized" in str(error):
            reason = "it is silent, or sends something else than a GeoTIFF"
        error = error.__cause__
    return reason
