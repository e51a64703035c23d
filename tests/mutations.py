"""Damage for tests: bytes and JSON that are nearly right, and a bench that reads them."""

import copy
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from geolink.errors import GeolinkError

logger = logging.getLogger(__name__)

# Inputs of each kind: always the same ones, so that a machine that passed passes again. Those that
# look for more give seconds, as in GEOLINK_FUZZ_SECONDS=600.
COUNT = 60
SECONDS = float(os.environ.get("GEOLINK_FUZZ_SECONDS", "0"))
FIRST_SEED = int(os.environ.get("GEOLINK_FUZZ_SEED", "0"))
# One input that takes longer counts as a hang.
PATIENCE_S = 60

ODD_VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, -(2**63), 10**30, 1e308, -1e-308, 0.5),
    *("", "..", "../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "\n", "<b>", "ä" * 300, "NaN"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3, 4], [[[[[0]]]]]),
)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The same bytes with one to eight small changes."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(len(data) + 1))
        length = int(2 ** rng.uniform(0, 10))
        match int(rng.integers(7)):
            case 0:
                data[at : at + 1] = rng.bytes(1)
            case 1:
                data[at : at + length] = b""
            case 2:
                data[at:at] = rng.bytes(length)
            case 3:
                data[at : at + length] = bytes(min(length, len(data) - at))
            case 4:
                data[at : at + 4] = b"\xff\xff\xff\x7f"
            case 5:
                data[at:at] = data[: length + 1]
            case 6 if rng.random() < 0.3:
                del data[at:]
    return bytes(data)


def damaged_at_the_start(content: bytes, rng: np.random.Generator, length: int = 600) -> bytes:
    """The same bytes with changes where headers are."""
    return damaged(content[:length], rng) + content[length:]


def odd_json(plain: object, rng: np.random.Generator) -> object:
    """Plain data with one to three values or keys replaced, dropped or doubled."""
    made = json.loads(json.dumps(plain))
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(made))
        if not places:
            return made
        holder, key = places[int(rng.integers(len(places)))]
        odd = copy.deepcopy(ODD_VALUES[int(rng.integers(len(ODD_VALUES)))])
        match int(rng.integers(6)):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(odd)] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case _:
                holder[key] = odd
    return made


def _places(plain: object) -> Iterator[tuple[dict | list, str | int]]:
    """Every holder and key in plain data."""
    items = plain.items() if isinstance(plain, dict) else enumerate(plain)
    for key, value in items:
        yield plain, key
        if isinstance(value, dict | list):
            yield from _places(value)


def bombard(
    write: Callable[[np.random.Generator], object],
    read: Callable[[], object],
    folder: Path,
    *others: Path,
) -> None:
    """Write and read files of every kind of damage; the log tells how many.

    Whatever is written must be read, or refused by an error of geolink in one sentence, in time,
    and nothing may be written outside `folder`.

    Args:
        write: makes the next input below `folder`.
        read: reads it.
        folder: the only place where files may change,
        others: but for these.
    """
    count, until = 0, time.monotonic() + SECONDS
    while (count < COUNT and not SECONDS) or time.monotonic() < until:
        seed = FIRST_SEED + count
        write(np.random.default_rng(seed))
        with _no_writing_outside(folder, *others), _in_time(seed):
            try:
                read()
            except GeolinkError as error:
                message = str(error)
                assert message, f"seed {seed}: no words"
                assert "Traceback" not in message, f"seed {seed}: {message}"
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        count += 1
    logger.info("%d inputs in %s", count, folder.name)


_allowed: list[Path] = []


def _watch(event: str, arguments: tuple) -> None:
    if not _allowed or event != "open":
        return
    path, mode, flags = arguments
    writes = mode is not None and set(mode) & set("wax+")
    writes = writes or (mode is None and flags & (os.O_WRONLY | os.O_RDWR))
    if writes and isinstance(path, str | bytes | os.PathLike):
        place = Path(os.fsdecode(path)).resolve()
        outside = not any(place.is_relative_to(folder) for folder in _allowed)
        assert not outside or place == Path(os.devnull), f"{place} was written"


sys.addaudithook(_watch)


@contextmanager
def _no_writing_outside(*folders: Path) -> Iterator[None]:
    _allowed.extend(folder.resolve() for folder in folders)
    try:
        yield
    finally:
        _allowed.clear()


@contextmanager
def _in_time(seed: int) -> Iterator[None]:
    """A hang ends the test; where the system has no alarms, the test's own limit must do."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError(f"no answer in {PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
