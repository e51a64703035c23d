"""From the name of a place to its area: bundled, in the cache, in the catalogue, or geocoded."""

from dataclasses import replace

import shapely

from geolink.errors import ConfigError, UnavailableError
from geolink.files import replace_bytes
from geolink.sources.boundaries import boundary_of
from geolink.sources.cache import Cache, Entry
from geolink.sources.extracts import Extract, extract_called, name_key, near_names
from geolink.sources.geocode import geocode
from geolink.sources.network import Network
from geolink.sources.osm_fetch import fetch_extract, fetch_osm
from geolink.sources.places import (
    SAMPLE_CITY,
    Place,
    place_from_extract,
    place_from_file,
    sample_extract,
    sample_place,
    slug,
)


def find_place(name: str, *, network: Network, cache: Cache, boundary: str | None = None) -> Place:
    """The place with a name.

    It is the bundled `sample`, or is looked for among the places of the cache (registered, or
    geocoded before), in the offline catalogue, and with the geocoder.

    Args:
        name: spelling is taken lightly.
        network: for the geocoder, and for the extract that a boundary is read from.
        cache: of places and extracts.
        boundary: an administrative boundary within the place; its area is then the place's.

    Raises:
        ConfigError: a name is empty, or several places have it; they are listed.
        UnavailableError: nothing has this name, and near ones are suggested; or what is needed
            cannot be had from the network.
        InputError: the boundary is not in the extract, or the area cannot be mapped.
    """
    if not name_key(name) or (boundary is not None and not name_key(boundary)):
        raise ConfigError("the name of a place or boundary must have letters or digits")
    if name_key(name) == SAMPLE_CITY:
        return _part_of_sample(boundary)
    if boundary is not None:
        return _place_of_boundary(name, boundary, cache=cache, network=network)
    found = _look_up(name, cache=cache, network=network)
    return place_from_extract(found) if isinstance(found, Extract) else _place_of_entry(found)


def _look_up(name: str, *, cache: Cache, network: Network) -> Entry | Extract:
    """The entry of the cache or the extract of the catalogue that a name means."""
    return (
        cache.find("place", name)
        or cache.find("place", slug(name))
        or extract_called(name)
        or _geocoded(name, cache=cache, network=network)
    )


def _part_of_sample(boundary: str | None) -> Place:
    """The sample, or a part of it, which keeps the name: its data is bundled all the same."""
    sample = sample_place()
    area = sample.aoi if boundary is None else boundary_of(sample_extract(), boundary)
    return replace(sample, aoi=area)


def _geocoded(name: str, *, cache: Cache, network: Network) -> Entry:
    """The place as the geocoder knows it; without it, the nearest names of the catalogue."""
    near = near_names(name, SAMPLE_CITY)
    hint = f"did you mean {' or '.join(near)}?" if near else "give the area with --bbox or --aoi"
    if network.offline:
        raise UnavailableError(
            f"no place is called {name!r} in the cache or the catalogue, and --offline forbids to "
            f"ask the geocoder; {hint}"
        )
    try:
        entry = geocode(name, cache=cache, network=network)
    except UnavailableError as error:
        raise UnavailableError(
            f"no place in the cache or the catalogue is called {name!r} ({hint}), and {error}"
        ) from error.__cause__
    if entry is None:
        raise UnavailableError(
            f"no place in the catalogue or on the map is called {name!r}; {hint}"
        )
    return entry


def _place_of_boundary(name: str, boundary: str, *, cache: Cache, network: Network) -> Place:
    """The area of a boundary within a place, kept in the cache: large extracts take long."""
    key = f"{slug(name)}-{slug(boundary)}"  # slugs have no hyphens
    entry = cache.find("place", key)
    if entry is None:
        found = _look_up(name, cache=cache, network=network)
        if isinstance(found, Extract):  # which may be too wide to be a place itself
            osm = fetch_extract(found, cache=cache, network=network)
        else:
            osm = fetch_osm(_place_of_entry(found), cache=cache, network=network)
        area = boundary_of(osm.path, boundary)
        info = replace(osm.info, description=f"{boundary} in {osm.info.description}")
        with cache.staging("place", key) as staging:
            replace_bytes(staging / "area.geojson", shapely.to_geojson(area).encode())
            entry = cache.publish("place", key, staging, source=osm.source, info=info)
    return _place_of_entry(entry)


def _place_of_entry(entry: Entry) -> Place:
    return replace(place_from_file(entry.path), name=slug(entry.name))
