"""Graphs of tiles whose objects are kept in tile units, as shards and pictures keep them."""

import warnings
from collections.abc import Mapping

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from geolink.augment import UNIT, View
from geolink.errors import DroppedEntitiesWarning
from geolink.graphs.build import graph_from_arrays
from geolink.graphs.semantics import Semantics
from geolink.graphs.tags import TagEncoder
from geolink.sources.entities import ENTITY_TYPES, EntityType
from geolink.sources.shard_files import TileObjects

_UNIT_BOX = shapely.box(*UNIT)
_WHOLE = View()


class TileGraphs:
    """Builds the graphs of tiles, one by one.

    Args:
        encoder: turns tag strings into vectors.
        key_counts: corpus count per tag key, the weights of the semantic mean.
        coverage_side: as for `geolink.build_graph`.
    """

    def __init__(
        self,
        encoder: TagEncoder,
        key_counts: Mapping[str, int],
        *,
        coverage_side: int | None = None,
    ) -> None:
        self.coverage_side = coverage_side
        self._semantics = Semantics(encoder, key_counts)

    def build(self, objects: TileObjects, view: View = _WHOLE) -> HeteroData:
        """The graph of the objects in a view of their tile.

        Returns:
            A graph as `geolink.build_graph` makes it; `graph[type].source` holds the row of each
            node among the objects in the view, and `graph[type].object` the number of its object,
            which all parts of one have in common.
        """
        shapes = view.geometry(objects.geometry)
        inside = np.flatnonzero(shapely.intersects(shapes, _UNIT_BOX))
        shapes, ids = shapes[inside], objects.ids[inside]
        dimensions = shapely.get_dimensions(shapes)
        rows = {kind: np.flatnonzero(dimensions == i) for i, kind in enumerate(ENTITY_TYPES)}
        semantics = self._semantics([objects.tags[i] for i in inside.tolist()])
        with warnings.catch_warnings():
            # A sliver may collapse under rounding; it takes no more room than rounding does.
            warnings.simplefilter("ignore", DroppedEntitiesWarning)
            graph = graph_from_arrays(
                {kind: shapes[rows[kind]] for kind in ENTITY_TYPES},
                {kind: semantics[rows[kind]] for kind in ENTITY_TYPES},
                UNIT,
                identifiers={kind: ids[rows[kind]] for kind in ENTITY_TYPES},
                coverage_side=self.coverage_side,
            )
        _number_objects(graph, ids, rows)
        return graph


def _number_objects(
    graph: HeteroData, ids: NDArray[np.object_], rows: Mapping[EntityType, NDArray[np.int64]]
) -> None:
    """Gives every node the number of its object, its `source` becoming the row in `ids`."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(ids))}
    of_row = np.fromiter((numbers[name] for name in ids), dtype=np.int64, count=len(ids))
    for kind in ENTITY_TYPES:
        source = rows[kind][graph[kind].source.numpy()]
        graph[kind].source = torch.from_numpy(source)
        graph[kind].object = torch.from_numpy(of_row[source])
