"""How busy the stages of a pipeline were: what a run waited for."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

READING, GRAPHS, MODEL = "reading", "graphs", "model"


@dataclass(frozen=True)
class StageReport:
    """How busy each stage was.

    Attributes:
        seconds: wall time of the pipeline.
        threads: number of threads that prepare tiles; reading and graphs share them.
        busy: share of its time that each stage worked, 0-1: of the time of all threads that
            prepare tiles, and of the wall time for the model.
    """

    seconds: float
    threads: int
    busy: Mapping[str, float]

    @property
    def bottleneck(self) -> float:
        """How busy the threads that prepare tiles were, or the model where that was busier."""
        return max(self.busy[READING] + self.busy[GRAPHS], self.busy[MODEL])

    def __str__(self) -> str:
        shares = ", ".join(f"{stage} {100 * share:.0f} %" for stage, share in self.busy.items())
        return f"busy in {self.seconds:.0f} s of tiles: {shares} ({self.threads} threads prepare)"


class StageClock:
    """Adds up how long stages work, in whatever threads they do."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._worked = dict.fromkeys((READING, GRAPHS, MODEL), 0.0)
        self._wall = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Takes the time of a block as time in which all stages could have worked."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wall += time.perf_counter() - start

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Takes the time of a block as work of a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - start})

    def add(self, worked: Mapping[str, float]) -> None:
        """Takes seconds of work by stage, which was done elsewhere."""
        with self._lock:
            for stage, seconds in worked.items():
                self._worked[stage] += seconds

    def report(self) -> StageReport:
        """What has been added up."""
        threads = max(self._workers, 1)  # with none, this thread does everything
        of = {READING: threads, GRAPHS: threads, MODEL: 1}
        wall = max(self._wall, 1e-9)
        busy = {stage: worked / (wall * of[stage]) for stage, worked in self._worked.items()}
        return StageReport(self._wall, self._workers, busy)
