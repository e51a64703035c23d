"""OSM entities of a scene: three frames in one metric CRS, with their provenance."""

from dataclasses import dataclass, field, replace
from typing import Literal

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from shapely import box

from geolink.grid import Bounds
from geolink.sources.base import SourceInfo

EntityType = Literal["point", "line", "polygon"]
ENTITY_TYPES: tuple[EntityType, ...] = ("point", "line", "polygon")

_OSM_TYPE_ORDER = {"node": 0, "way": 1, "relation": 2}


@dataclass(frozen=True)
class OsmEntities:
    """Points, lines and polygons of a scene.

    Each frame has the columns `osm_id` (`node/1`, `way/2`, `relation/3`), `tags` (dict of str to
    str, keys as OSM spells them) and `geometry` (valid, single-part, not empty), a RangeIndex, and
    the scene's metric CRS.

    Attributes:
        point, line, polygon: the frames.
        info: where they come from.
        dropped: number of entities left out, by reason.
    """

    point: gpd.GeoDataFrame
    line: gpd.GeoDataFrame
    polygon: gpd.GeoDataFrame
    info: SourceInfo
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def crs(self) -> CRS:
        """The scene's metric CRS."""
        crs: CRS = self.polygon.crs
        return crs

    def __len__(self) -> int:
        return len(self.point) + len(self.line) + len(self.polygon)

    def frame(self, kind: EntityType) -> gpd.GeoDataFrame:
        """The frame of one entity type."""
        frame: gpd.GeoDataFrame = getattr(self, kind)
        return frame

    def select(self, masks: dict[EntityType, NDArray[np.bool_]]) -> "OsmEntities":
        """Only the rows whose mask is True; types without a mask stay whole."""
        frames = {
            kind: self.frame(kind).loc[mask].reset_index(drop=True) for kind, mask in masks.items()
        }
        return replace(self, **frames)

    def within(self, bounds: Bounds) -> "OsmEntities":
        """The entities that meet a rectangle, whole (not clipped), in their order."""
        masks: dict[EntityType, NDArray[np.bool_]] = {}
        for kind in ENTITY_TYPES:
            frame = self.frame(kind)
            mask = np.zeros(len(frame), dtype=bool)
            mask[frame.sindex.query(box(*bounds), predicate="intersects")] = True
            masks[kind] = mask
        return self.select(masks)

    def count_meeting(self, polygons: NDArray[np.object_]) -> NDArray[np.int64]:
        """(n,) number of entities that intersect each polygon."""
        counts = np.zeros(len(polygons), np.int64)
        for kind in ENTITY_TYPES:
            of, _ = self.frame(kind).sindex.query(polygons, predicate="intersects")
            counts += np.bincount(of, minlength=len(polygons))
        return counts


def sorting_text(osm_id: str) -> str:
    """What entities are sorted by: nodes, ways, relations, then features of other files, by number.

    Texts compare alike in Python and in a database.
    """
    kind, _, number = osm_id.rpartition("/")
    digits = number.lstrip("0") if number.isdecimal() else ""
    order = _OSM_TYPE_ORDER.get(kind, 3)
    return f"{order}{kind}/{len(digits):06}{digits}/{number}"
