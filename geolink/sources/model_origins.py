"""Where models come from: a repository on the hub, a web address, Google Drive."""

import os
import posixpath
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from geolink.errors import ConfigError
from geolink.files import replace_bytes
from geolink.sources.addresses import copy_here, file_name, is_address
from geolink.sources.google_drive import DriveModel
from geolink.sources.model_files import (
    CARD,
    RELEASED_KEY_COUNTS,
    WEIGHTS,
    FoundModel,
    is_released,
    json_object,
    no_card,
    require_hash,
    text_of,
    weights_name,
)
from geolink.sources.network import Network, NotFoundError, without_secrets

HUB_FOLDER = ".hub"  # where the hub's client works; hidden, thus never published

_HUB_SPEC = re.compile(
    r"hf:(?P<repo>\w[\w.-]*/\w[\w.-]*)"
    r"(?:@(?P<revision>refs/\w+/\w+|\w[\w.-]*))?"
    r"(?:/(?P<file>[^@]+))?"
)
_DRIVE_SPEC = re.compile(r"gdrive:(?P<id>[\w-]+)")


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
    if spec.startswith(("http://", "https://")) and weights_name(_path_of(spec).name):
        return WebModel(spec)
    if is_address(spec) and weights_name(_path_of(spec).name):
        return StoredModel(spec)
    raise ConfigError(
        f"the model {without_secrets(spec)!r} cannot be read; write hf:owner/repo[@revision], "
        "gdrive:ID, or the address of a .safetensors or .pth file"
    )


def _path_of(url: str) -> PurePosixPath:
    try:
        return PurePosixPath(unquote(urlsplit(url).path))
    except ValueError:
        return PurePosixPath()


def _is_repository(name: str) -> bool:
    # Slow to import, and needed for such specifications only; the second is not in `__all__`.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


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
        if not beside and not is_released(weights):
            raise no_card(self.name)
        paths = [hub.download(snapshot, name, folder / HUB_FOLDER) for name in (*beside, weights)]
        card = {} if is_released(weights) else json_object(paths[0].read_bytes())
        require_hash(paths[-1], card, self.name)
        names = [RELEASED_KEY_COUNTS if is_released(weights) else CARD] * len(beside)
        for path, name in zip(paths, [*names, paths[-1].name], strict=True):
            os.replace(path, folder / name)
        return FoundModel(
            paths[-1].name,
            f"{hub.endpoint}/{self.repo}",
            text_of(card, "licence") or snapshot.licence,
            snapshot.date,
            {"commit": snapshot.commit},
        )

    def _choose(self, files: list[str]) -> str:
        """The weight file: the one named, else ours, else the only one."""
        candidates = sorted(name for name in files if weights_name(PurePosixPath(name).name))
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
    if not is_released(weights):
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
        weights = weights_name(_path_of(self.url).name)
        card: dict[str, Any] = {}
        if is_released(weights):
            self._bring_json(RELEASED_KEY_COUNTS, folder / RELEASED_KEY_COUNTS, network)
        else:
            own = PurePosixPath(weights).with_suffix(".json").name
            for name in (own, CARD):
                card = card or self._bring_json(name, folder / CARD, network)
            if not card:
                raise no_card(self.name)
        path = network.download(
            self.url,
            folder / weights,
            what=f"the model {self.name}",
            sha256=text_of(card, "sha256"),
        )
        return FoundModel(path.name, self.url, text_of(card, "licence"))

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
        released = is_released(weights)
        names = [RELEASED_KEY_COUNTS] if released else [own, CARD]
        beside = folder / names[-1]
        for name in names:
            with suppress(NotFoundError):
                copy_here(f"{self.url.rpartition('/')[0]}/{name}", beside, network=network)
                break
        card = json_object(beside.read_bytes()) if beside.is_file() and not released else {}
        if not (card or released):
            raise no_card(self.name)
        copy_here(self.url, folder / weights, network=network)
        require_hash(folder / weights, card, self.name)
        return FoundModel(weights, self.url, text_of(card, "licence"))
