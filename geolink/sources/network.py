"""The one way to the network: polite, patient with servers that falter, and quick to give up.

A request is repeated where repeating helps (429 and 5xx, with the server's own waiting time, and
connections that break), downloads go on where they were cut, and every failure is one sentence.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import InvalidHeader, MaxRetryError, ReadTimeoutError, ResponseError
from urllib3.util import Retry

from geolink._version import __version__
from geolink.errors import UnavailableError
from geolink.files import full_disk_named, replace_bytes, sha256_of

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # stage, done, total

USER_AGENT = f"geolink/{__version__} (maps of urban functional zones from imagery and OSM)"

_CONNECT_S = 4.0
_LONGEST_WAIT_S = 60.0  # of what a server may ask for
_RETRIED = (429, 500, 502, 503, 504)
_CHUNK = 2**16
_MEGABYTE = 10**6
_PAGE = "is a web page, perhaps a log-in"
_MAX_BYTES = 256 * 2**20  # of an answer that is held in memory
_SECRET = re.compile(
    r"token|key|secret|sig|pass|pwd|auth|cred|session|sas|jwt|access|policy|expires", re.IGNORECASE
)

_REASONS = {
    401: "it wants a log-in or token",
    403: "it refuses access",
    404: "it has no such file",
    410: "it no longer has the file",
    429: "it is busy; wait a while",
}


class NotFoundError(UnavailableError):
    """The server is there and does not have what was asked for."""


@dataclass(frozen=True)
class Network:
    """How the network is used; one per command.

    Attributes:
        offline: refuse every request.
        timeout_s: longest silence of a server.
        retries: how often a request is repeated, and a download resumed without getting further.
        progress: told of downloads as (what, megabytes done, megabytes in all).
    """

    offline: bool = False
    timeout_s: float = 30.0
    retries: int = 3
    progress: Progress | None = None

    def require(self, what: str, command: str) -> None:
        """Refuse at once where the network may not be used.

        Args:
            what: that is missing, e.g. "the OSM extract of Singapore".
            command: that fetches it.

        Raises:
            UnavailableError: under `offline`.
        """
        if self.offline:
            raise UnavailableError(
                f"{what} is not in the cache, and --offline forbids to fetch it; "
                f"run `{command}` on a connected machine"
            )

    @cached_property
    def session(self) -> requests.Session:
        """Session that repeats what fails in passing; `get_bytes` and others add the timeouts."""
        session = requests.Session()
        session.headers["User-Agent"] = USER_AGENT
        retry = _Patience(
            total=self.retries,
            connect=0,
            backoff_factor=0.5,
            status_forcelist=_RETRIED,
            allowed_methods=None,
            raise_on_status=False,
        )
        adapter = HTTPAdapter(max_retries=retry, pool_maxsize=16)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def get_json(self, url: str, *, params: Mapping[str, Any] | None = None, what: str) -> Any:  # noqa: ANN401 - JSON is anything
        """The JSON that an address answers.

        Raises:
            UnavailableError: it cannot be had, or is no JSON.
        """
        payload = self.get_bytes(url, params=params, what=what)
        try:
            return json.loads(payload)
        except (ValueError, RecursionError):
            raise UnavailableError(
                f"{what} cannot be read: {_host(url)} answered with something that is no JSON; "
                "is there a log-in page in between?"
            ) from None

    def get_bytes(self, url: str, *, params: Mapping[str, Any] | None = None, what: str) -> bytes:
        """The content of a small file, up to 256 MB.

        Raises:
            UnavailableError: it cannot be had, or is larger.
        """
        with self.open(url, params=params, what=what) as response:
            return _read(response, what)

    def post(self, url: str, *, data: Mapping[str, str] | str, what: str) -> bytes:
        """The answer to a form, up to 256 MB; it may be sent more than once.

        Raises:
            UnavailableError: it cannot be had, or is larger.
        """
        with self.open(url, method="POST", data=data, what=what) as response:
            return _read(response, what)

    @contextmanager
    def open(
        self,
        url: str,
        *,
        what: str,
        method: str = "GET",
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, str] | str | None = None,
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (),
    ) -> Iterator[requests.Response]:
        """An answer whose body is still to be read; failures within the block are named too.

        Args:
            url: address.
            what: the thing that is fetched, for messages.
            method: of HTTP.
            params: of the query.
            data: form, or body.
            headers: beside the usual ones.
            accept: status codes of failure that the caller deals with.

        Raises:
            NotFoundError: the server does not have it.
            UnavailableError: it cannot be had.
        """
        if self.offline:
            raise UnavailableError(f"{what} needs the network, which --offline forbids")
        timeout = (min(_CONNECT_S, self.timeout_s), self.timeout_s)
        logger.info("%s %s", method, without_secrets(url))
        with (
            _failures_named(what, url, self.timeout_s),
            self.session.request(
                method,
                url,
                params=params,
                data=data,
                headers=headers,
                stream=True,
                timeout=timeout,
            ) as response,
        ):
            if response.status_code not in accept:
                _require_good(response, what, url)
            yield response

    def download(
        self,
        url: str,
        target: Path,
        *,
        what: str,
        sha256: str | None = None,
        size: int | None = None,
    ) -> Path:
        """A file, resumed in `<target>.part` where an earlier attempt was cut.

        A part is only continued if the server still has the same file. A target that is there is
        kept if it is still what the server has, or has the given hash.

        Args:
            url: address.
            target: where it goes; its folder exists.
            what: the thing that is fetched, for messages.
            sha256: hash it must have.
            size: bytes it must have.

        Returns:
            `target`.

        Raises:
            NotFoundError: the server does not have it.
            UnavailableError: it cannot be had, is a web page, or is not what was expected.
            OutputError: the disk is full, or the folder read-only.
        """
        if sha256 is not None and target.is_file() and sha256_of(target) == sha256:
            return target
        with full_disk_named(target):
            job = _Download(self, url, target, what)
            job.run()
            job.finish(sha256, size)
        return target


class _Patience(Retry):
    """Retry that gives up where the server asks to wait for long, and ignores unreadable wishes."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        try:
            return super().get_retry_after(response)
        except InvalidHeader:
            return None

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if response is not None and (self.get_retry_after(response) or 0) > _LONGEST_WAIT_S:
            assert _pool is not None  # given with every response
            raise MaxRetryError(_pool, url or "", ResponseError("it asks to wait for long"))
        return super().increment(method, url, response, error, _pool, _stacktrace)


def without_secrets(text: str) -> str:
    """`text` with its web addresses made fit for logs and records.

    They lose user, password, and the query parameters that are named like a key.
    """
    return re.sub(r"https?://[^\s'\"<>]+", lambda match: _public(match[0]), text)


def _public(url: str) -> str:
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return f"{url.partition('://')[0]}://..."
    kept = [(name, value) for name, value in query if not _SECRET.search(name)]
    # A query without secrets stays as it is, however it is written.
    text = parts.query if len(kept) == len(query) else urlencode(kept)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query=text))


# Answers


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "the server"
    except ValueError:
        return "the server"


def _require_good(response: requests.Response, what: str, url: str) -> None:
    host = _host(url)
    if urlsplit(url).scheme == "https" and urlsplit(response.url).scheme != "https":
        raise UnavailableError(
            f"{what} cannot be fetched: {host} leads to an address without https; "
            "name that address if you trust it"
        )
    if response.ok:
        return
    code = response.status_code
    wait = response.headers.get("Retry-After", "")
    reason = _REASONS.get(code) or (
        "it is out of order; try again later" if code >= 500 else "the request is not accepted"
    )
    later = f" {wait} s" if code == 429 and wait.isdigit() else ""
    kind = NotFoundError if code in (404, 410) else UnavailableError
    raise kind(f"{what} cannot be fetched: {host} answers {code} {_phrase(code)}, {reason}{later}")


def _phrase(code: int) -> str:
    try:
        return f"({HTTPStatus(code).phrase})"
    except ValueError:
        return "(unknown)"


@contextmanager
def _failures_named(what: str, url: str, timeout_s: float) -> Iterator[None]:
    """Turn failures of the connection into one sentence without the address's query."""
    try:
        yield
    except (requests.RequestException, TransportError) as error:
        reason = _reason(error, timeout_s)
        raise UnavailableError(f"{what} cannot be fetched: {_host(url)} {reason}") from error


def _reason(error: Exception, timeout_s: float) -> str:
    """What went wrong with a connection, and what to do."""
    if isinstance(error, requests.exceptions.SSLError):
        return "has no certificate that is trusted here; check the address and the clock"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "cannot be reached; check the network"
    silent = any(isinstance(part, ReadTimeoutError) for part in error.args)
    if silent or isinstance(error, requests.Timeout):
        return f"has been silent for {timeout_s:g} s; run the same command again later"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | TransportError):
        return "broke the connection off; the same command goes on from here"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached; check the network and the address"
    return f"cannot be asked ({type(error).__name__}); check the address"


def _read(response: requests.Response, what: str) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(_CHUNK):
        content += chunk
        if len(content) > _MAX_BYTES:
            raise UnavailableError(
                f"{what} cannot be fetched: {_host(response.url)} answers more than "
                f"{_MAX_BYTES // 2**20} MB"
            )
    return bytes(content)


# Downloads


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


class _Download:
    """One file on its way: `<target>.part`, and a hidden note of which file it is part of."""

    def __init__(self, network: Network, url: str, target: Path, what: str) -> None:
        self._network = network
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
                if failures > self._network.retries:
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
                f"{self._what} cannot be used: what {_host(self._url)} sent {problem}; "
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
        with self._network.open(
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
        goes_on = response.status_code == HTTPStatus.PARTIAL_CONTENT
        place = f"bytes {self._received}-"
        if not response.ok or (
            goes_on and not response.headers.get("Content-Range", "").startswith(place)
        ):
            self._part.unlink(missing_ok=True)
            raise _CutError(f"{self._what} cannot be fetched: {_host(self._url)} sent another part")
        if "text/html" in response.headers.get("Content-Type", ""):
            raise UnavailableError(
                f"{self._what} cannot be used: what {_host(self._url)} sent {_PAGE}; "
                "try again later, or another mirror"
            )
        self._origin = _Origin.of(response)
        replace_bytes(self._note, json.dumps(asdict(self._origin)).encode())
        with self._part.open("ab" if goes_on else "wb") as file:
            self._write(response, file)

    def _write(self, response: requests.Response, file: BinaryIO) -> None:
        try:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                self._tell(file.tell())
        except requests.RequestException as error:
            reason = _reason(error, self._network.timeout_s)
            raise _CutError(
                f"{self._what} cannot be fetched: {_host(self._url)} {reason}"
            ) from error

    def _tell(self, done: int) -> None:
        if self._network.progress is not None:
            total = max(done, self._origin.total or 0)
            self._network.progress(f"{self._what} (MB)", done // _MEGABYTE, -(-total // _MEGABYTE))
