"""Tiles scored by the workers of a dask scheduler, with the same results as here.

Small groups of tiles are the tasks; twice as many as there are worker threads are under way at a
time. Their results come back to this process, which keeps them as it keeps its own.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from geolink.errors import ConfigError, GeolinkError, UnavailableError
from geolink.mosaic import TileResult
from geolink.workflows.cluster_tasks import (
    Job,
    Versions,
    for_others,
    introduce,
    own_versions,
    require_same_versions,
    score_group,
    sizes_of,
)
from geolink.workflows.request import PredictRequest

if TYPE_CHECKING:
    from distributed import Client, Future

    from geolink.models.geolink import GeoLink
    from geolink.workflows.inference import Scored
    from geolink.workflows.scene import Scene

    Task = Future[list[Scored]]

logger = logging.getLogger(__name__)

CONNECT_S = 10.0  # longest wait for the scheduler
PATIENCE_S = 300.0  # how long there may be no worker before the run gives up
_POLL_S = 2.0
_LEAST_TASKS, _MOST_BATCHES = 4, 4  # for every thread of a worker; in a task

_KEPT = "what is done is kept, and the same command goes on from there"


class Cluster:
    """The workers of a dask scheduler, as a crew (see `mapping.Crew`).

    Args:
        client: connected to the scheduler.
        request: as it was given, since workers make copies of their own from its addresses.

    Raises:
        UnavailableError: no worker comes, or they have other versions.
        ConfigError: `auto` means different devices to them.
    """

    def __init__(self, client: "Client", request: PredictRequest) -> None:
        self._client, self._request = client, request
        self._last_seen = time.monotonic()
        self._versions = own_versions()
        self._await_workers()
        self._device = self._common_device(request.device)

    stages = None  # the workers' own affair

    @property
    def device(self) -> str:
        """The kind of device that runs the model."""
        return self._device

    def scores(
        self, request: PredictRequest, scene: "Scene", model: "GeoLink"
    ) -> Callable[[Sequence[int]], Iterable["Scored"]]:
        """What gives the results of tiles, each with its number, as they arrive."""
        job = Job(
            for_others(self._request),
            scene.place,
            self._device,
            model.card.sha256,
            sizes_of(scene.files),
            self._versions,
        )
        return lambda tiles: self._scores(job, tiles)

    def _scores(self, job: Job, tiles: Sequence[int]) -> Iterator["Scored"]:
        running: dict[Task, Sequence[int]] = {}
        with self._failures_named():
            groups = iter(self._groups(tiles, job.request.batch_size))
            while True:
                for group in islice(groups, max(2 * self._threads() - len(running), 0)):
                    running[self._client.submit(score_group, job, group, pure=False)] = group
                if not running:
                    return
                for future in self._finished(running):
                    yield from self._results(future, running.pop(future))

    def _groups(self, tiles: Sequence[int], batch_size: int) -> list[Sequence[int]]:
        """Tiles in tasks of a few batches, less where every worker would not get several tasks."""
        tasks = _LEAST_TASKS * self._threads()
        batches = min(max(len(tiles) // (tasks * batch_size), 1), _MOST_BATCHES)
        size = batches * batch_size
        return [tiles[start : start + size] for start in range(0, len(tiles), size)]

    def _threads(self) -> int:
        """How many tasks the workers can do at a time; one where there is no worker."""
        threads: dict[str, int] = self._client.nthreads()
        return max(sum(threads.values()), 1)

    def _finished(self, running: Iterable["Task"]) -> set["Task"]:
        """Those that are done, when one is."""
        from distributed import wait

        while True:
            try:
                with self._client.as_current():
                    done: set[Task] = wait(list(running), _POLL_S, "FIRST_COMPLETED").done
            except TimeoutError:
                self._require_workers()
            else:
                self._last_seen = time.monotonic()
                return done

    def _results(self, future: "Task", group: Sequence[int]) -> list["Scored"]:
        """What a task found; its tiles failed where it took workers down with it."""
        from distributed import KilledWorker

        while True:
            try:
                found: list[Scored] = future.result(timeout=_POLL_S)
                return found
            except KilledWorker as error:
                died = error.allowed_failures + 1
                reason = f"workers died of it or a tile beside it, {died} in turn"
                logger.warning("tiles %s failed: %s", ", ".join(map(str, group)), reason)
                return [(tile, TileResult(status="failed", message=reason)) for tile in group]
            except TimeoutError:  # of waiting, since the worker that has it is gone, or of the task
                if future.status == "error":
                    raise
                self._require_workers()

    def _await_workers(self) -> None:
        with self._failures_named():
            while not self._client.nthreads():
                self._require_workers()
                time.sleep(min(_POLL_S, PATIENCE_S))

    def _require_workers(self) -> None:
        """Refuse to wait for ever.

        Raises:
            UnavailableError: there has been no worker for long.
        """
        if self._client.nthreads():
            self._last_seen = time.monotonic()
        elif time.monotonic() - self._last_seen > PATIENCE_S:
            raise UnavailableError(
                f"the scheduler {self._address} has had no worker for {PATIENCE_S:g} s; start some "
                f"with `dask worker {self._address}`: {_KEPT}"
            )

    def _common_device(self, name: str) -> str:
        """The kind of device of all workers, whose versions are checked too."""
        with self._failures_named():
            said = self._client.run(introduce, name, on_error="return")
        devices = {}
        for address, answer in said.items():
            try:
                devices[address] = self._checked(answer)
            except GeolinkError as error:
                raise type(error)(f"the worker {address} cannot be used: {error}") from error
        if len(kinds := sorted(set(devices.values()))) > 1:
            raise ConfigError(
                f"some workers have {' and some '.join(kinds)}, which would score tiles "
                "differently; choose one with --device"
            )
        return kinds[0]

    def _checked(self, answer: tuple[Versions, str] | Exception) -> str:
        """The device that a worker names, with the versions that it must have."""
        if isinstance(answer, ImportError | AttributeError):
            here = dict(self._versions)["geolink"]
            raise UnavailableError(f"it lacks geolink {here} ({answer}); install it there")
        if isinstance(answer, Exception):
            raise answer
        versions, device = answer
        require_same_versions(self._versions, versions)
        return device

    @property
    def _address(self) -> str:
        return str(self._client.scheduler.address)  # type: ignore[union-attr]

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """Turns the loss of the scheduler into one sentence."""
        try:
            yield
        except GeolinkError:
            raise
        except (OSError, CancelledError) as error:
            raise UnavailableError(f"the scheduler was lost ({error}); {_KEPT}") from error


@contextmanager
def connect(address: str, request: PredictRequest) -> Iterator[Cluster]:
    """The workers of the scheduler at an address, until the block ends.

    Certificates for `tls://` are those that dask's own configuration names.

    Args:
        address: `tcp://HOST:PORT` or `tls://HOST:PORT`.
        request: what is to be mapped.

    Raises:
        ConfigError: the workers' devices differ.
        UnavailableError: dask is not installed, there is no scheduler, or no worker of use.
    """
    client = _client_of(address)
    try:
        yield Cluster(client, request)
    finally:
        client.close()


def _client_of(address: str) -> "Client":
    try:
        from distributed import Client
    except ImportError as error:
        raise UnavailableError(
            "a cluster needs dask; run `pip install geolink[distributed]` here and on the workers"
        ) from error
    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook has a loop of its own in this thread
            pool.submit(asyncio.run, _reach(address)).result()
        with warnings.catch_warnings():
            # A table; `require_same_versions` says it in one sentence.
            warnings.filterwarnings("ignore", "Mismatched versions found")
            return Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:
        raise UnavailableError(
            f"no dask scheduler answers at {address} ({error}); start one with `dask scheduler`"
        ) from error


async def _reach(address: str) -> None:
    """Connects once: a client that fails to would keep this process from ending for long."""
    from distributed import Security
    from distributed.comm.core import connect

    options = Security().get_connection_args("client")
    comm = await connect(address, timeout=CONNECT_S, **options)
    await comm.close()
