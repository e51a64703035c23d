"""Files of model repositories, through the hub's own client.

The client knows `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN` and its own cache of earlier downloads,
and resumes what was cut. Here its failures become one sentence.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import tqdm

from geolink._version import __version__
from geolink.errors import GeolinkError, UnavailableError
from geolink.files import sha256_of
from geolink.sources.entries import stays_inside
from geolink.sources.network import CONNECT_S, LONGEST_WAIT_S, RETRIED, Network, NotFoundError

T = TypeVar("T")

_CONVERTER = "SFconvertbot"  # the hub's service that offers safetensors as a pull request


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository.

    Attributes:
        repo: owner/name.
        commit: its hash.
        hashes: SHA-256 by file; empty where the hub tells none.
        licence: as the repository states it.
        date: of the last change, ISO 8601.
    """

    repo: str
    commit: str
    hashes: Mapping[str, str]
    licence: str | None
    date: str | None


class Hub:
    """The hub at `HF_ENDPOINT`.

    Args:
        network: whose retries and progress apply.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self.endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
        self._api = HfApi(self.endpoint, library_name="geolink", library_version=__version__)

    def snapshot(self, repo: str, revision: str | None) -> Snapshot:
        """What a repository holds at a branch, tag or commit; None is its main branch.

        Raises:
            NotFoundError: there is no such repository or revision, or it is private.
            UnavailableError: the hub cannot be asked.
        """
        silence = self._network.timeout_s
        info = self._ask(
            f"{repo}@{revision}" if revision else repo,
            lambda: self._api.model_info(
                repo,
                revision=revision,
                files_metadata=True,
                # To connect, to read, to write, to get a connection: the client's HTTP library
                # takes four, so that a host that is not there is told soon.
                timeout=(CONNECT_S, silence, silence, silence),  # type: ignore[arg-type]
            ),
        )
        files = {
            file.rfilename: file.lfs.sha256 if file.lfs else ""
            for file in info.siblings or []
            if stays_inside(file.rfilename)
        }
        licence = info.card_data.get("license") if info.card_data else None
        return Snapshot(
            repo,
            str(info.sha),
            files,
            licence if isinstance(licence, str) else None,
            info.last_modified.date().isoformat() if info.last_modified else None,
        )

    def converted_revision(self, repo: str) -> str | None:
        """Where the hub's converter offers a repository's weights as safetensors, if it does."""
        found = self._network.get_json(
            f"{self.endpoint}/api/models/{repo}/discussions",
            params={"author": _CONVERTER, "type": "pull_request", "status": "open"},
            what=f"the list of converted weights of {repo}",
        )
        try:
            return next(
                f"refs/pr/{int(offer['num'])}"
                for offer in found["discussions"]
                if offer["author"]["name"] == _CONVERTER and offer["isPullRequest"]
            )
        except (StopIteration, KeyError, TypeError, ValueError):
            return None

    def download(self, snapshot: Snapshot, name: str, folder: Path) -> Path:
        """A file of a snapshot below `folder`, resumed there where it was cut.

        Raises:
            UnavailableError: it cannot be had, or has another hash than the hub says.
        """
        what = f"{snapshot.repo}/{name}"
        path = Path(
            self._ask(
                what,
                lambda: self._api.hf_hub_download(
                    snapshot.repo,
                    name,
                    revision=snapshot.commit,
                    local_dir=folder,
                    tqdm_class=_reporting(self._network, what),
                ),
            )
        )
        expected = snapshot.hashes.get(name)
        if expected and sha256_of(path) != expected:
            path.unlink()
            raise UnavailableError(
                f"{what} came with another checksum than the hub states; run the same command again"
            )
        return path

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        """The result of a call, repeated while the hub is busy or out of order."""
        if is_offline_mode():
            raise UnavailableError(
                f"{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it; unset it"
            )
        host = urlsplit(self.endpoint).netloc.rpartition("@")[2]
        with _failures_named(what, host), _discreet():
            for attempt in range(self._network.retries):
                try:
                    return call()
                except HfHubHTTPError as error:
                    wish = error.response.headers.get("Retry-After", "")
                    pause = max(0.5 * 2**attempt, float(wish) if wish.isdecimal() else 0)
                    if error.response.status_code not in RETRIED or pause > LONGEST_WAIT_S:
                        raise
                time.sleep(pause)
            return call()


def _reporting(network: Network, what: str) -> type[tqdm]:
    """The client's progress bar, which draws nothing and tells the network's progress."""

    class Bar(tqdm):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            network.tell(what, int(self.n), int(self.total or 0))
            return None

    return Bar


@contextmanager
def _discreet() -> Iterator[None]:
    """Keep the client to what it is asked for.

    It would log its attempts, with addresses that may be signed, and ask the hub first how to
    describe this machine to it, which takes as long as a hub that cannot be reached.
    """
    level, silent = hub_logging.get_verbosity(), constants.HF_HUB_DISABLE_TELEMETRY
    hub_logging.set_verbosity(logging.ERROR)
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        constants.HF_HUB_DISABLE_TELEMETRY = silent


@contextmanager
def _failures_named(what: str, host: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise UnavailableError(
            f"{what} is gated: accept its terms on {host}, and give your token in HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise NotFoundError(
            f"{host} has no repository {what}, or it is private; check the name, or give a token "
            "in HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise NotFoundError(f"{host} has no revision {what}; check it") from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        raise UnavailableError(
            f"{what} cannot be fetched: {host} answers {code}; try again later"
        ) from error
    except EntryNotFoundError as error:
        raise UnavailableError(
            f"{what} cannot be fetched: {host} does not hand it out; check the network and the name"
        ) from error
    except GeolinkError:
        raise
    except Exception as error:  # the client lets its HTTP library's errors through
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise UnavailableError(
            f"{what} cannot be fetched: {host} cannot be reached or does not answer as a hub does "
            f"({type(error).__name__}); check the network and HF_ENDPOINT"
        ) from error
