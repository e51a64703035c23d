"""What goes wrong with a server, in one sentence that keeps every secret."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import ReadTimeoutError

from geolink.errors import UnavailableError

_SECRET = re.compile(
    r"token|key|secret|sig|pass|pw|auth|cred|session|sas|jwt|access|policy|expires", re.IGNORECASE
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


def host_of(url: str) -> str:
    """Host and port of an address."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "the server"
    except ValueError:
        return "the server"


def require_good(response: requests.Response, what: str, url: str) -> None:
    """Refuse an answer that is a failure, or that came without https where it was asked with.

    Raises:
        NotFoundError: the server does not have it.
        UnavailableError: any other failure.
    """
    host = host_of(url)
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
def failures_named(what: str, url: str, timeout_s: float) -> Iterator[None]:
    """Turn failures of a connection within the block into an `UnavailableError`."""
    try:
        yield
    except (requests.RequestException, TransportError) as error:
        reason = reason_of(error, timeout_s)
        raise UnavailableError(f"{what} cannot be fetched: {host_of(url)} {reason}") from error


def reason_of(error: Exception, timeout_s: float) -> str:
    """What went wrong with a connection, and what to do; follows the name of the host."""
    if isinstance(error, requests.exceptions.SSLError):
        return "has no certificate that is trusted here; check the address and the clock"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "cannot be reached; check the network"
    # A last attempt is wrapped once more.
    causes = [getattr(part, "reason", part) for part in error.args]
    silent = any(isinstance(cause, ReadTimeoutError) for cause in causes)
    if silent or isinstance(error, requests.Timeout):
        return f"has been silent for {timeout_s:g} s; run the same command again later"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | TransportError):
        return "broke the connection off; the same command goes on from here"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached; check the network and the address"
    return f"cannot be asked ({type(error).__name__}); check the address"
