"""One shard from a run of candidates: read, filter, write, and account for every one of them."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import shapely

from geolink.errors import InputError
from geolink.files import atomic_path, replace_bytes, sha256_of
from geolink.sources.candidates import Filters, PairSource, Rejection
from geolink.sources.entities import ENTITY_TYPES
from geolink.sources.manifest import Manifest, Shard
from geolink.sources.semantic_keys import is_closed, semantic_keys
from geolink.sources.shard_files import TileSample, write_shard

logger = logging.getLogger(__name__)


@dataclass
class Tally:
    """What became of candidates.

    Attributes:
        gsd: number of samples by ground sampling distance, metres to two digits.
        objects: number of objects by type.
        key_counts: number of objects by tag key, spelt as count tables do.
        closed_counts: number of those whose value is of a closed vocabulary.
        dropped: number of candidates left out, by reason.
        sources: provenance of those sources that gave samples, by name.
    """

    gsd: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    key_counts: Counter[str] = field(default_factory=Counter)
    closed_counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, sample: TileSample) -> None:
        """Counts a sample."""
        self.gsd[f"{sample.meta['gsd']:.2g}"] += 1
        kinds = Counter(shapely.get_dimensions(sample.objects.geometry).tolist())
        self.objects.update({ENTITY_TYPES[kind]: count for kind, count in kinds.items()})
        for tags in sample.objects.tags:
            for key, value in tags.items():
                name = key.replace(":", " ")  # `addr:street` is `addr street` in count tables
                self.key_counts[name] += 1
                self.closed_counts[name] += is_closed(value)

    @property
    def semantic_keys(self) -> dict[str, int]:
        """The part of `key_counts` that says what an object is, the weights of the semantics."""
        return semantic_keys(self.key_counts, self.closed_counts)

    def merge(self, other: Self) -> None:
        """Adds another tally to this one."""
        self.gsd.update(other.gsd)
        self.objects.update(other.objects)
        self.key_counts.update(other.key_counts)
        self.closed_counts.update(other.closed_counts)
        self.dropped.update(other.dropped)
        self.sources.update(other.sources)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """The inverse of `vars`, for a tally."""
        names = (table.name for table in fields(cls) if table.name != "sources")
        counts = {name: Counter(plain[name]) for name in names}
        return cls(**counts, sources=dict(plain["sources"]))


def collect(
    runs: Iterable[tuple[PairSource, Iterable[int]]], filters: Filters
) -> tuple[list[TileSample], Tally]:
    """The samples among some candidates, and an account of all of them.

    Args:
        runs: sources with the numbers of their candidates.
        filters: what a candidate must offer.

    Raises:
        InputError: a source cannot be opened; a candidate that cannot be read is counted.
    """
    samples: dict[str, TileSample] = {}
    tally = Tally()
    for source, numbers in runs:
        provenance = source.provenance().to_dict()
        for number in numbers:
            found = _read(source, number, filters)
            if isinstance(found, Rejection):
                tally.dropped[found.reason] += 1
            elif found.key in samples:
                tally.dropped["the same place twice"] += 1
            else:
                samples[found.key] = found
                tally.add(found)
                tally.sources[source.name] = provenance
    return list(samples.values()), tally


def _read(source: PairSource, number: int, filters: Filters) -> TileSample | Rejection:
    try:
        return source.read(number, filters)
    except (InputError, OSError) as error:
        logger.warning("left out candidate %d of %s: %s", number, source.name, error)
        return Rejection("unreadable image or OSM")


# --- parts of a set -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What becomes one shard: runs of candidates of one or several sources.

    Attributes:
        number: of the shard.
        runs: sources with the numbers of their candidates.
        filters: what a candidate must offer.
    """

    number: int
    runs: tuple[tuple[PairSource, range], ...]
    filters: Filters

    @property
    def name(self) -> str:
        """File name of the shard."""
        return f"shard-{self.number:06d}.tar"


@dataclass(frozen=True)
class PartRecord:
    """What became of a part; `shard` is None where no candidate was a sample."""

    shard: Shard | None
    tally: Tally


def plan_parts(sources: Sequence[PairSource], size: int, filters: Filters) -> list[Part]:
    """Cuts the candidates of all sources, one after the other, into parts of `size`."""
    parts: list[Part] = []
    runs: list[tuple[PairSource, range]] = []
    room = size
    for source in sources:
        start, count = 0, len(source)
        while start < count:
            stop = min(start + room, count)
            runs.append((source, range(start, stop)))
            room -= stop - start
            start = stop
            if room == 0:
                parts.append(Part(len(parts), tuple(runs), filters))
                runs, room = [], size
    return [*parts, Part(len(parts), tuple(runs), filters)] if runs else parts


def build_part(part: Part, folder: Path, records: Path) -> PartRecord:
    """Writes the shard of a part, then its record, each in one step.

    Raises:
        OutputError: the disk is full or read-only.
    """
    samples, tally = collect(part.runs, part.filters)
    shard = _write(folder / part.name, samples) if samples else None
    record = PartRecord(shard, tally)
    plain = {"shard": shard and asdict(shard), "tally": vars(tally)}
    replace_bytes(records / f"{part.name}.json", json.dumps(plain).encode())
    return record


def load_record(part: Part, folder: Path, records: Path) -> PartRecord | None:
    """The record of a part that is built; None where it has to be built (again)."""
    try:
        plain = json.loads((records / f"{part.name}.json").read_bytes())
        shard = None if plain["shard"] is None else Shard(**plain["shard"])
        record = PartRecord(shard, Tally.from_dict(plain["tally"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    path = folder / part.name
    if shard is None:
        return record
    return record if path.exists() and path.stat().st_size == shard.bytes else None


def _write(path: Path, samples: list[TileSample]) -> Shard:
    with atomic_path(path, overwrite=True) as temporary:
        write_shard(temporary, samples)
        shard = Shard(path.name, len(samples), temporary.stat().st_size, sha256_of(temporary))
    return shard


def manifest_of(
    records: Sequence[PartRecord], *, version: str, settings: dict[str, Any]
) -> Manifest:
    """The manifest of all parts together."""
    tally = Tally()
    for record in records:
        tally.merge(record.tally)
    return Manifest(
        version=version,
        shards=tuple(record.shard for record in records if record.shard is not None),
        gsd=dict(sorted(tally.gsd.items(), key=lambda item: float(item[0]))),
        objects={kind: tally.objects[kind] for kind in ENTITY_TYPES},
        sources=tuple({"name": name, **tally.sources[name]} for name in sorted(tally.sources)),
        dropped=dict(sorted(tally.dropped.items())),
        key_counts=tally.semantic_keys,
        settings=settings,
    )
