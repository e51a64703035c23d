"""How a workflow tells how far it is."""

from geolink.sources.network import Progress

__all__ = ["Progress", "silent"]


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
