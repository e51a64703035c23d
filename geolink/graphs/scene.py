"""Graphs of a scene's tiles: tags are encoded once, then every tile only cuts and relates."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from shapely import STRtree, box
from torch_geometric.data import HeteroData

from geolink.graphs.build import graph_from_arrays
from geolink.graphs.tags import TagEncoder, encode_tags
from geolink.grid import Bounds
from geolink.sources.entities import ENTITY_TYPES, EntityType, OsmEntities


class SceneGraphs:
    """Builds the OSM graph of any tile of one scene.

    Args:
        entities: all OSM entities of the scene.
        encoder: turns tag strings into vectors.
        key_counts: corpus count per tag key, the weights of the semantic mean (METHOD section 1).
    """

    def __init__(
        self, entities: OsmEntities, encoder: TagEncoder, key_counts: Mapping[str, int]
    ) -> None:
        self.geometries: dict[EntityType, NDArray[np.object_]] = {}
        self.identifiers: dict[EntityType, NDArray[np.object_]] = {}
        self.semantics: dict[EntityType, NDArray[np.float32]] = {}
        self._trees: dict[EntityType, STRtree] = {}
        for kind in ENTITY_TYPES:
            frame = entities.frame(kind)
            self.geometries[kind] = frame.geometry.to_numpy()
            self.identifiers[kind] = frame["osm_id"].to_numpy()
            self.semantics[kind] = encode_tags(frame["tags"].tolist(), encoder, key_counts)
            self._trees[kind] = STRtree(self.geometries[kind])

    def rows_within(self, bounds: Bounds) -> dict[EntityType, NDArray[np.int64]]:
        """Rows of the entities that meet a tile, ascending, per type."""
        tile = box(*bounds)
        return {
            kind: np.sort(tree.query(tile, predicate="intersects"))
            for kind, tree in self._trees.items()
        }

    def build(self, bounds: Bounds) -> HeteroData:
        """The graph of one tile.

        Returns:
            A graph as `geolink.build_graph` makes it; `graph[type].source` holds the row of each
            node in the scene's frame of that type.
        """
        rows = self.rows_within(bounds)
        graph = graph_from_arrays(
            {kind: self.geometries[kind][rows[kind]] for kind in ENTITY_TYPES},
            {kind: self.semantics[kind][rows[kind]] for kind in ENTITY_TYPES},
            bounds,
            identifiers={kind: self.identifiers[kind][rows[kind]] for kind in ENTITY_TYPES},
        )
        for kind in ENTITY_TYPES:
            source = graph[kind].source.numpy()
            graph[kind].source = graph[kind].source.new_tensor(rows[kind][source])
        return graph
