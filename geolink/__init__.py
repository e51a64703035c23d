"""Urban functional zones from imagery and OpenStreetMap, after GeoLink (Bai et al. 2025)."""

from geolink._version import __version__

__all__ = ["__version__"]
