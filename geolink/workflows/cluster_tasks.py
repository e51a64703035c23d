"""What the workers of a cluster do: each process opens a map once, and scores groups of its tiles.

Nothing heavy is imported with this module, since the scheduler imports it too.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any
from weakref import finalize

from geolink._version import __version__
from geolink.errors import GeolinkError, InputError, UnavailableError
from geolink.sources.addresses import is_address
from geolink.sources.cache import Cache
from geolink.sources.network import Network
from geolink.sources.places import Place
from geolink.workflows.acquire import gather, local_model
from geolink.workflows.elsewhere import sources_here
from geolink.workflows.request import PredictRequest
from geolink.workflows.site import Site, Supply, local_raster
from geolink.workflows.versions import versions_of_parts

if TYPE_CHECKING:
    from geolink.workflows.inference import Scored

Versions = tuple[tuple[str, str], ...]

_SHARING = (
    "inputs, model and cache must be in folders that all workers see under the same names, or at "
    "addresses such as s3://bucket/file"
)


@dataclass(frozen=True)
class Job:
    """A map whose tiles workers score: what they need to open the same scene.

    Attributes:
        request: sources and tiling; see `for_others`.
        place: name and area.
        device: the kind of device to run the model on.
        model_sha256: of the model's weights.
        sizes: bytes of the files that the sources are read from.
        versions: of what decides the scores.
    """

    request: PredictRequest
    place: Place
    device: str
    model_sha256: str
    sizes: tuple[int | None, ...]
    versions: Versions


def for_others(request: PredictRequest) -> PredictRequest:
    """A request as other machines understand it: with absolute paths, and without outputs."""
    files: dict[str, Any] = {}
    for name in ("imagery", "osm", "model", "aoi"):
        spec = getattr(request, name)
        if spec is not None and not is_address(spec) and Path(spec).exists():
            files[name] = Path(spec).absolute()
    return replace(
        request,
        **files,
        out=None,
        raster=None,
        probabilities=None,
        preview=None,
        scheduler=None,
    )


def sizes_of(files: Iterable[Path]) -> tuple[int | None, ...]:
    """Bytes of each file; None of what only GDAL sees, such as a part of an archive."""
    return tuple(path.stat().st_size if path.is_file() else None for path in files)


# Versions


def own_versions() -> Versions:
    """Versions of what decides the scores, as far as it is installed here, and of dask."""
    found = versions_of_parts() | {
        "geolink": __version__,
        **{name: metadata.version(name) for name in ("numpy", "dask", "distributed")},
    }
    del found["python"]  # changes no score
    return tuple((name, version) for name, version in found.items() if version[0].isdigit())


def require_same_versions(wanted: Versions, found: Versions) -> None:
    """Refuse a worker that would score tiles with other libraries.

    Raises:
        UnavailableError: something that both have is of another version there.
    """
    here, there = dict(wanted), dict(found)
    differing = [
        f"{name} {there[name]} there and {here[name]} here"
        for name in sorted(here.keys() & there.keys())
        if here[name] != there[name]
    ]
    if differing:
        raise UnavailableError(
            f"it has {', '.join(differing)}; install the same versions everywhere"
        )


# Tasks


def introduce(device: str) -> tuple[Versions, str]:
    """What a worker says of itself: its versions, and the kind of device that a name means there.

    A device that is named is looked for when a map is opened, since that takes seconds.
    """
    if device == "auto":
        from geolink.workflows.inference import pick_device

        device = pick_device(device).type
    return own_versions(), device


def score_group(job: Job, tiles: Sequence[int]) -> list["Scored"]:
    """The results of a few tiles.

    Raises:
        UnavailableError: this worker cannot open the map.
    """
    with _turn:
        try:
            score = _opened(job)
        except (GeolinkError, OSError) as error:
            raise UnavailableError(f"{_worker_name()} cannot open the map: {error}") from error
        return list(score(tiles))


_Score = Callable[[Sequence[int]], Iterable["Scored"]]
_open: dict[Job, _Score] = {}  # one at most: a model may fill the memory
_turn = threading.Lock()  # a group keeps all cores of its process busy


def _opened(job: Job) -> _Score:
    """What scores the tiles of a job in this process."""
    if job not in _open:
        from distributed import get_worker

        _open.clear()
        scratch = Path(mkdtemp(prefix="geolink-", dir=get_worker().local_directory))
        with ExitStack() as on_failure:
            on_failure.callback(rmtree, scratch, ignore_errors=True)
            _open[job] = _score_of(job, scratch)
            on_failure.pop_all()
        finalize(_open[job], rmtree, scratch, ignore_errors=True)
    return _open[job]


def _score_of(job: Job, scratch: Path) -> _Score:
    """As a local run would do it, with the data that this machine sees."""
    require_same_versions(job.versions, own_versions())

    from geolink.workflows.mapping import OSM_TABLE, LocalCrew, open_model
    from geolink.workflows.scene import build_scene, with_osm_on_disk

    crew = LocalCrew(job.device)
    cache = Cache()
    supply = Supply(cache, Network(offline=job.request.offline))
    try:
        model = open_model(local_model(job.request.model, supply))
        request = sources_here(job.request, supply)
        # Public servers are asked once, by the process that gave the job, and never by workers.
        kept = Supply(cache, Network(offline=True))
        materials = gather(request, Site(job.place, local_raster(request)), kept)
    except GeolinkError as error:
        raise UnavailableError(f"{error}; {_SHARING}") from error
    if model.card.sha256 != job.model_sha256:
        raise InputError(f"its model {job.request.model} has other weights; {_SHARING}")
    if sizes_of(materials.files) != job.sizes:
        names = ", ".join(path.name for path in materials.files)
        raise InputError(f"its files {names} are not those of this run; {_SHARING}")
    scene = build_scene(job.request, materials, model.card.gsd_range, osm_on_disk=True)
    scene = with_osm_on_disk(scene, materials.osm, scratch / OSM_TABLE)
    return crew.scores(job.request, scene, model)


def _worker_name() -> str:
    from distributed import get_worker

    return f"the worker {get_worker().address}"
