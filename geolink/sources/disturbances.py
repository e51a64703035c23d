"""OSM as it might be: objects missing, out of place, or tagged as something else.

What happens to an object follows from a seed and its name, so that all its parts fare alike, that
tiles agree, and that what goes at a share of 0.2 goes at 0.5 too: differences between shares are
differences of shares, not of luck.
"""

import hashlib
from collections.abc import Collection
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
    seed: int,
    kinds: Collection[EntityType] = ENTITY_TYPES,
) -> OsmEntities:
    """Leaves out a share of the objects.

    Args:
        entities: OSM of a scene; it is not changed.
        share: probability of each object to be missing, 0-1.
        seed: of the draw.
        kinds: the types that objects are taken from.
    """
    _require_share(share)
    keep = {kind: _draws(entities, kind, seed, "drop") >= share for kind in kinds}
    return entities.select(keep)


def shift_objects(entities: OsmEntities, metres: float, *, seed: int) -> OsmEntities:
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
        angle = 2 * np.pi * _draws(entities, kind, seed, "shift")
        offset = metres * np.column_stack([np.cos(angle), np.sin(angle)])
        geometry = frame.geometry.to_numpy()
        xy, owner = shapely.get_coordinates(geometry, return_index=True)
        moved = shapely.set_coordinates(geometry.copy(), xy + offset[owner])
        frames[kind] = frame.set_geometry(moved, crs=frame.crs)
    return replace(entities, **frames)


def retag_objects(entities: OsmEntities, share: float, *, seed: int) -> OsmEntities:
    """Gives a share of the objects the tags of another object of their type.

    Args:
        entities: OSM of a scene; it is not changed.
        share: probability of each object to be mistaken for another, 0-1.
        seed: of the draw.
    """
    _require_share(share)
    frames = {}
    for kind in ENTITY_TYPES:
        frame = entities.frame(kind)
        tags = frame["tags"].to_numpy()
        wrong = _draws(entities, kind, seed, "retag") < share
        donor = (_draws(entities, kind, seed, "donor") * len(frame)).astype(np.intp)
        mistaken = tags.copy()
        mistaken[wrong] = tags[donor[wrong]]
        frames[kind] = frame.assign(tags=mistaken)
    return replace(entities, **frames)


def _draws(entities: OsmEntities, kind: EntityType, seed: int, what: str) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1) that follow from the seed and each object's name."""
    names = entities.frame(kind)["osm_id"]
    head = f"{seed} {what} "
    digests = (hashlib.blake2b(f"{head}{name}".encode(), digest_size=4).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<u4") / 2.0**32


def _require_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"a share of objects is between 0 and 1, not {share:g}")
