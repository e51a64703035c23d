"""OSM as it might be: objects missing, out of place, or tagged as something else.

What happens to an object follows from a seed and its name, so that all its parts fare alike, that
tiles agree, and that what goes at a share of 0.2 goes at 0.5 too: differences between shares are
differences of shares, not of luck.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray

from geolink.errors import ConfigError
from geolink.sources.entities import ENTITY_TYPES, EntityType, OsmEntities


def drop_objects(
    entities: OsmEntities,
    share: float,
    *,
    seed: int | str,
    kinds: Collection[EntityType] = ENTITY_TYPES,
    tag: str = "",
) -> OsmEntities:
    """Leaves out a share of the objects.

    Args:
        entities: OSM of a scene; it is not changed.
        share: probability of each object to be missing, 0-1.
        seed: of the draw.
        kinds: the types that objects are taken from.
        tag: `key=value`, or `key=*` for any value: only objects with it are taken; all by default.
    """
    require_share(share)
    keep = {}
    for kind in kinds:
        frame = entities.frame(kind)
        stays = draws(frame["osm_id"], seed, "drop") >= share
        keep[kind] = stays | ~_tagged(frame["tags"], tag) if tag else stays
    return entities.select(keep)


def shift_objects(entities: OsmEntities, metres: float, *, seed: int | str) -> OsmEntities:
    """Moves every object by a distance, each in a direction of its own.

    Args:
        entities: OSM of a scene in its metric CRS; it is not changed.
        metres: how far.
        seed: of the directions.
    """
    if not metres >= 0:
        raise ConfigError(f"objects are shifted by a distance of 0 m or more, not {metres}")
    frames = {}
    for kind in ENTITY_TYPES:
        frame = entities.frame(kind)
        offset = metres * directions(frame["osm_id"], seed)
        geometry = frame.geometry.to_numpy()
        xy, owner = shapely.get_coordinates(geometry, return_index=True)
        moved = shapely.set_coordinates(geometry.copy(), xy + offset[owner])
        frames[kind] = frame.set_geometry(moved, crs=frame.crs)
    return replace(entities, **frames)


def retag_objects(entities: OsmEntities, share: float, *, seed: int | str) -> OsmEntities:
    """Gives a share of the objects the tags of another object of their type.

    Args:
        entities: OSM of a scene; it is not changed.
        share: probability of each object to be mistaken for another, 0-1.
        seed: of the draw.
    """
    frames = {}
    for kind in ENTITY_TYPES:
        frame = entities.frame(kind)
        rows = mistaken_rows(frame["osm_id"], share, seed)
        frames[kind] = frame.assign(tags=frame["tags"].to_numpy()[rows])
    return replace(entities, **frames)


def draws(names: Iterable[object], seed: int | str, what: str) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1) that follow from a seed, what they decide, and each object's name."""
    head = f"{seed} {what} "
    digests = (hashlib.blake2b(f"{head}{name}".encode(), digest_size=4).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<u4") / 2.0**32


def directions(names: Iterable[object], seed: int | str) -> NDArray[np.float64]:
    """(n, 2) vectors of length 1, in which objects are shifted."""
    angle = 2 * np.pi * draws(names, seed, "shift")
    return np.column_stack([np.cos(angle), np.sin(angle)])


def mistaken_rows(names: Collection[object], share: float, seed: int | str) -> NDArray[np.intp]:
    """(n,) row of the object that each is taken for: for a share another one's, else its own."""
    require_share(share)
    wrong = draws(names, seed, "retag") < share
    donor = (draws(names, seed, "donor") * len(names)).astype(np.intp)
    return np.where(wrong, donor, np.arange(len(names)))


def require_share(share: float) -> None:
    """Check that a share lies between 0 and 1.

    Raises:
        ConfigError: it does not.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"a share of objects is between 0 and 1, not {share:g}")


def _tagged(tags: Iterable[Mapping[str, str]], tag: str) -> NDArray[np.bool_]:
    """(n,) True where an object has a tag `key=value`, or `key=*`."""
    key, _, value = tag.partition("=")
    return np.array([key in each and value in ("*", each[key]) for each in tags], bool)
