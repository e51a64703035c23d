"""What a workflow is asked for, checked before any work is done."""

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from geolink.errors import ConfigError
from geolink.sources.network import without_secrets

# The settings that decide what the map shows.
SHAPING = (
    "city",
    "bbox",
    "aoi",
    "boundary",
    "imagery",
    "osm",
    "model",
    "bands",
    "gsd",
    "overlap",
    "min_zone_area_m2",
    "seed",
)
_SCHEDULER = re.compile(r"(tcp|tls)://([\w.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
SPECS = ("aoi", "imagery", "osm", "model")  # those that may be files


@dataclass(frozen=True)
class SourceRequest:
    """A place and the sources that cover it.

    Attributes:
        city, bbox, aoi: the place: a name, west, south, east, north in degrees, or a file.
        boundary: name of an administrative boundary within the city, which is then the place.
        imagery: a raster, VRT or folder, `sentinel2[:START/END]`, `stac:...`, `xyz:...`, or
            `simulated`; by default what the cache has of the place, else `sentinel2`.
        osm: an `.osm.pbf` or a vector file with tags, `overpass` for a small place, or `none`; by
            default the extract that covers the place.
        model: a bundled name, run folder, weights file, `hf:...`, an address, or `gdrive:...`.
        bands: numbers of the red, green and blue band, from 1.
        gsd: metres per pixel; by default the imagery's own.
        accept_imagery_terms: note of the licence of map tiles, which they must have.
        offline: use nothing but what is here.
        overwrite: replace what exists.
    """

    city: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    aoi: Path | None = None
    boundary: str | None = None
    imagery: str | Path | None = None
    osm: str | Path | None = None
    model: str | Path = "geolink-tiny"
    bands: tuple[int, int, int] | None = None
    gsd: float | None = None
    accept_imagery_terms: str | None = None
    offline: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.aoi is not None:
            object.__setattr__(self, "aoi", Path(self.aoi))
        if self.boundary is not None and self.city is None:
            raise ConfigError("a boundary lies within a city: name the city too, with --city")
        if self.gsd is not None and not (math.isfinite(self.gsd) and self.gsd > 0):
            raise ConfigError(f"the ground sampling distance must be positive, got {self.gsd}")

    @property
    def names_a_place(self) -> bool:
        """True unless the place is that of the imagery."""
        return any(place is not None for place in (self.city, self.bbox, self.aoi))


@dataclass(frozen=True)
class PredictRequest(SourceRequest):
    """One prediction: a place or a raster, the sources, and the outputs.

    Attributes:
        out: GeoPackage to write; the place's name in the current folder by default.
        raster, probabilities: further outputs, where named.
        preview: a picture of the map (`.png`), or an interactive page (`.html`), where named.
        overlap: share of a tile that it has in common with its neighbour, 0-0.5.
        batch_size: tiles per call of the model; it does not change the result.
        workers: threads that prepare tiles; they do not change the result.
        processes: prepare tiles in processes instead of threads, where a GPU waits for them.
        min_zone_area_m2: smaller zones join their neighbour.
        resume: go on with an interrupted run of the same request.
        device: `auto`, `cuda`, `mps` or `cpu`.
        seed: seed of simulated imagery.
        scheduler: a dask scheduler, whose workers score the tiles; `tcp://HOST:PORT` or `tls://...`.
    """

    out: Path | None = None
    raster: Path | None = None
    probabilities: Path | None = None
    preview: Path | None = None
    overlap: float = 0.25
    batch_size: int = 8
    workers: int = 2
    processes: bool = False
    min_zone_area_m2: float = 500.0
    resume: bool = True
    device: str = "auto"
    seed: int = 0
    scheduler: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("out", "raster", "probabilities", "preview"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        if sum(place is not None for place in (self.city, self.bbox, self.aoi)) > 1:
            raise ConfigError("give one place only: a city, a bounding box or an area file")
        if not 0 <= self.overlap <= 0.5:
            raise ConfigError(f"the overlap is a share between 0 and 0.5, got {self.overlap}")
        if self.processes and self.workers == 0:
            raise ConfigError("processes need workers: give one or more, or leave tiles to threads")
        if self.batch_size < 1 or self.workers < 0 or not self.min_zone_area_m2 >= 0:
            raise ConfigError("batch size must be 1 or more; workers and zone area 0 or more")
        if self.scheduler is not None and not _SCHEDULER.fullmatch(self.scheduler):
            raise ConfigError(
                f"the scheduler {self.scheduler!r} is no address; write tcp://HOST:8786, or "
                "tls://HOST:8786"
            )
        if self.out is not None and self.out.suffix.lower() != ".gpkg":
            raise ConfigError(f"the map is a GeoPackage: end its name {self.out.name} in .gpkg")
        if self.preview is not None and self.preview.suffix.lower() not in (".png", ".html"):
            raise ConfigError(
                f"the preview is a picture or a page: end its name {self.preview.name} in .png or "
                ".html"
            )
        written = [p for p in (self.out, self.raster, self.probabilities, self.preview) if p]
        if len({p.absolute() for p in written}) < len(written):
            raise ConfigError("two outputs have the same name; give each a file of its own")

    def record(self) -> dict[str, Any]:
        """The settings that shape the map, as plain JSON data for its metadata.

        How it is computed (batch size, workers, ...) and where it goes are left out: the same map
        has the same metadata. Files are named without their folders, which are nobody's business,
        and addresses without their secrets.
        """
        settings = {
            name: getattr(self, name) for name in SHAPING if getattr(self, name) is not None
        }
        return settings | {name: public_spec(settings[name]) for name in SPECS if name in settings}


@dataclass(frozen=True)
class FetchRequest(SourceRequest):
    """What `fetch` brings into the cache: what `predict` with the same settings needs.

    With a city, local imagery and OSM are registered under its name; a box or an area file beside
    it is the area that the name then stands for.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bbox is not None and self.aoi is not None:
            raise ConfigError("give one area only: a bounding box or an area file")
        if self.boundary is not None and (self.bbox or self.aoi) is not None:
            raise ConfigError("give one area only: a boundary, a bounding box or an area file")

    @property
    def is_empty(self) -> bool:
        """True where nothing is asked for."""
        return all(getattr(self, field.name) == field.default for field in fields(self))


def public_spec(spec: str | Path) -> str:
    """A specification as others may read it: a file's name, an address without secrets."""
    text = str(spec)
    return without_secrets(text) if "://" in text or ":" in text[2:] else Path(text).name
