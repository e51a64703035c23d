"""What every source of pretraining pairs shares: candidates, and what makes one a sample."""

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geolink.errors import ConfigError
from geolink.sources.base import ImageTile, SourceInfo
from geolink.sources.shard_files import TileObjects, TileSample


@dataclass(frozen=True)
class Filters:
    """What a candidate must offer to become a sample.

    Attributes:
        min_objects: least number of OSM objects.
        min_contrast: least standard deviation of the liveliest band, in 8-bit grey levels; less
            is a blank image.
        max_nodata: greatest share of pixels without an image; they stay black.
    """

    min_objects: int = 1
    min_contrast: float = 2.0
    max_nodata: float = 0.05

    def __post_init__(self) -> None:
        if not (self.min_objects >= 0 and self.min_contrast >= 0 and 0 <= self.max_nodata <= 1):
            raise ConfigError(
                "the least number of objects and the least contrast are 0 or more, the greatest "
                f"share without data is 0 to 1; got {self.min_objects}, {self.min_contrast} and "
                f"{self.max_nodata}"
            )

    def refuse_objects(self, objects: TileObjects) -> "Rejection | None":
        """Why a tile with these objects is no sample; None where it is one."""
        few = len(objects) < self.min_objects
        return Rejection(f"less than {self.min_objects} OSM objects") if few else None

    def refuse_pixels(self, pixels: ImageTile) -> "Rejection | None":
        """Why a tile with these pixels is no sample; None where it is one."""
        if 1 - pixels.valid.mean() > self.max_nodata or not pixels.valid.any():
            return Rejection(f"more than {self.max_nodata:.0%} of the pixels without data")
        deviation = max(float(band[pixels.valid].std()) for band in pixels.rgb)
        return Rejection("blank image") if deviation < self.min_contrast else None


@dataclass(frozen=True)
class Rejection:
    """Why a candidate is no sample."""

    reason: str


@dataclass(frozen=True)
class Provenance:
    """Where the samples of one source come from.

    Attributes:
        imagery: provenance of the pixels.
        osm: provenance of the objects.
        left_out: number of OSM objects that could not be used, by reason.
    """

    imagery: SourceInfo
    osm: SourceInfo
    left_out: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


class PairSource(Protocol):
    """Numbered candidates for samples.

    Sources are small values that compare equal when they name the same data, and travel between
    processes; what they name is opened where it is read.
    """

    @property
    def name(self) -> str:
        """What the source is called in messages and manifests."""
        ...

    def files(self) -> list[Path]:
        """The files that decide what it gives."""
        ...

    def __len__(self) -> int:
        """Number of candidates."""
        ...

    def read(self, number: int, filters: Filters) -> TileSample | Rejection:
        """One candidate.

        Raises:
            InputError: its image or its OSM cannot be read.
        """
        ...

    def provenance(self) -> Provenance:
        """Where its images and objects come from."""
        ...


def sample_key(name: str, identity: str) -> str:
    """A key that is fit for file names, readable, and unique by what it stands for."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{slug}_{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"


def png(rgb: NDArray[np.uint8]) -> bytes:
    """(3, H, W) pixels as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()
