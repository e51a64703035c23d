"""What a prediction is asked for, checked before any work is done."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geolink.errors import ConfigError

# The settings that decide what the map shows.
SHAPING = (
    "city",
    "bbox",
    "aoi",
    "imagery",
    "osm",
    "model",
    "bands",
    "gsd",
    "overlap",
    "min_zone_area_m2",
    "seed",
)
SPECS = ("aoi", "imagery", "osm", "model")  # those that may be files


@dataclass(frozen=True)
class PredictRequest:
    """One prediction: a place or a raster, the sources, and the outputs.

    Attributes:
        city, bbox, aoi: the place; at most one. Without any, the raster's own footprint.
        imagery: a raster, VRT or folder, or `simulated`.
        osm: an `.osm.pbf` or a vector file with tags, or `none`.
        model: a bundled name, run folder or weights file.
        bands: numbers of the red, green and blue band, from 1.
        out: GeoPackage to write; the place's name in the current folder by default.
        raster, probabilities, preview: further outputs, where named.
        gsd: metres per pixel; by default the raster's own, as far as the model supports it.
        overlap: share of a tile that it has in common with its neighbour, 0-0.5.
        batch_size: tiles per call of the model; it does not change the result.
        workers: threads that prepare tiles; they do not change the result.
        min_zone_area_m2: smaller zones join their neighbour.
        resume: go on with an interrupted run of the same request.
        device: `auto`, `cuda`, `mps` or `cpu`.
        overwrite: replace existing outputs.
        seed: seed of simulated imagery.
    """

    city: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    aoi: Path | None = None
    imagery: str | Path | None = None
    osm: str | Path | None = None
    model: str | Path = "geolink-tiny"
    bands: tuple[int, int, int] | None = None
    out: Path | None = None
    raster: Path | None = None
    probabilities: Path | None = None
    preview: Path | None = None
    gsd: float | None = None
    overlap: float = 0.25
    batch_size: int = 8
    workers: int = 2
    min_zone_area_m2: float = 500.0
    resume: bool = True
    device: str = "auto"
    overwrite: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("aoi", "out", "raster", "probabilities", "preview"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        if sum(place is not None for place in (self.city, self.bbox, self.aoi)) > 1:
            raise ConfigError("give one place only: a city, a bounding box or an area file")
        if not 0 <= self.overlap <= 0.5:
            raise ConfigError(f"the overlap is a share between 0 and 0.5, got {self.overlap}")
        if self.gsd is not None and not (math.isfinite(self.gsd) and self.gsd > 0):
            raise ConfigError(f"the ground sampling distance must be positive, got {self.gsd}")
        if self.batch_size < 1 or self.workers < 0 or not self.min_zone_area_m2 >= 0:
            raise ConfigError("batch size must be 1 or more; workers and zone area 0 or more")
        if self.out is not None and self.out.suffix.lower() != ".gpkg":
            raise ConfigError(f"the map is a GeoPackage: end its name {self.out.name} in .gpkg")
        written = [p for p in (self.out, self.raster, self.probabilities, self.preview) if p]
        if len({p.absolute() for p in written}) < len(written):
            raise ConfigError("two outputs have the same name; give each a file of its own")

    def record(self) -> dict[str, Any]:
        """The settings that shape the map, as plain JSON data for its metadata.

        How it is computed (batch size, workers, ...) and where it goes are left out: the same map
        has the same metadata. Files are named without their folders, which are nobody's business.
        """
        settings = {
            name: getattr(self, name) for name in SHAPING if getattr(self, name) is not None
        }
        named = {name: Path(settings[name]).name for name in SPECS if name in settings}
        return settings | named
