"""The manifest of a set of shards: what is in it, where it comes from, what was left out."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any, Self

from geolink.errors import InputError
from geolink.files import atomic_path
from geolink.sources.entities import ENTITY_TYPES

MANIFEST = "manifest.json"
FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """A file of the set.

    Attributes:
        name: file name, beside the manifest.
        samples: number of samples.
        bytes: size of the file.
        sha256: hash of the file.
    """

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a set of shards holds.

    Attributes:
        version: of geolink, by which it was built.
        shards: the files, in order.
        gsd: number of samples by ground sampling distance, metres to two digits.
        objects: number of objects by type, in all samples together.
        sources: name, provenance of `imagery` and `osm` as `SourceInfo` names it, and number of
            OSM objects `left_out` by reason.
        dropped: number of tiles left out, by reason.
        key_counts: number of objects by tag key, spelt as count tables do, for keys that say
            what an object is.
        settings: what the set was built with.
        format: of this file.
    """

    version: str
    shards: tuple[Shard, ...]
    gsd: Mapping[str, int]
    objects: Mapping[str, int]
    sources: tuple[Mapping[str, Any], ...]
    dropped: Mapping[str, int]
    key_counts: Mapping[str, int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(shard.samples for shard in self.shards)

    @property
    def mean_objects(self) -> dict[str, float]:
        """Objects per sample, by type."""
        count = max(self.samples, 1)
        return {kind: self.objects.get(kind, 0) / count for kind in ENTITY_TYPES}

    @property
    def simulated(self) -> bool:
        """True where any of the imagery was rendered, not observed."""
        return any(source["imagery"].get("simulated") for source in self.sources)

    @property
    def observed(self) -> bool:
        """True where any of the imagery was observed, not rendered."""
        return not all(source["imagery"].get("simulated") for source in self.sources)

    def save(self, folder: Path) -> None:
        """Writes `manifest.json` into the folder of the shards, in one step."""
        plain = asdict(self) | {"samples": self.samples, "mean_objects": self.mean_objects}
        text = json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True)
        with atomic_path(folder / MANIFEST, overwrite=True) as temporary:
            temporary.write_bytes(text.encode() + b"\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads the manifest of a folder of shards.

        Raises:
            InputError: it is missing, damaged, of another format, or names no sample.
        """
        path = Path(folder) / MANIFEST
        try:
            return cls.parse(path.read_bytes(), where=str(folder))
        except FileNotFoundError as error:
            raise InputError(
                f"{folder} holds no {MANIFEST}; build the shards to the end"
            ) from error
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror})") from error

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """Reads the content of a manifest.

        Args:
            content: of the file.
            where: the set is, for messages.

        Raises:
            InputError: it is damaged, of another format, or names no sample.
        """
        try:
            manifest = cls._parse(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{where}/{MANIFEST} is damaged ({error!r}); build the shards again"
            ) from error
        if manifest.samples == 0:
            raise InputError(f"the shards in {where} hold no sample; build them from other data")
        return manifest

    @classmethod
    def _parse(cls, plain: Mapping[str, Any]) -> Self:
        if plain["format"] != FORMAT:
            raise ValueError(f"format {plain['format']!r} instead of {FORMAT}")
        return cls(
            version=str(plain["version"]),
            shards=tuple(_shard(shard) for shard in plain["shards"]),
            gsd=_counts(plain["gsd"]),
            objects=_counts(plain["objects"]),
            sources=tuple(_source(source) for source in plain["sources"]),
            dropped=_counts(plain["dropped"]),
            key_counts=_counts(plain["key_counts"]),
            settings=dict(plain["settings"]),
        )


def _shard(plain: Mapping[str, Any]) -> Shard:
    name = str(plain["name"])
    if PurePath(name).name != name or "\\" in name or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no file beside the manifest")
    digest = str(plain["sha256"])
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"{digest!r} is no SHA-256")
    return Shard(name, _count(plain["samples"]), _count(plain["bytes"]), digest)


def _source(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {**plain, "imagery": dict(plain["imagery"])}


def _counts(plain: Mapping[str, Any]) -> dict[str, int]:
    return {str(key): _count(value) for key, value in plain.items()}


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
