"""The OSM graphs that come with the published UFZ tiles."""

from pathlib import Path

from torch_geometric.data import HeteroData

from geolink.datasets.base import OsmChange
from geolink.graphs.released import load_released_graph

GRAPHS = "graph"
# What the nodes of published graphs are made of; a model that reads tags otherwise is blind to it.
TAG_ENCODER = "clip-"


class ReleasedGraphs:
    """Finds the graph of a picture by its name in a folder of published graphs.

    Args:
        folder: holds one `.pt` per picture.
        change: what is done to the graphs.
    """

    def __init__(self, folder: Path, change: OsmChange | None = None) -> None:
        self._folder = folder
        self._change = change

    def build(self, picture: Path) -> HeteroData | None:
        """The graph of a picture, None where there is none of its name.

        Raises:
            GraphError: the file is no published graph.
        """
        path = self._folder / f"{picture.stem}.pt"
        graph = load_released_graph(path) if path.is_file() else None
        if graph is None or self._change is None:
            return graph
        return self._change.graph(graph, picture.stem)

    def disturbed(self, change: OsmChange) -> "ReleasedGraphs":
        """The graphs as something has changed them."""
        return ReleasedGraphs(self._folder, change)
