import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.data.feature_store import TensorAttr
from torch_geometric.data.graph_store import EdgeAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, NodeStorage

from geolink.errors import GraphError
from geolink.graphs.released import load_released_graph
from geolink.graphs.schema import EDGE_TYPES, KEYPOINT_WIDTHS, NODE_TYPES, RELATIONS
from geolink.models.graph_batch import collate

PUBLISHED = [HeteroData, BaseStorage, NodeStorage, EdgeStorage, TensorAttr, EdgeAttr]
NODES = {"point": 3, "line": 2, "polygon": 4}


def released_graph(nodes=NODES, width=512):
    """A graph in the released layout, with made-up numbers."""
    generator = torch.Generator().manual_seed(0)
    graph = HeteroData()
    for kind in NODE_TYPES:
        full = torch.rand(nodes[kind], width + KEYPOINT_WIDTHS[kind] + 4, generator=generator)
        graph[kind].x = full[:, :-4]  # rows cut out of longer ones, as published
    for a, to, b in EDGE_TYPES:
        index = torch.tensor([[0, 1], [1, 0]]) if min(nodes[a], nodes[b]) > 1 else torch.empty(0)
        graph[a, to, b].edge_index = index.long()
        columns = len(RELATIONS[a, to, b])
        graph[a, to, b].edge_attr = torch.eye(columns)[: index.shape[-1]]
    return graph


@pytest.fixture
def saved(tmp_path):
    """Saves a graph as the released ones are."""

    def save(graph):
        torch.save(graph, tmp_path / "graph.pt")
        return tmp_path / "graph.pt"

    return save


def rewritten(path, **members):
    """The archive with some files replaced; those that become None are left out."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(files)).partition("/")[0]
    files |= {f"{root}/{name.replace('__', '/')}": data for name, data in members.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            if data is not None:
                archive.writestr(name, data)
    return path


def with_pickle(path, payload):
    return rewritten(path, **{"data.pkl": payload})


def test_the_numbers_are_those_that_torch_reads(shared_data):
    folder = shared_data / "geolink_examples" / "ufz" / "graph"
    paths = sorted(folder.glob("*.pt"))
    assert len(paths) == 3
    for path in paths:
        with torch.serialization.safe_globals(PUBLISHED):
            expected = torch.load(path, weights_only=True)
        found = load_released_graph(path)
        for kind in NODE_TYPES:
            joined = torch.cat([found[kind].x, found[kind].keypoints], dim=1)
            assert torch.equal(joined, expected[kind].x)
            assert (found[kind].keypoints.sub(0.5).abs() < 0.5 + 1e-6).all()
        for edge in EDGE_TYPES:
            index = expected[edge].edge_index.reshape(2, -1)
            assert torch.equal(found[edge].edge_index, index)
            shape = found[edge].edge_attr.shape
            assert torch.equal(found[edge].edge_attr, expected[edge].edge_attr.reshape(shape))


def test_a_saved_graph_comes_back_in_our_layout(saved):
    graph = released_graph()
    found = load_released_graph(saved(graph))
    for kind in NODE_TYPES:
        assert torch.equal(found[kind].x, graph[kind].x[:, :512])
        assert torch.equal(found[kind].keypoints, graph[kind].x[:, 512:])
    for edge in EDGE_TYPES:
        assert torch.equal(found[edge].edge_index, graph[edge].edge_index)
    collate([found], 1, semantic_dim=512)  # the model takes it


def test_a_graph_without_nodes_is_one(saved):
    found = load_released_graph(saved(released_graph(dict.fromkeys(NODES, 0))))
    assert all(len(found[kind].x) == 0 for kind in NODE_TYPES)
    collate([found], 1, semantic_dim=512)


class Evil:
    """Asks for a file to be made when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class EvilCode(Evil):
    def __reduce__(self):
        return exec, (f"open({str(self.target)!r}, 'w')",)


class EvilTorch(Evil):
    def __reduce__(self):
        return torch.save, (1, str(self.target))


@pytest.mark.parametrize("kind", [Evil, EvilCode, EvilTorch])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_calls_anything_is_refused_and_not_run(saved, tmp_path, kind, protocol):
    mark = tmp_path / "ran"
    path = with_pickle(saved(released_graph()), pickle.dumps(kind(mark), protocol))
    with pytest.raises(GraphError, match="which is not run"):
        load_released_graph(path)
    assert not mark.exists()


def test_evil_within_a_graph_is_not_run(saved, tmp_path):
    graph = released_graph()
    graph["point"].more = Evil(tmp_path / "ran")
    with pytest.raises(GraphError, match="which is not run"):
        load_released_graph(saved(graph))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # os.system("true")
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"ctorch._utils\n_rebuild_tensor\n.",
        b"ctorch_geometric.data.storage\nNodeStorage.__init__\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"(ios\nsystem\n.",
    ],
)
def test_every_other_name_is_refused(saved, name):
    with pytest.raises(GraphError, match="not run"):
        load_released_graph(with_pickle(saved(released_graph()), name))


@pytest.mark.parametrize(
    "payload", [b"", b"\x80\x02.", pickle.dumps([1]), pickle.dumps("x"), b"N."]
)
def test_what_is_no_graph_is_refused(saved, payload):
    with pytest.raises(GraphError):
        load_released_graph(with_pickle(saved(released_graph()), payload))


def test_a_graph_of_another_width_is_refused(saved):
    with pytest.raises(GraphError, match="features of shape"):
        load_released_graph(saved(released_graph(width=384)))


@pytest.mark.parametrize("index", [[[0, 9], [1, 0]], [[0, -1], [1, 0]], [[0], [1]]])
def test_edges_to_nowhere_are_refused(saved, index):
    graph = released_graph()
    graph["line", "to", "line"].edge_index = torch.tensor(index)
    with pytest.raises(GraphError, match="line-line edges that do not fit"):
        load_released_graph(saved(graph))


def test_a_missing_node_type_is_refused(saved):
    graph = released_graph()
    del graph["point"]
    with pytest.raises(GraphError, match="damaged or no published graph"):
        load_released_graph(saved(graph))


def test_numbers_that_are_not_finite_are_refused(saved):
    graph = released_graph()
    graph["point"].x[0, 0] = torch.nan
    with pytest.raises(GraphError, match="point features"):
        load_released_graph(saved(graph))


def test_a_tensor_beyond_its_storage_is_refused(saved):
    path = saved(released_graph())
    with pytest.raises(GraphError, match="were announced"):
        load_released_graph(rewritten(path, data__0=b"\0" * 8))


def test_damaged_and_foreign_files_are_refused(saved, tmp_path):
    path = saved(released_graph())
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        with pytest.raises(GraphError):
            load_released_graph(path)
    (tmp_path / "legacy.pt").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(GraphError):
        load_released_graph(tmp_path / "legacy.pt")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(GraphError):
        load_released_graph(tmp_path / "none.pt")


def test_compressed_archives_are_refused(saved):
    path = saved(released_graph())
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(GraphError, match="compressed"):
        load_released_graph(path)


def test_the_files_names_cannot_leave_the_archive(saved, tmp_path):
    path = saved(released_graph())
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        archive.writestr("x/../../../../escaped", b"1")
    load_released_graph(path)
    assert not list(tmp_path.glob("**/escaped"))
