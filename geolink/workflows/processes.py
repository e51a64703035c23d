"""Tiles prepared by other processes, for a model so fast that threads of one cannot keep up."""

import logging
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from geolink.mosaic import TileResult
from geolink.workflows.inference import PreparedTile, Scored, TileScorer, scored
from geolink.workflows.process_entry import begin, call
from geolink.workflows.stages import StageClock

logger = logging.getLogger(__name__)

_DIED = "the process that prepared it died twice, perhaps since memory ran out"


class PreparingProcesses:
    """Processes that prepare tiles, for use in a `with` block; many threads may ask them.

    Each gets its own copy of the function, so what that holds should be small: of the image and of
    OSM it is the paths.

    Args:
        prepare: as for `inference.scored`; it must be possible to pickle it.
        count: number of processes.
    """

    def __init__(self, prepare: Callable[[int], PreparedTile], count: int) -> None:
        self._function, self._count = pickle.dumps(prepare), count
        self._lock = threading.Lock()
        self._pool = self._start()

    def __enter__(self) -> "PreparingProcesses":
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, tile: int) -> PreparedTile:
        """The prepared tile, which failed where processes died of it."""
        for _ in range(2):
            pool = self._pool
            try:
                prepared: PreparedTile = pickle.loads(pool.submit(call, tile).result())
            except BrokenProcessPool:
                logger.warning("a process that prepares tiles died; others take its place")
                self._replace(pool)
            else:
                return prepared
        return PreparedTile(tile, TileResult(status="failed", message=_DIED))

    def _start(self) -> ProcessPoolExecutor:
        # Not forked: neither the threads of this process nor its open files may be shared.
        return ProcessPoolExecutor(
            self._count,
            mp_context=get_context("spawn"),
            initializer=begin,
            initargs=(self._function,),
        )

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is broken:
                broken.shutdown(wait=False)
                self._pool = self._start()


def scored_by_processes(
    tiles: Sequence[int],
    prepare: Callable[[int], PreparedTile],
    scorer: TileScorer,
    *,
    batch_size: int,
    workers: int,
    clock: StageClock,
) -> Iterator[Scored]:
    """As `inference.scored`, with as many processes as workers, each with a thread that waits."""
    if not tiles:
        return
    with PreparingProcesses(prepare, workers) as processes:
        yield from scored(
            tiles, processes, scorer, batch_size=batch_size, workers=workers, clock=clock
        )
