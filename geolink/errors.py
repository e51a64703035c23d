"""The errors a user can meet. Every message says what is wrong, where, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class GeolinkError(Exception):
    """Root of all errors that geolink raises on purpose."""


class InputError(GeolinkError, ValueError):
    """An input file, option or value cannot be used as given."""


class CRSError(InputError):
    """A coordinate reference system is missing, not metric, or does not match."""


class CoverageError(InputError):
    """The area of interest is empty or does not meet the data."""


class GraphError(InputError):
    """Entities of a tile cannot be turned into a graph."""


class ConfigError(InputError):
    """Settings contradict one another or are unknown."""


class CheckpointError(GeolinkError):
    """Model weights or their card are missing parts, damaged, or of another kind."""


class UnavailableError(GeolinkError):
    """Data or a model is not here and cannot be fetched (offline, not found, bad checksum)."""


class OutputError(GeolinkError, OSError):
    """A result cannot be written: missing folder, no permission, disk full, or it exists."""


class GeolinkWarning(UserWarning):
    """Root of geolink's warnings."""


class DroppedEntitiesWarning(GeolinkWarning):
    """Some OSM entities were unusable and were left out; the message counts them."""


@contextmanager
def place_named(name: str, *, several: bool) -> Iterator[None]:
    """Where there are several places, says in the message of an error which one it is about."""
    try:
        yield
    except GeolinkError as error:
        if not several:
            raise
        raise type(error)(f"in {name}: {error}") from error
