"""Where models come from: a repository on the hub, a web address, Google Drive.

What belongs to the weights comes along: the card of our own, the published key counts of released
ones. Whatever a server says is data that nobody vouches for.
"""

import json
import os
import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit, urlunsplit

import requests

from geolink.errors import ConfigError, UnavailableError
from geolink.files import replace_bytes, sha256_of
from geolink.sources.addresses import copy_here, file_name, is_address
from geolink.sources.network import Network, NotFoundError, without_secrets

WEIGHTS = "model.safetensors"
CARD = "card.json"
# The published count table belongs beside the released weights, under its published name.
RELEASED_KEY_COUNTS = "all_tags30_frequency1.json"
RELEASED_SUFFIXES = (".pth", ".pt")
HUB_FOLDER = ".hub"  # where the hub's client works; hidden, thus never published

_GDRIVE = "https://drive.google.com"
_PAGE_BYTES = 2**20
_HUB_SPEC = re.compile(
    r"hf:(?P<repo>\w[\w.-]*/\w[\w.-]*)"
    r"(?:@(?P<revision>refs/\w+/\w+|\w[\w.-]*))?"
    r"(?:/(?P<file>[^@]+))?"
)
_DRIVE_SPEC = re.compile(r"gdrive:(?P<id>[\w-]+)")


@dataclass(frozen=True)
class FoundModel:
    """A model that was brought into a folder.

    Attributes:
        weights: name of the weight file.
        source: where it came from.
        licence: of the weights, None where unknown.
        date: of the weights, None where unknown.
        details: for the record.
    """

    weights: str
    source: str
    licence: str | None = None
    date: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class ModelOrigin(Protocol):
    """A remote model."""

    @property
    def name(self) -> str:
        """Its specification without secrets."""
        ...

    def fetch(self, folder: Path, network: Network) -> FoundModel:
        """Brings the weights, and what belongs to them, into a folder.

        Raises:
            UnavailableError: they cannot be had, or are not what their card says.
            OutputError: the disk is full.
        """
        ...


def parse_origin(spec: str) -> ModelOrigin:
    """What a specification names: `hf:owner/repo[@revision][/file]`, an address, `gdrive:ID`.

    Raises:
        ConfigError: it cannot be read.
    """
    if (found := _HUB_SPEC.fullmatch(spec)) and _is_repository(found["repo"]):
        return HubModel(**found.groupdict())
    if found := _DRIVE_SPEC.fullmatch(spec):
        return DriveModel(found["id"])
    if spec.startswith(("http://", "https://")) and _weights_name(_path_of(spec).name):
        return WebModel(spec)
    if is_address(spec) and _weights_name(_path_of(spec).name):
        return StoredModel(spec)
    raise ConfigError(
        f"the model {without_secrets(spec)!r} cannot be read; write hf:owner/repo[@revision], "
        "gdrive:ID, or the address of a .safetensors or .pth file"
    )


def _is_repository(name: str) -> bool:
    # Slow to import, and needed for such specifications only; the second is not in `__all__`.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def json_object(payload: bytes) -> dict[str, Any]:
    """The JSON object in a file's content; empty where there is none."""
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


# The hub


@dataclass(frozen=True)
class HubModel:
    """A file of a repository on the hub.

    Attributes:
        repo: owner/name.
        revision: branch, tag or commit; None is the main branch.
        file: path in the repository; None where there is one weight file only.
    """

    repo: str
    revision: str | None
    file: str | None

    @property
    def name(self) -> str:
        """The specification."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{revision}" + (f"/{self.file}" if self.file else "")

    def fetch(self, folder: Path, network: Network) -> FoundModel:
        """See `ModelOrigin`; a card that is not there is told before the weights are fetched."""
        from geolink.sources.hub import Hub  # slow to import, and needed here only

        hub = Hub(network)
        snapshot = hub.snapshot(self.repo, self.revision)
        weights = self._choose(list(snapshot.hashes))
        beside = _companions(weights, list(snapshot.hashes))
        if not beside and not _is_released(weights):
            raise _no_card(self.name)
        paths = [hub.download(snapshot, name, folder / HUB_FOLDER) for name in (*beside, weights)]
        card = {} if _is_released(weights) else json_object(paths[0].read_bytes())
        _require_hash(paths[-1], card, self.name)
        names = [RELEASED_KEY_COUNTS if _is_released(weights) else CARD] * len(beside)
        for path, name in zip(paths, [*names, paths[-1].name], strict=True):
            os.replace(path, folder / name)
        return FoundModel(
            paths[-1].name,
            f"{hub.endpoint}/{self.repo}",
            _text(card, "licence") or snapshot.licence,
            snapshot.date,
            {"commit": snapshot.commit},
        )

    def _choose(self, files: list[str]) -> str:
        """The weight file: the one named, else ours, else the only one."""
        candidates = sorted(name for name in files if _weights_name(PurePosixPath(name).name))
        if self.file is not None:
            candidates = [name for name in candidates if name == self.file]
        elif WEIGHTS in candidates:
            return WEIGHTS
        if len(candidates) != 1:
            some = ", ".join(candidates[:5]) or "none"
            raise NotFoundError(
                f"{self.name} must name one .safetensors or .pth file and finds {some}; write "
                f"hf:{self.repo}/FILE"
            )
        return candidates[0]


def _companions(weights: str, files: list[str]) -> list[str]:
    """What a repository holds for a weight file: its card, or the published key counts."""
    path = PurePosixPath(weights)
    if not _is_released(weights):
        cards = (str(path.with_suffix(".json")), str(path.with_name(CARD)))
        return [name for name in cards if name in files][:1]
    counts = [name for name in files if PurePosixPath(name).name == RELEASED_KEY_COUNTS]
    return sorted(counts, key=lambda name: PurePosixPath(name).parent != path.parent)[:1]


# The web


@dataclass(frozen=True)
class WebModel:
    """A weight file at an address, with its card or key counts beside it.

    Attributes:
        url: of the weight file.
    """

    url: str

    @property
    def name(self) -> str:
        """The address without secrets."""
        return without_secrets(self.url)

    def fetch(self, folder: Path, network: Network) -> FoundModel:
        """See `ModelOrigin`; a card that is not there is told before the weights are fetched."""
        weights = _weights_name(_path_of(self.url).name)
        card: dict[str, Any] = {}
        if _is_released(weights):
            self._bring_json(RELEASED_KEY_COUNTS, folder / RELEASED_KEY_COUNTS, network)
        else:
            own = PurePosixPath(weights).with_suffix(".json").name
            for name in (own, CARD):
                card = card or self._bring_json(name, folder / CARD, network)
            if not card:
                raise _no_card(self.name)
        path = network.download(
            self.url,
            folder / weights,
            what=f"the model {self.name}",
            sha256=_text(card, "sha256"),
        )
        return FoundModel(path.name, self.url, _text(card, "licence"))

    def _bring_json(self, name: str, target: Path, network: Network) -> dict[str, Any]:
        """The JSON object of a file beside the weights, kept as `target`; empty if there is none.

        Some servers answer with a page where they have no file.
        """
        parts = urlsplit(self.url)
        path = posixpath.join(posixpath.dirname(parts.path), quote(name))
        try:
            payload = network.get_bytes(
                urlunsplit(parts._replace(path=path)), what=f"{name} of the model {self.name}"
            )
        except NotFoundError:
            return {}
        content = json_object(payload)
        if content:
            replace_bytes(target, payload)
        return content


# Other addresses


@dataclass(frozen=True)
class StoredModel:
    """A weight file that fsspec opens (`s3://...`), with its card or key counts beside it.

    Attributes:
        url: of the weight file.
    """

    url: str

    @property
    def name(self) -> str:
        """The address without secrets."""
        return without_secrets(self.url)

    def fetch(self, folder: Path, network: Network) -> FoundModel:
        """See `ModelOrigin`; a card that is not there is told before the weights are fetched."""
        weights = file_name(self.url)
        own = PurePosixPath(weights).with_suffix(".json").name
        released = _is_released(weights)
        names = [RELEASED_KEY_COUNTS] if released else [own, CARD]
        beside = folder / names[-1]
        for name in names:
            with suppress(NotFoundError):
                copy_here(f"{self.url.rpartition('/')[0]}/{name}", beside, network=network)
                break
        card = json_object(beside.read_bytes()) if beside.is_file() and not released else {}
        if not (card or released):
            raise _no_card(self.name)
        copy_here(self.url, folder / weights, network=network)
        _require_hash(folder / weights, card, self.name)
        return FoundModel(weights, self.url, _text(card, "licence"))


# Google Drive


@dataclass(frozen=True)
class DriveModel:
    """A released weight file on Google Drive; `GEOLINK_GDRIVE_URL` names a mirror.

    Attributes:
        id: of the shared file.
    """

    id: str

    @property
    def name(self) -> str:
        """The specification."""
        return f"gdrive:{self.id}"

    def fetch(self, folder: Path, network: Network) -> FoundModel:
        """See `ModelOrigin`."""
        host = os.environ.get("GEOLINK_GDRIVE_URL", _GDRIVE).rstrip("/")
        url = f"{host}/uc?{urlencode({'export': 'download', 'id': self.id})}"
        what = f"the model {self.name}"
        with network.open(url, what=what) as response:
            page = _page_of(response)
            given = _given_name(response)
        if page:
            url = self._confirmed(page, response.url)
            with network.open(url, what=what) as response:
                given = _given_name(response)
        weights = _weights_name(given) or "model.pth"
        if not _is_released(weights):
            raise _no_card(self.name)
        path = network.download(url, folder / weights, what=what)
        return FoundModel(path.name, f"{host}/file/d/{self.id}")

    def _confirmed(self, page: str, url: str) -> str:
        """The address behind the question that is asked before a large file."""
        form = _DownloadForm()
        form.feed(page)
        target = urljoin(url, form.action)
        if not form.action or urlsplit(target).scheme not in ("https", urlsplit(url).scheme):
            raise UnavailableError(
                f"the model {self.name} cannot be fetched: Google Drive shows a page "
                f"({form.title.strip()[:80] or 'untitled'}) instead of the file; is it shared with "
                "everyone, and not over its quota?"
            )
        return f"{target}?{urlencode(form.fields)}"


class _DownloadForm(HTMLParser):
    """The form of a page that leads to a download.

    Attributes:
        action: its address, empty where the page has no such form.
        fields: its hidden inputs.
        title: of the page.
    """

    def __init__(self) -> None:
        super().__init__()
        self.action = self.title = ""
        self.fields: dict[str, str] = {}
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attrs}
        self._in_title = tag == "title"
        if tag == "form" and of.get("id") == "download-form":
            self.action = of.get("action", "")
        elif tag == "input" and of.get("type") == "hidden" and "name" in of:
            self.fields[of["name"]] = of.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        self._in_title = False


def _page_of(response: requests.Response) -> str:
    """The web page that an answer is, empty where it is a file."""
    if "text/html" not in response.headers.get("Content-Type", "").lower():
        return ""
    start: bytes = next(response.iter_content(_PAGE_BYTES), b"")
    return start.decode("utf-8", "replace")


def _given_name(response: requests.Response) -> str:
    """The file name that an answer suggests."""
    head = Message()
    head["Content-Disposition"] = response.headers.get("Content-Disposition", "")
    return head.get_filename("")


# Names and checks


def _path_of(url: str) -> PurePosixPath:
    try:
        return PurePosixPath(unquote(urlsplit(url).path))
    except ValueError:
        return PurePosixPath()


def _weights_name(name: str) -> str:
    """`name` if it is a plain one of a weight file, else nothing."""
    plain = re.fullmatch(r"\w[\w .()+-]{0,99}\.(safetensors|pth|pt)", name)
    return name if plain else ""


def _is_released(weights: str) -> bool:
    return weights.endswith(RELEASED_SUFFIXES)


def _no_card(name: str) -> UnavailableError:
    return UnavailableError(f"{name} has no {CARD} beside its weights, without which they are mute")


def _text(card: Mapping[str, Any], name: str) -> str | None:
    value = card.get(name)
    return value if isinstance(value, str) and value else None


def _require_hash(weights: Path, card: Mapping[str, Any], name: str) -> None:
    """Refuse weights that are not the card's; they are deleted, so that they are fetched again."""
    expected = _text(card, "sha256")
    if expected is not None and sha256_of(weights) != expected:
        weights.unlink()
        raise UnavailableError(
            f"the weights of {name} have another checksum than its card says; "
            "run the same command again, or ask its author"
        )
