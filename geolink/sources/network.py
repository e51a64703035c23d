"""The one way to the network: polite, patient with servers that falter, and quick to give up.

A request is repeated where repeating helps (429 and 5xx, with the server's own waiting time, and
connections that break), downloads go on where they were cut, and every failure is one sentence.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import InvalidHeader, MaxRetryError, ResponseError
from urllib3.util import Retry

from geolink._version import __version__
from geolink.errors import UnavailableError
from geolink.files import full_disk_named, sha256_of
from geolink.sources.download import Download
from geolink.sources.http_failures import (
    NotFoundError,
    failures_named,
    host_of,
    require_good,
    without_secrets,
)

__all__ = [
    "CONNECT_S",
    "LONGEST_WAIT_S",
    "RETRIED",
    "USER_AGENT",
    "Network",
    "NotFoundError",
    "Progress",
    "without_secrets",
]

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]  # stage, done, total

USER_AGENT = f"geolink/{__version__} (maps of urban functional zones from imagery and OSM)"

RETRIED = (429, 500, 502, 503, 504)  # status codes of failures that pass
LONGEST_WAIT_S = 60.0  # that a server may ask for
CONNECT_S = 2.0  # longest wait for a connection; one lost packet is repeated after a second

_CHUNK = 2**16
_MEGABYTE = 10**6
_MAX_BYTES = 256 * 2**20  # of an answer that is held in memory


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
            status_forcelist=RETRIED,
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
                f"{what} cannot be read: {host_of(url)} answered with something that is no JSON; "
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
        timeout = (min(CONNECT_S, self.timeout_s), self.timeout_s)
        logger.info("%s %s", method, without_secrets(url))
        with (
            failures_named(what, url, self.timeout_s),
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
                require_good(response, what, url)
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
            job = Download(self, url, target, what)
            job.run()
            job.finish(sha256, size)
        return target

    def tell(self, what: str, done: int, total: int) -> None:
        """Reports bytes of a download to `progress`; a total of 0 is unknown."""
        if self.progress is not None:
            whole = -(-max(done, total) // _MEGABYTE)
            self.progress(f"{what} (MB)", done // _MEGABYTE if done < total else whole, whole)


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
        if response is not None and (self.get_retry_after(response) or 0) > LONGEST_WAIT_S:
            assert _pool is not None  # given with every response
            raise MaxRetryError(_pool, url or "", ResponseError("it asks to wait for long"))
        return super().increment(method, url, response, error, _pool, _stacktrace)


def _read(response: requests.Response, what: str) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(_CHUNK):
        content += chunk
        if len(content) > _MAX_BYTES:
            raise UnavailableError(
                f"{what} cannot be fetched: {host_of(response.url)} answers more than "
                f"{_MAX_BYTES // 2**20} MB"
            )
    return bytes(content)
