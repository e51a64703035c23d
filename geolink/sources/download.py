"""Downloads that go on where they were cut."""

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Protocol

import requests

from geolink.errors import UnavailableError
from geolink.files import replace_bytes, sha256_of
from geolink.sources.http_failures import host_of, reason_of

logger = logging.getLogger(__name__)

_CHUNK = 2**16
_PAGE = "is a web page, perhaps a log-in"


class Connection(Protocol):
    """What a download needs of `geolink.sources.network.Network`."""

    @property
    def retries(self) -> int:
        """How often to go on without getting further."""
        ...

    @property
    def timeout_s(self) -> float:
        """Longest silence of the server."""
        ...

    def open(
        self, url: str, *, what: str, headers: Mapping[str, str], accept: tuple[int, ...]
    ) -> AbstractContextManager[requests.Response]:
        """An answer whose body is still to be read."""
        ...

    def tell(self, what: str, done: int, total: int) -> None:
        """Reports bytes."""
        ...


class _CutError(UnavailableError):
    """The connection broke while the body came; what came is kept."""


@dataclass(frozen=True)
class _Origin:
    """Which version of a file a part belongs to, kept in a hidden file beside it.

    Attributes:
        etag: strong entity tag, or empty.
        modified: date of its last change, or empty.
        total: its size in bytes, None where unknown.
    """

    etag: str = ""
    modified: str = ""
    total: int | None = None

    @classmethod
    def of(cls, response: requests.Response) -> "_Origin":
        """From the head of an answer; an encoded body is of unknown size and cannot go on."""
        head = response.headers
        if head.get("Content-Encoding", "identity") != "identity":
            return cls()
        etag = head.get("ETag", "")
        length = head.get("Content-Range", "").rpartition("/")[2] or head.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        return cls("" if etag.startswith("W/") else etag, head.get("Last-Modified", ""), total)

    @classmethod
    def read(cls, path: Path) -> "_Origin":
        """From the file; whatever is wrong with it, it knows nothing."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(str(data["etag"]), str(data["modified"]), data["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls()


class Download:
    """One file on its way: `<target>.part`, and a hidden note of which file it is part of.

    Args:
        connection: through which it comes.
        url: of the file.
        target: where it goes.
        what: it is, for messages.
    """

    def __init__(self, connection: Connection, url: str, target: Path, what: str) -> None:
        self._connection = connection
        self._url = url
        self._target = target
        self._what = what
        self._part = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f".{target.name}.origin")
        self._origin = _Origin.read(self._note)

    def run(self) -> None:
        """Fetch until the file is whole, while attempts get further or retries are left."""
        failures, reached = 0, self._received
        while True:
            try:
                return self._attempt()
            except _CutError:
                failures = 0 if self._received > reached else failures + 1
                reached = max(reached, self._received)
                if failures > self._connection.retries:
                    raise
            logger.info("%s was cut after %d bytes and goes on", self._what, self._received)
            time.sleep(min(0.5 * failures, 4.0))

    def finish(self, sha256: str | None, size: int | None) -> None:
        """Check the whole file and give it its name.

        Raises:
            UnavailableError: it is not what was expected; nothing of it is kept.
        """
        path = self._part if self._part.exists() else self._target
        problem = self._problem(path, sha256, self._origin.total if size is None else size)
        if problem:
            path.unlink()
            raise UnavailableError(
                f"{self._what} cannot be used: what {host_of(self._url)} sent {problem}; "
                "try again later, or another mirror"
            )
        os.replace(path, self._target)

    def _problem(self, path: Path, sha256: str | None, size: int | None) -> str:
        found = path.stat().st_size
        if size is not None and found != size:
            return f"has {found} bytes instead of {size}"
        if sha256 is not None and sha256_of(path) != sha256:
            return "has another checksum than expected"
        with path.open("rb") as file:
            start = file.read(256).lstrip().lower()
        return _PAGE if start.startswith((b"<!doctype html", b"<html")) else ""

    @property
    def _received(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _attempt(self) -> None:
        if self._origin.total is not None and self._received == self._origin.total > 0:
            return  # cut between the last byte and the new name
        headers = {"Accept-Encoding": "identity", **self._conditions()}
        accept = (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,)
        with self._connection.open(
            self._url, what=self._what, headers=headers, accept=accept
        ) as response:
            if response.status_code != HTTPStatus.NOT_MODIFIED:
                self._receive(response)

    def _conditions(self) -> dict[str, str]:
        """Headers that ask for the rest of what was begun, or for a file other than the target."""
        origin = self._origin
        if self._part.exists():
            same = origin.etag or origin.modified
            return {"Range": f"bytes={self._received}-", "If-Range": same} if same else {}
        if self._target.exists():
            known = {"If-None-Match": origin.etag, "If-Modified-Since": origin.modified}
            return {name: value for name, value in known.items() if value}
        return {}

    def _receive(self, response: requests.Response) -> None:
        if "text/html" in response.headers.get("Content-Type", "").lower():
            raise UnavailableError(
                f"{self._what} cannot be used: what {host_of(self._url)} sent {_PAGE}; "
                "try again later, or another mirror"
            )
        origin = _Origin.of(response)
        goes_on = response.status_code == HTTPStatus.PARTIAL_CONTENT
        if not response.ok or (goes_on and not self._fits(response, origin)):
            self._part.unlink(missing_ok=True)
            raise _CutError(
                f"{self._what} cannot be fetched: {host_of(self._url)} sent another part of it"
            )
        self._origin = origin
        replace_bytes(self._note, json.dumps(asdict(origin)).encode())
        with self._part.open("ab" if goes_on else "wb") as file:
            self._write(response, file)

    def _fits(self, response: requests.Response, origin: _Origin) -> bool:
        """Whether a part of the file goes on where ours ends; some servers ignore `If-Range`."""
        place = response.headers.get("Content-Range", "")
        return place.startswith(f"bytes {self._received}-") and origin.etag == self._origin.etag

    def _write(self, response: requests.Response, file: BinaryIO) -> None:
        try:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                self._connection.tell(self._what, file.tell(), self._origin.total or 0)
        except requests.RequestException as error:
            reason = reason_of(error, self._connection.timeout_s)
            raise _CutError(
                f"{self._what} cannot be fetched: {host_of(self._url)} {reason}"
            ) from error
