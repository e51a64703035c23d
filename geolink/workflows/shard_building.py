"""`build_shards`: images and OpenStreetMap in, a sharded set of pretraining samples out."""

import multiprocessing
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from geolink._version import __version__
from geolink.errors import ConfigError, InputError, OutputError
from geolink.files import file_identity, full_disk_named, replace_bytes
from geolink.mosaic import fingerprint
from geolink.sources.cache import Cache
from geolink.sources.candidates import Filters, PairSource
from geolink.sources.manifest import MANIFEST, Manifest
from geolink.sources.network import Network
from geolink.sources.scene_pairs import TILE_SIDE
from geolink.sources.shard_parts import (
    Part,
    PartRecord,
    build_part,
    load_record,
    manifest_of,
    plan_parts,
)
from geolink.workflows.pair_imagery import PairImagery
from geolink.workflows.progress import Progress, silent
from geolink.workflows.request import public_spec
from geolink.workflows.site import Supply

GSD_RANGE = (0.01, 1000.0)  # metres per pixel that can be asked for
_WORK = ".build"  # within the output: lock, fingerprint, and the records of finished shards


@dataclass(frozen=True)
class ShardRequest:
    """One set of shards: the images, the OSM, and what becomes a sample.

    Attributes:
        out: folder of the set; it is made where missing.
        imagery: one or several of a raster, a folder of rasters and pictures, `simulated`,
            `sentinel2[:START/END]`, `stac:...` and `xyz:...`.
        osm: extracts or vector files; see `PairImagery`.
        gsd: metres per pixel of tiles cut from rasters or simulated, a set of tiles for each.
        side: height and width of these tiles, pixels.
        seeds: looks of simulated imagery.
        limit: greatest number of simulated tiles per extract, look and ground sampling distance.
        min_objects, min_contrast, max_nodata: see `Filters`.
        shard_size: candidates per shard; samples are at most as many.
        licence, attribution: of the imagery, where its files do not say so.
        accept_imagery_terms: note of the licence of map tiles, which they must have.
        offline: use nothing but what is here.
        workers: processes; 0 builds in this one. They do not change the result.
        overwrite: replace a set that was built from other data or settings.
    """

    out: Path
    imagery: str | Path | Sequence[str | Path]
    osm: tuple[Path, ...] = ()
    gsd: tuple[float, ...] = ()
    side: int = TILE_SIDE
    seeds: tuple[int, ...] = (0,)
    limit: int | None = None
    min_objects: int = 1
    min_contrast: float = 2.0
    max_nodata: float = 0.05
    shard_size: int = 1000
    licence: str | None = None
    attribution: str | None = None
    accept_imagery_terms: str | None = None
    offline: bool = False
    workers: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        imagery = [self.imagery] if isinstance(self.imagery, str | Path) else self.imagery
        object.__setattr__(self, "imagery", tuple(imagery))
        object.__setattr__(self, "out", Path(self.out))
        object.__setattr__(self, "osm", tuple(map(Path, self.osm)))
        if self.side < 16 or self.shard_size < 1 or self.workers < 0:
            raise ConfigError(
                "tiles need at least 16 pixels a side, shards one candidate, and workers are 0 or "
                f"more; got {self.side}, {self.shard_size} and {self.workers}"
            )
        if not all(GSD_RANGE[0] <= metres <= GSD_RANGE[1] for metres in self.gsd):
            raise ConfigError(
                f"ground sampling distances are {GSD_RANGE[0]:g} to {GSD_RANGE[1]:g} m per pixel, "
                f"got {', '.join(map(str, self.gsd))}"
            )
        self.pairs  # noqa: B018 - refuses imagery that cannot be used

    @property
    def filters(self) -> Filters:
        """What a candidate must offer."""
        return Filters(self.min_objects, self.min_contrast, self.max_nodata)

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes the set, as plain data without paths."""
        kept = asdict(self)
        for name in ("out", "accept_imagery_terms", "offline", "workers", "overwrite"):
            del kept[name]
        return kept | {
            "imagery": [public_spec(spec) for spec in self.pairs.specs],
            "osm": [path.name for path in self.osm],
            "gsd": list(self.gsd),
            "seeds": list(self.seeds),
        }

    @property
    def pairs(self) -> PairImagery:
        """Where the pairs come from."""
        assert isinstance(self.imagery, tuple)
        return PairImagery(
            self.imagery,
            self.osm,
            self.gsd,
            self.side,
            self.seeds,
            self.limit,
            self.accept_imagery_terms,
            self.offline,
        )


@dataclass(frozen=True)
class ShardResult:
    """What was built.

    Attributes:
        out: folder of the set.
        manifest: what is in it.
        built: number of parts built now; the others were there from a run before.
        seconds: wall time.
    """

    out: Path
    manifest: Manifest = field(repr=False)
    built: int
    seconds: float

    @property
    def summary(self) -> str:
        """One line for people."""
        manifest = self.manifest
        shards = len(manifest.shards)
        means = ", ".join(f"{mean:.2f} {kind}s" for kind, mean in manifest.mean_objects.items())
        line = (
            f"{self.out}: {manifest.samples:,} samples in {shards:,} shard{'s' * (shards != 1)}, "
            f"{_range(manifest.gsd)} m per pixel, on average {means}"
        )
        return line + (" (with SIMULATED imagery, drawn from OSM)" if manifest.simulated else "")

    @property
    def caption(self) -> str:
        """What was left out, and why; empty where nothing was."""
        counts = ", ".join(f"{n:,} {reason}" for reason, n in self.manifest.dropped.items())
        return f"left out: {counts}" if counts else ""

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data."""
        return {**asdict(self), "out": str(self.out)}


def _range(gsd: Mapping[str, int]) -> str:
    """The least and the greatest of some ground sampling distances, in growing order."""
    first, last = next(iter(gsd)), next(reversed(list(gsd)))
    return first if first == last else f"{first} to {last}"


def build_shards(
    request: ShardRequest | None = None,
    progress: Progress = silent,
    **settings: Any,  # noqa: ANN401 - checked by ShardRequest
) -> ShardResult:
    """Builds a set of shards for pretraining.

    Each shard appears whole or not at all, and does not depend on the others, so that a run that
    is cut goes on from there and ends with the same bytes, whatever the number of workers.

    Args:
        request: what to do; or give its fields by name.
        progress: called with (stage, done, total).
        **settings: fields of a `ShardRequest`.

    Raises:
        InputError: an input is missing, or not one candidate is a sample.
        UnavailableError: imagery cannot be had.
        OutputError: the folder cannot be written, or holds another set.
    """
    request = request or ShardRequest(**settings)
    started = time.monotonic()
    supply = Supply(Cache(), Network(offline=request.offline, progress=progress))
    sources = request.pairs.sources(supply)
    parts = plan_parts(sources, request.shard_size, request.filters)
    with _claimed(request, _identity(request, sources)) as records:
        done = {part.number: load_record(part, request.out, records) for part in parts}
        missing = [part for part in parts if done[part.number] is None]
        progress("shards", len(parts) - len(missing), len(parts))
        for count, (part, record) in enumerate(_built(missing, request, records), start=1):
            done[part.number] = record
            progress("shards", len(parts) - len(missing) + count, len(parts))
        manifest = manifest_of(
            [record for record in done.values() if record is not None],
            version=__version__,
            settings=request.settings,
        )
        manifest = replace(manifest, sources=tuple(_credited(manifest, request)))
        if manifest.samples == 0:
            raise InputError(
                f"not one of {sum(map(len, sources)):,} candidates is a sample: "
                + ", ".join(f"{count:,} {reason}" for reason, count in manifest.dropped.items())
            )
        manifest.save(request.out)
    return ShardResult(request.out, manifest, len(missing), time.monotonic() - started)


def _identity(request: ShardRequest, sources: list[PairSource]) -> str:
    """Changes with whatever changes the set: settings, inputs, version."""
    files = dict.fromkeys(path for source in sources for path in source.files())
    inputs = [file_identity(path) for path in files]
    return fingerprint({"version": __version__, "settings": request.settings, "inputs": inputs})


@contextmanager
def _claimed(request: ShardRequest, identity: str) -> Iterator[Path]:
    """The work folder of a set, locked; what other data have left there is removed or refused."""
    out, work = request.out, request.out / _WORK
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; name a folder for the shards")
    if not out.parent.is_dir():
        raise OutputError(f"the folder {out.parent} does not exist; create it or choose another")
    with full_disk_named(work):
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(f"{out} is being built by another process; wait for it") from error
    try:
        _make_room(out, work, identity, overwrite=request.overwrite)
        yield work
    finally:
        lock.release()


def _make_room(out: Path, work: Path, identity: str, *, overwrite: bool) -> None:
    """Leaves in `out` only what belongs to this set, and what is not a set's."""
    mark = work / "identity"
    ours = mark.exists() and mark.read_text(encoding="utf-8") == identity
    stale = [path for path in out.glob(".shard-*.part") if path.is_dir()]
    others = [*out.glob("shard-*.tar"), *work.glob("*.json"), *out.glob(MANIFEST)]
    if not ours and others:
        if not overwrite:
            raise OutputError(
                f"{out} holds shards of other data or settings; choose another folder or allow "
                "overwriting it"
            )
        for path in others:
            path.unlink()
    for path in stale:  # of a process that was killed
        shutil.rmtree(path, ignore_errors=True)
    replace_bytes(mark, identity.encode())


def _built(
    parts: list[Part], request: ShardRequest, records: Path
) -> Iterator[tuple[Part, PartRecord]]:
    """Builds parts, and gives each as soon as it is there."""
    if request.workers == 0:
        yield from ((part, build_part(part, request.out, records)) for part in parts)
        return
    # Processes of their own from the start: threads of GDAL and torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(request.workers, len(parts) or 1), mp_context=context)
    try:
        futures = {pool.submit(build_part, part, request.out, records): part for part in parts}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise OutputError(
            f"a process that builds {request.out} was ended, probably for want of memory; run "
            "again with fewer workers, finished shards are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _credited(manifest: Manifest, request: ShardRequest) -> Iterator[Mapping[str, Any]]:
    """The sources, with the request's licence and credit where images do not say their own."""
    for source in manifest.sources:
        imagery = dict(source["imagery"])
        if not imagery["simulated"]:
            imagery["licence"] = imagery["licence"] or request.licence
            imagery["attribution"] = imagery["attribution"] or request.attribution
        yield {**source, "imagery": imagery}
