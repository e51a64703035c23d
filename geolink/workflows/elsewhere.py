"""Requests that name files at addresses: sources are copied here first, outputs put there last."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from geolink.files import full_disk_named
from geolink.sources.addresses import (
    address_of,
    cached_copy,
    file_name,
    is_address,
    local_path,
    put_there,
    require_target,
)
from geolink.sources.cache import Cache
from geolink.sources.entries import Kind
from geolink.workflows.request import PredictRequest
from geolink.workflows.site import Supply
from geolink.workflows.work_folder import work_folder

_SOURCES: tuple[Kind, ...] = ("imagery", "osm")
_OUTPUTS = ("preview", "probabilities", "raster", "out")  # in the order in which they appear


def sources_here(request: PredictRequest, supply: Supply) -> PredictRequest:
    """The request with copies of the imagery and OSM that it names by addresses.

    Raises:
        ConfigError: an address names no file.
        UnavailableError: a file cannot be had, or is not here and nothing may be fetched.
    """
    copies: dict[str, Any] = {}
    for kind in _SOURCES:
        spec = getattr(request, kind)
        if spec is not None and is_address(spec):
            copies[kind] = cached_copy(str(spec), kind, cache=supply.cache, network=supply.network)
    return replace(request, **copies)


@contextmanager
def outputs_there(request: PredictRequest, cache: Cache) -> Iterator[PredictRequest]:
    """The request with outputs here, which are put at the addresses that it names when all is well.

    They are made in the cache, in a folder of each address, where a run that was cut goes on.

    Raises:
        OutputError: a file cannot be put there, or is there already.
    """
    addresses = {
        name: address
        for name in _OUTPUTS
        if (path := getattr(request, name)) is not None and (address := address_of(path))
    }
    here: dict[str, Any] = {}
    away: dict[str, Path] = {}
    for name, address in addresses.items():
        path = local_path(address)
        if path is None:
            path = away[name] = _place_of(address, cache)
            require_target(address, overwrite=request.overwrite or _is_unfinished(request, path))
            _make_empty(path)
        here[name] = path
    yield replace(request, **here)
    for name, path in away.items():
        put_there(path, addresses[name])
        path.unlink()
        with suppress(OSError):  # of a folder that still has what is needed to go on
            path.parent.rmdir()


def shown(path: Path | str) -> Path | str:
    """An output as it was asked for: an address, or a path."""
    return address_of(Path(path)) or path


def _place_of(address: str, cache: Cache) -> Path:
    """Where the file of an address is made."""
    folder = cache.root / "outputs" / sha256(address.encode()).hexdigest()[:16]
    return folder / file_name(address)


def _is_unfinished(request: PredictRequest, path: Path) -> bool:
    """Whether an earlier run has left tiles to try again."""
    return request.resume and work_folder(path).is_dir()


def _make_empty(path: Path) -> None:
    """Makes the folder of a file, and removes what an upload that failed has left."""
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
