"""Maps that are drawn in processes of their own, which are killed at a known moment.

As a program it imports everything once and then makes a child for each job, a line of JSON, that it
reads. A child notes every step of its progress and everything it does to files in the job's folder,
just before it does it; these are the moments at which it can kill itself.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

# What changes a folder, in the words of Python's audit events.
ACTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
PUBLISHING = "publishing"
_RECORD = "outputs.json"  # written when all outputs are complete


class Witness:
    """Notes what a child does, and kills it at the moment `(stage, number)` if there is one."""

    def __init__(self, folder: str, notes: str, moment: tuple[str, int] | None) -> None:
        self._folder, self._moment = folder, moment
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self._stage, self._number = "opening", 0

    def progress(self, stage: str, done: int, total: int) -> None:
        now = stage if stage == "tiles" else f"{stage} {done}"
        if now != self._stage:
            self._stage, self._number = now, 0
        self._note(f"{stage} {done} {total}")

    def act(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ACTS:
            return
        path = str(arguments[1] if event == "os.rename" else arguments[0])
        # Whole folders are removed by names relative to an open one.
        if path.startswith(self._folder) or event in ("os.remove", "os.rmdir"):
            self._note(f"{event} {path}")
        if event == "os.rename" and path.endswith(_RECORD):
            self._stage, self._number = PUBLISHING, 0

    def _note(self, text: str) -> None:
        self._number += 1
        os.write(self._notes, f"{json.dumps([self._stage, self._number, text])}\n".encode())
        if (self._stage, self._number) == self._moment:
            os.kill(os.getpid(), signal.SIGKILL)


def draw(job: dict[str, Any]) -> int:
    """Draws the map of a job in this process; returns an exit code."""
    import torch

    import geolink
    from geolink.errors import GeolinkError

    torch.set_num_threads(1)
    moment = tuple(job["moment"]) if job["moment"] else None
    witness = Witness(job["folder"], job["notes"], moment)  # type: ignore[arg-type]
    sys.addaudithook(witness.act)
    if job["file_limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"],) * 2)
    try:
        geolink.predict(progress=witness.progress, **job["settings"])
    except GeolinkError as error:
        Path(job["notes"]).with_suffix(".error").write_text(str(error))
        return 1
    return 0


@dataclass(frozen=True)
class Run:
    """What became of a run.

    Attributes:
        code: its exit code; negative where a signal ended it.
        notes: (stage, number within the stage, what was about to be done).
        error: message of a known failure.
    """

    code: int
    notes: list[tuple[str, int, str]] = field(default_factory=list)
    error: str = ""

    @property
    def kept(self) -> list[str]:
        """Names of the tiles whose scores it put into the store."""
        kept = (text for _, _, text in self.notes if text.startswith("os.rename "))
        return [Path(text).name for text in kept if text.endswith(".npz")]

    @property
    def tiles_done(self) -> int:
        """Tiles that its progress told of last."""
        told = [text.split() for _, _, text in self.notes if text.startswith("tiles ")]
        return int(told[-1][1]) if told else 0


class Runner:
    """The program below, in a process of its own."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.communicate()

    def run(
        self,
        folder: Path,
        settings: dict[str, Any],
        *,
        moment: tuple[str, int] | None = None,
        file_limit: int = 0,
    ) -> Run:
        """One run with outputs in `folder`; `file_limit` is the size that no file may exceed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        notes = folder.with_name(f"{folder.name}.notes")
        notes.with_suffix(".error").unlink(missing_ok=True)
        job = {"folder": str(folder), "settings": settings, "notes": str(notes)}
        job |= {"moment": moment, "file_limit": file_limit}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        error = notes.with_suffix(".error")
        return Run(
            code,
            [tuple(json.loads(line)) for line in notes.read_text().splitlines()],
            error.read_text() if error.exists() else "",
        )


def main() -> None:
    import geolink.workflows.mapping
    import geolink.workflows.predict  # noqa: F401 - so that children need not

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = draw(json.loads(line))
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
