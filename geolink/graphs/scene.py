"""Graphs of a scene's tiles: tags are encoded once, then every tile only cuts and relates."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from shapely import STRtree, box
from torch_geometric.data import HeteroData

from geolink.graphs.build import graph_from_arrays
from geolink.graphs.semantics import Semantics
from geolink.graphs.tags import TagEncoder, encode_tags
from geolink.grid import Bounds
from geolink.sources.entities import ENTITY_TYPES, EntityType, OsmEntities
from geolink.sources.entity_table import EntityTable


class SceneGraphs:
    """Builds the OSM graph of any tile of one scene.

    Args:
        entities: all OSM entities of the scene.
        encoder: turns tag strings into vectors.
        key_counts: corpus count per tag key, the weights of the semantic mean (METHOD section 1).
        coverage_side: cells per side of a tile in which lines and polygons are measured, as the
            model asks for by `ModelConfig.coverage_side`; None leaves that out.
    """

    def __init__(
        self,
        entities: OsmEntities,
        encoder: TagEncoder,
        key_counts: Mapping[str, int],
        *,
        coverage_side: int | None = None,
    ) -> None:
        self.coverage_side = coverage_side
        self._encoder, self._key_counts = encoder, key_counts
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
        self.objects = _numbered(self.identifiers)

    def of_others(self, entities: OsmEntities) -> "SceneGraphs":
        """Graphs of other entities, built alike."""
        return SceneGraphs(
            entities, self._encoder, self._key_counts, coverage_side=self.coverage_side
        )

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
            node in the scene's frame of that type, and `graph[type].object` (N,) int64 the number
            of its OSM object in the scene, which all parts of one object have in common.
        """
        rows = self.rows_within(bounds)
        graph = graph_from_arrays(
            {kind: self.geometries[kind][rows[kind]] for kind in ENTITY_TYPES},
            {kind: self.semantics[kind][rows[kind]] for kind in ENTITY_TYPES},
            bounds,
            identifiers={kind: self.identifiers[kind][rows[kind]] for kind in ENTITY_TYPES},
            coverage_side=self.coverage_side,
        )
        for kind in ENTITY_TYPES:
            source = rows[kind][graph[kind].source.numpy()]
            graph[kind].source = torch.from_numpy(source)
            graph[kind].object = torch.from_numpy(self.objects[kind][source])
        return graph


class StoredGraphs:
    """Builds the OSM graph of any tile of a scene whose entities are on disk.

    The graphs are those of `SceneGraphs`, without the rows and numbers of objects in the scene.
    Memory does not follow the scene. What is pickled is the path of the table, so that processes
    share one.

    Args:
        table: all OSM entities of the scene.
        encoder: turns tag strings into vectors.
        key_counts: corpus count per tag key, the weights of the semantic mean.
        coverage_side: as for `SceneGraphs`.
    """

    def __init__(
        self,
        table: EntityTable,
        encoder: TagEncoder,
        key_counts: Mapping[str, int],
        *,
        coverage_side: int | None = None,
    ) -> None:
        self._table = table
        self._semantics = Semantics(encoder, key_counts)
        self._coverage_side = coverage_side

    def build(self, bounds: Bounds) -> HeteroData:
        """The graph of one tile, as `geolink.build_graph` makes it."""
        here = self._table.within(bounds)
        frames = {kind: here.frame(kind) for kind in ENTITY_TYPES}
        return graph_from_arrays(
            {kind: frame.geometry.to_numpy() for kind, frame in frames.items()},
            {kind: self._semantics(frame["tags"].tolist()) for kind, frame in frames.items()},
            bounds,
            identifiers={kind: frame["osm_id"].to_numpy() for kind, frame in frames.items()},
            coverage_side=self._coverage_side,
        )


def _numbered(
    identifiers: Mapping[EntityType, NDArray[np.object_]],
) -> dict[EntityType, NDArray[np.int64]]:
    """Per type, (N,) numbers of the objects that rows are parts of, in the order of their names."""
    names = np.concatenate([identifiers[kind] for kind in ENTITY_TYPES])
    _, numbers = np.unique(names.astype(str), return_inverse=True)
    ends = np.cumsum([len(identifiers[kind]) for kind in ENTITY_TYPES])[:-1]
    return dict(zip(ENTITY_TYPES, np.split(numbers.astype(np.int64), ends), strict=True))
