"""Where the shards of a set lie: in a folder, or at an address from which they are fetched.

An address is one of the web, or of whatever else fsspec opens (`s3://bucket/set`). Each shard is
fetched when the first sample of it is asked for, checked against the manifest's hash, and kept in
the cache under that hash, for all processes of a machine.
"""

import os
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from geolink.errors import InputError
from geolink.files import full_disk_named, sha256_of
from geolink.sources.addresses import copy_here, is_address
from geolink.sources.cache import cache_folder
from geolink.sources.manifest import MANIFEST, Manifest, Shard
from geolink.sources.network import Network, without_secrets


class ShardStore(Protocol):
    """The shards of a set, as files."""

    @property
    def manifest(self) -> Manifest:
        """What is in the set."""
        ...

    def path(self, number: int) -> Path:
        """The file of a shard.

        Raises:
            InputError: the shard is not what the manifest says.
            UnavailableError: it cannot be had at the moment.
        """
        ...


def open_store(place: str | Path, *, offline: bool = False) -> ShardStore:
    """The shards in a folder, or at an address.

    Args:
        place: holds `manifest.json` and the shards.
        offline: use nothing but what is here.

    Raises:
        InputError: the manifest is missing or damaged, or names no sample.
        UnavailableError: it cannot be had.
    """
    if not is_address(place):
        return FolderStore(Path(place), Manifest.load(place))
    url = str(place).rstrip("/")
    folder = cache_folder() / "shards" / sha256(url.encode()).hexdigest()[:16]
    return FetchedStore(url, folder, _fetched_manifest(url, folder, offline), offline)


@dataclass(frozen=True)
class FolderStore:
    """Shards in a folder."""

    folder: Path
    manifest: Manifest

    def path(self, number: int) -> Path:
        """The file beside the manifest."""
        return self.folder / self.manifest.shards[number].name


@dataclass(frozen=True)
class FetchedStore:
    """Shards at an address, which are fetched one by one.

    Attributes:
        url: of the folder that holds the manifest.
        folder: of the cache, where they are kept.
        manifest: what is in the set.
        offline: use nothing but what is here.
    """

    url: str
    folder: Path
    manifest: Manifest
    offline: bool = False
    _wrong: set[str] = field(default_factory=set, compare=False)  # not fetched again

    def path(self, number: int) -> Path:
        """The file of a shard in the cache, fetched where it is not there yet."""
        shard = self.manifest.shards[number]
        path = self.folder / f"{shard.sha256[:16]}-{shard.name}"
        if path.exists():
            return path
        if shard.name not in self._wrong:
            with full_disk_named(path), FileLock(self.folder / f".{path.name}.lock"):
                if path.exists() or self._fetch(shard, path):
                    return path
        self._wrong.add(shard.name)
        raise InputError(
            f"the shard {shard.name} at {without_secrets(self.url)} has another checksum than its "
            "manifest says"
        )

    def _fetch(self, shard: Shard, path: Path) -> bool:
        """Fetches a shard; whether it is what the manifest says. Another one is not kept."""
        arriving = path.with_name(f".{path.name}")
        what = f"the shard {shard.name}"
        _fetch_file(f"{self.url}/{shard.name}", arriving, what=what, offline=self.offline)
        if sha256_of(arriving) != shard.sha256:
            arriving.unlink()
            return False
        arriving.rename(path)
        return True


def _fetched_manifest(url: str, folder: Path, offline: bool) -> Manifest:
    """The manifest at an address; offline, the one that was fetched last."""
    kept = folder / MANIFEST
    if offline and kept.is_file():
        return Manifest.load(folder)
    arriving = folder / f".{MANIFEST}.{os.getpid()}"
    try:
        with full_disk_named(kept):
            folder.mkdir(parents=True, exist_ok=True)
            _fetch_file(f"{url}/{MANIFEST}", arriving, what="the manifest", offline=offline)
            manifest = Manifest.parse(arriving.read_bytes(), where=without_secrets(url))
            arriving.rename(kept)
    finally:
        for left in folder.glob(f"*{arriving.name}*"):
            left.unlink(missing_ok=True)
    return manifest


def _fetch_file(url: str, target: Path, *, what: str, offline: bool) -> None:
    """A file from an address; what a web server cut goes on where it ended.

    Raises:
        UnavailableError: it cannot be had.
        OutputError: the disk is full.
    """
    network = Network(offline=offline)
    network.require(f"{what} at {without_secrets(url)}", "geolink pretrain")
    copy_here(url, target, network=network, what=what)
