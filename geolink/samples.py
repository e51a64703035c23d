"""One training example: image, OSM graph and labels of a tile, changed together."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from shapely import MultiPolygon
from torch import Tensor
from torch_geometric.data import HeteroData

from geolink.graphs.scene import SceneGraphs
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES, NodeType
from geolink.grid import GridSpec
from geolink.legend import IGNORE
from geolink.sources.base import ImageSource, ImageTile
from geolink.sources.entities import OsmEntities
from geolink.sources.labels import WeakLabels, label_mask
from geolink.sources.reference import Labels

# Statistics of ImageNet, the normalisation of GeoLink and of the ViT weights that it starts from.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

Pixel = TypeVar("Pixel", bound=np.generic)


@dataclass(frozen=True)
class Sample:
    """A tile with everything the model sees and is asked for.

    Attributes:
        rgb: (3, H, W) uint8; of a pair of dates (2, 3, H, W), the earlier one first.
        graph: OSM graph of the tile as `SceneGraphs` builds it, None where there is no OSM.
        label: (H, W) uint8 class ids, 255 where there is none; of tasks that ask one thing of a
            whole image, () uint8 class id or (k,) float32 numbers.
        givers: per node type, (N,) bool, True for nodes whose tags gave the labels.
    """

    rgb: NDArray[np.uint8]
    graph: HeteroData | None
    label: NDArray[Any]
    givers: Mapping[NodeType, NDArray[np.bool_]]


class SceneSampler:
    """Cuts samples out of one scene, with weak labels from its own OSM zones, or with others.

    Args:
        imagery: pixels of the scene.
        entities: OSM entities of the scene, None where OSM is not used.
        graphs: the same entities as graphs.
        sea: the sea in the scene's CRS, which OSM maps by its coastline only.
        labels: other labels, which no OSM object gives away; needed where OSM is not used.
    """

    def __init__(
        self,
        imagery: ImageSource,
        entities: OsmEntities | None,
        graphs: SceneGraphs | None,
        *,
        sea: MultiPolygon | None = None,
        labels: Labels | None = None,
    ) -> None:
        self.imagery = imagery
        self.graphs = graphs
        self._entities = entities
        self._givers: dict[NodeType, NDArray[np.bool_]] = {}
        if labels is None:
            if entities is None:
                raise ValueError("weak labels are taken from OSM entities, and there are none")
            labels = WeakLabels(entities, sea=sea)
            self._givers = label_mask(entities)
        self.labels = labels

    def disturbed(self, change: Callable[[OsmEntities], OsmEntities]) -> "SceneSampler":
        """The same pixels and labels, with other objects around them.

        Objects that gave labels are hidden altogether: changed, they could give away others.
        """
        if self._entities is None or self.graphs is None:
            return self
        seen = {kind: ~given for kind, given in self._givers.items()}
        changed = change(self._entities.select(seen))
        graphs = self.graphs.of_others(changed)
        return SceneSampler(self.imagery, changed, graphs, labels=self.labels)

    def with_imagery(self, imagery: ImageSource) -> Self:
        """The same place with other pixels; shares graphs and labels."""
        other = copy.copy(self)
        other.imagery = imagery
        return other

    def sample(self, grid: GridSpec) -> Sample:
        """The sample of one tile; where it has no image, it has no label either."""
        pixels = self.imagery.read(grid)
        label = np.where(pixels.valid, self.labels.read(grid), IGNORE).astype(np.uint8)
        graph = None if self.graphs is None else self.graphs.build(grid.bounds)
        givers = {} if graph is None else {k: self._given(graph, k) for k in NODE_TYPES}
        return Sample(filled(pixels), graph, label, givers)

    def _given(self, graph: HeteroData, kind: NodeType) -> NDArray[np.bool_]:
        """(N,) True for the nodes of a type whose objects gave the labels."""
        rows = graph[kind].source.numpy()
        given = self._givers.get(kind)
        return np.zeros(len(rows), bool) if given is None else np.asarray(given[rows])


def filled(pixels: ImageTile) -> NDArray[np.uint8]:
    """(3, side, side) pixels, those without an image like the nearest that has one.

    Black in their place would be a shape that the model sees, and changes the rest of the tile.
    """
    if pixels.valid.all() or not pixels.valid.any():
        return pixels.rgb
    rows, cols = distance_transform_edt(~pixels.valid, return_distances=False, return_indices=True)
    rgb: NDArray[np.uint8] = pixels.rgb[:, rows, cols]
    return rgb


def normalise(
    rgb: NDArray[np.uint8],
    mean: tuple[float, ...] = IMAGE_MEAN,
    std: tuple[float, ...] = IMAGE_STD,
) -> Tensor:
    """(..., 3, H, W) uint8 pixels to a float32 tensor, by a model's mean and deviation."""
    scaled = torch.from_numpy(np.ascontiguousarray(rgb)).float() / 255
    return (scaled - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def hide_givers(sample: Sample, share: float, rng: np.random.Generator) -> Sample:
    """Takes a random share of the label-giving objects out of the graph.

    A model that always sees the mapped zones would only learn to copy them. Hidden objects leave
    the image and the labels as they are, so the zone has to be told from its surroundings. All
    parts of an object, such as the pieces that the tile's border leaves of it, go together. As
    relations are between two objects, and only points are related through Delaunay triangles, the
    result equals the graph built without those lines and polygons.

    Args:
        sample: the sample; it is not changed.
        share: probability of each label-giving object to be hidden, 0-1.
        rng: source of randomness.
    """
    if sample.graph is None or not sample.givers or share <= 0:
        return sample
    objects = {kind: sample.graph[kind].object.numpy() for kind in sample.givers}
    mapped = np.unique(np.concatenate([objects[k][giver] for k, giver in sample.givers.items()]))
    hidden = mapped[rng.random(len(mapped)) < share]
    keep = {
        kind: torch.from_numpy(~(giver & np.isin(objects[kind], hidden)))
        for kind, giver in sample.givers.items()
    }
    givers = {kind: giver[keep[kind].numpy()] for kind, giver in sample.givers.items()}
    return replace(sample, graph=keep_nodes(sample.graph, keep), givers=givers)


def keep_nodes(graph: HeteroData, keep: Mapping[NodeType, Tensor]) -> HeteroData:
    """The graph of the nodes whose (N,) bool mask is True, and of the edges between them."""
    if any(kind == "point" and not mask.all() for kind, mask in keep.items()):
        raise ValueError("dropping points would leave Delaunay edges of points that are gone")
    bounds = graph.bounds
    kept = graph.subgraph(dict(keep))
    kept.bounds = bounds
    return kept


def flip(sample: Sample, *, transpose: bool, mirror_x: bool, mirror_y: bool) -> Sample:
    """One of the eight symmetries of the square, applied to pixels, labels and graph alike.

    The transposition comes first, then the mirrorings.
    """

    def pixels(array: NDArray[Pixel]) -> NDArray[Pixel]:
        array = np.swapaxes(array, -1, -2) if transpose else array
        array = array[..., :, ::-1] if mirror_x else array
        array = array[..., ::-1, :] if mirror_y else array
        return np.ascontiguousarray(array)

    graph = sample.graph
    if graph is not None:
        graph = graph.clone()
        for kind in NODE_TYPES:
            xy = graph[kind].keypoints.unflatten(1, (-1, 2))  # (N, K, 2)
            xy = xy.flip(-1) if transpose else xy
            sign = torch.tensor([-1.0 if mirror_x else 1.0, -1.0 if mirror_y else 1.0])
            origin = torch.tensor([float(mirror_x), float(mirror_y)])
            graph[kind].keypoints = (origin + sign * xy).flatten(1)
            if "coverage" in graph[kind]:
                coverage = graph[kind].coverage
                side = math.isqrt(coverage.shape[1])
                turned = pixels(coverage.view(len(coverage), side, side).numpy())
                graph[kind].coverage = torch.from_numpy(turned.reshape(coverage.shape))
    label = pixels(sample.label) if sample.label.ndim == 2 else sample.label
    return replace(sample, rgb=pixels(sample.rgb), label=label, graph=graph)


def to_arrays(sample: Sample) -> dict[str, NDArray[np.generic]]:
    """A sample as named arrays, semantics and coverage in half precision, for `numpy.savez`."""
    if sample.graph is None:
        raise ValueError("a sample without a graph cannot be stored")
    arrays: dict[str, NDArray[np.generic]] = {"rgb": sample.rgb, "label": sample.label}
    arrays["bounds"] = sample.graph.bounds.numpy()
    for kind in NODE_TYPES:
        arrays[f"{kind}.x"] = sample.graph[kind].x.numpy().astype(np.float16)
        arrays[f"{kind}.keypoints"] = sample.graph[kind].keypoints.numpy()
        arrays[f"{kind}.object"] = sample.graph[kind].object.numpy().astype(np.int32)
        arrays[f"{kind}.givers"] = sample.givers[kind]
        if "coverage" in sample.graph[kind]:
            arrays[f"{kind}.coverage"] = sample.graph[kind].coverage.numpy().astype(np.float16)
    for a, to, b in EDGE_TYPES:
        edges = sample.graph[a, to, b]
        arrays[f"{a}-{b}.edge_index"] = edges.edge_index.numpy().astype(np.int32)
        arrays[f"{a}-{b}.edge_attr"] = edges.edge_attr.numpy().astype(np.uint8)
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> Sample:
    """The inverse of `to_arrays`."""
    graph = HeteroData()
    graph.bounds = torch.from_numpy(np.asarray(arrays["bounds"]))
    for kind in NODE_TYPES:
        graph[kind].x = torch.from_numpy(np.asarray(arrays[f"{kind}.x"])).float()
        graph[kind].keypoints = torch.from_numpy(np.asarray(arrays[f"{kind}.keypoints"]))
        graph[kind].object = torch.from_numpy(np.asarray(arrays[f"{kind}.object"])).long()
        if f"{kind}.coverage" in arrays:
            coverage = np.asarray(arrays[f"{kind}.coverage"])
            graph[kind].coverage = torch.from_numpy(coverage).float()
    for a, to, b in EDGE_TYPES:
        edges = graph[a, to, b]
        edges.edge_index = torch.from_numpy(np.asarray(arrays[f"{a}-{b}.edge_index"])).long()
        edges.edge_attr = torch.from_numpy(np.asarray(arrays[f"{a}-{b}.edge_attr"])).float()
    givers = {kind: np.asarray(arrays[f"{kind}.givers"], dtype=bool) for kind in NODE_TYPES}
    rgb, label = (np.asarray(arrays[key], dtype=np.uint8) for key in ("rgb", "label"))
    return Sample(rgb, graph, label, givers)
