"""Files at addresses that fsspec opens, such as `s3://bucket/file`: copied here, and put there.

Web addresses are read by our own network, which goes on where a download was cut.
"""

import re
import secrets
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from geolink.errors import ConfigError, GeolinkError, OutputError, UnavailableError
from geolink.files import full_disk_named
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.entries import Kind
from geolink.sources.network import Network, NotFoundError, without_secrets

_WEB = ("http://", "https://")


def is_address(spec: str | Path) -> bool:
    """Whether a specification is an address, `scheme://...`."""
    return re.match(r"[a-z][a-z0-9+.-]+://", str(spec)) is not None


def address_of(path: Path) -> str | None:
    """The address that a path is, which folds its slashes into one; None of true paths."""
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):/+(.+)", path.as_posix())
    return f"{found[1]}://{'/' * (found[1] == 'file')}{found[2]}" if found else None


def local_path(address: str) -> Path | None:
    """The file of a `file://` address, None of others."""
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def file_name(address: str) -> str:
    """The name of the file at an address.

    Raises:
        ConfigError: it names none.
    """
    name = PurePosixPath(unquote(urlsplit(address).path)).name or urlsplit(address).netloc
    if not name or name.startswith(".") or name.endswith(".part") or "\\" in name:
        raise ConfigError(f"the address {without_secrets(address)} names no file; write it in full")
    return name


def cached_copy(address: str, kind: Kind, *, cache: Cache, network: Network) -> Path:
    """A copy of the file at an address, which is made once; removing its entry makes a new one.

    Raises:
        ConfigError: the address names no file.
        UnavailableError: it cannot be had, or is not here and the network may not be used.
        OutputError: the cache cannot be written.
    """
    here = local_path(address)
    if here is not None:
        return here
    name, file = without_secrets(address), file_name(address)
    entry = cache.find(kind, name)
    if entry is None:
        if network.offline:
            raise UnavailableError(
                f"{name} is not in the cache, and nothing may be fetched now; run `geolink "
                "predict` once without --offline and --dry-run"
            )
        with cache.staging(kind, name) as folder:
            entry = cache.find(kind, name)  # of another process
            if entry is None:
                copy_here(address, folder / file, network=network)
                entry = cache.publish(kind, name, folder, source=address, info=SourceInfo(file))
    return entry.file(file)


def copy_here(address: str, target: Path, *, network: Network, what: str = "") -> None:
    """Copies the file at an address; `what` it is, for messages.

    Raises:
        NotFoundError: there is none.
        UnavailableError: it cannot be had.
        OutputError: the disk is full.
    """
    where = without_secrets(address)
    if address.startswith(_WEB):
        network.download(address, target, what=what or where)
        return
    try:
        with full_disk_named(target):
            system, path = _opened(address)
            system.get_file(path, str(target))
    except GeolinkError:
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {where}; check the address") from error
    except Exception as error:  # whatever the library of a protocol raises
        named = f"{what} cannot be fetched from {where}" if what else f"{where} cannot be fetched"
        raise UnavailableError(f"{named} ({_reason(error)})") from error


def require_target(address: str, *, overwrite: bool) -> None:
    """Check that a file can be put at an address, by putting an empty one beside it.

    Raises:
        OutputError: it cannot, or there is one.
    """
    what = without_secrets(address)
    file_name(address)
    try:
        system, path = _opened(address)
        if not overwrite and system.exists(path):
            raise OutputError(f"{what} exists; choose another name or allow overwriting it")
        probe = _beside(path)
        system.pipe_file(probe, b"")
        system.rm_file(probe)
    except GeolinkError:
        raise
    except Exception as error:
        raise OutputError(f"{what} cannot be written ({_reason(error)})") from error


def put_there(source: Path, address: str) -> None:
    """Makes a file the one at an address: under another name first, then moved when it is whole.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        system, path = _opened(address)
        arriving = _beside(path)
        try:
            system.put_file(str(source), arriving)
            system.mv(arriving, path)
        except BaseException:
            if system.exists(arriving):
                system.rm_file(arriving)
            raise
    except Exception as error:
        raise OutputError(
            f"{without_secrets(address)} cannot be written ({_reason(error)}); the file is whole "
            f"in {source}: copy it from there"
        ) from error


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    import fsspec  # type: ignore[import-untyped]

    system, path = fsspec.url_to_fs(address)
    return system, path


def _beside(path: str) -> str:
    return f"{path}.{secrets.token_hex(4)}.part"


def _reason(error: Exception) -> str:
    """What a library of a protocol says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
