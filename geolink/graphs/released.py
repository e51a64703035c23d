"""The graphs of the published UFZ tiles: pickles, read without running what they may hold.

A released file is what `torch.save` made of a torch-geometric `HeteroData`. A pickle can name any
function to be called, so that nothing is looked up here: the ten names that such files hold stand
for inert records and for one function of ours, and any other name is refused. Tensors are taken
from the archive as arrays, with their sizes checked.
"""

import math
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from geolink.errors import GraphError
from geolink.graphs.schema import EDGE_TYPES, KEYPOINT_WIDTHS, NODE_TYPES, RELATIONS

SEMANTIC_DIM = 512  # CLIP's text vectors
_MAX_BYTES = 256 * 2**20


class _Record:
    """Stands for an object of the file; holds what belongs to it, and does nothing."""


class _Named:
    """Stands for a class of the file that is only referred to."""

    def __init__(self, dtype: str | None = None) -> None:
        self.dtype = dtype


def load_released_graph(path: Path) -> HeteroData:
    """A published graph in the layout of `geolink.build_graph`, in tile units.

    Raises:
        GraphError: the file is damaged, holds anything but a graph, or one of another layout.
    """
    try:
        content = _read_archive(path)
        return _graph(content)
    except GraphError as error:
        raise GraphError(f"the graph {path} cannot be used: {error}") from None
    except Exception as error:  # foreign bytes can provoke any error in a reader
        raise GraphError(
            f"the graph {path} is damaged or no published graph ({type(error).__name__}: {error})"
        ) from None


def _read_archive(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        # What is stored as it is cannot grow beyond the file.
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise GraphError("it is compressed, which published graphs are not")
        if sum(info.file_size for info in infos) > _MAX_BYTES:
            raise GraphError("it is too large to be the graph of a tile")
        members = {info.filename.partition("/")[2]: info for info in infos}
        if archive.read(members["byteorder"]) != b"little":
            raise GraphError("its numbers are not little-endian")
        with archive.open(members["data.pkl"]) as file:
            return _Reader(file, archive, members).load()


class _Reader(pickle.Unpickler):
    """Unpickles records and arrays, and refuses every other name.

    Args:
        file: the pickle.
        archive: the archive that it comes from.
        members: the archive's files by their name below its root.
    """

    def __init__(
        self,
        file: IO[bytes],
        archive: zipfile.ZipFile,
        members: dict[str, zipfile.ZipInfo],
    ) -> None:
        super().__init__(file)
        self._archive = archive
        self._members = members

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - one of `_ALLOWED`
        """What stands for a name of the file.

        Raises:
            GraphError: it is none of those that published graphs hold.
        """
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise GraphError(f"it names {module}.{name}, which is not run") from None

    def persistent_load(self, pid: Any) -> NDArray[np.generic]:  # noqa: ANN401 - of the file
        """The numbers of a storage."""
        _, storage, key, _, count = pid
        raw = self._archive.read(self._members[f"data/{int(key)}"])
        numbers = np.frombuffer(raw, np.dtype(storage.dtype))
        if len(numbers) != count:
            raise GraphError(f"a tensor has {len(numbers)} numbers where {count} were announced")
        return numbers


def _tensor(
    storage: NDArray[np.generic],
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    *_: object,
) -> NDArray[np.generic]:
    """The part of a storage that a tensor is; rows may be cut out of longer ones."""
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if math.prod(shape) and (min(offset, *shape, *stride, 0) < 0 or last >= len(storage)):
        raise GraphError("a tensor reaches beyond its storage")
    if not math.prod(shape):
        return np.zeros(shape, storage.dtype)
    steps = [step * storage.itemsize for step in stride]
    return as_strided(storage[offset:], shape, steps, writeable=False).copy()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch_geometric.data.hetero_data", "HeteroData"): _Record,
    ("torch_geometric.data.storage", "BaseStorage"): _Record,
    ("torch_geometric.data.storage", "NodeStorage"): _Record,
    ("torch_geometric.data.storage", "EdgeStorage"): _Record,
    ("torch_geometric.data.feature_store", "TensorAttr"): _Named(),
    ("torch_geometric.data.graph_store", "EdgeAttr"): _Named(),
    ("torch", "FloatStorage"): _Named("<f4"),
    ("torch", "LongStorage"): _Named("<i8"),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("collections", "OrderedDict"): dict,
}


def _graph(content: Any) -> HeteroData:  # noqa: ANN401 - checked here
    """The records of a file as a graph, whose parts must all be there and fit together."""
    if not isinstance(content, _Record):
        raise GraphError("it holds no graph")
    nodes, edges = vars(content)["_node_store_dict"], vars(content)["_edge_store_dict"]
    graph = HeteroData()
    graph.bounds = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    for kind in NODE_TYPES:
        x = _array(nodes[kind], "x", np.float32)
        if x.shape[1:] != (SEMANTIC_DIM + KEYPOINT_WIDTHS[kind],) or not np.isfinite(x).all():
            _refuse(f"{kind} features of shape {x.shape}")
        graph[kind].x = torch.from_numpy(x[:, :SEMANTIC_DIM].copy())
        graph[kind].keypoints = torch.from_numpy(x[:, SEMANTIC_DIM:].copy())
        graph[kind].source = torch.arange(len(x))
    for edge_type in EDGE_TYPES:
        store = edges[edge_type]
        index = _array(store, "edge_index", np.int64)
        attributes = _array(store, "edge_attr", np.float32)
        ends = [len(graph[kind].x) for kind in (edge_type[0], edge_type[2])]
        columns = len(RELATIONS[edge_type])
        index = index.reshape(2, -1)  # an empty one has no second dimension
        attributes = attributes.reshape(-1, columns)
        if len(attributes) != index.shape[1] or not _within(index, ends):
            _refuse(f"{edge_type[0]}-{edge_type[2]} edges that do not fit its nodes")
        graph[edge_type].edge_index = torch.from_numpy(index.copy())
        graph[edge_type].edge_attr = torch.from_numpy(attributes.copy())
    _number_objects(graph)
    return graph


def _array(store: Any, name: str, dtype: type[np.generic]) -> NDArray[Any]:  # noqa: ANN401
    """A tensor of a record, which must be of the right type."""
    array = vars(store)["_mapping"][name]
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        _refuse(f"{name!r} of another type")
    found: NDArray[Any] = array
    return found


def _within(index: NDArray[np.int64], ends: list[int]) -> bool:
    """True where every edge starts and ends at a node."""
    low, high = index.min(axis=1, initial=0), index.max(axis=1, initial=-1)
    return bool((low >= 0).all() and (high < ends).all())


def _number_objects(graph: HeteroData) -> None:
    """Takes every node for an object of its own: the files do not say which belong together."""
    first = 0
    for kind in NODE_TYPES:
        graph[kind].object = torch.arange(first, first + len(graph[kind].x))
        first += len(graph[kind].x)


def _refuse(what: str) -> NoReturn:
    raise GraphError(f"it has {what}")
