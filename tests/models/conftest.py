"""Synthetic graphs, and the released model's inputs and weights as the oracle defines them."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from geolink.graphs.schema import EDGE_TYPES, KEYPOINT_WIDTHS, NODE_TYPES, RELATIONS
from geolink.models.graph_batch import COVERED_TYPES


def random_graph(*counts: int, seed: int = 0, dim: int = 384) -> HeteroData:
    """A graph with `counts` points, lines, polygons and about three edges per node and type."""
    rng = torch.Generator().manual_seed(seed)
    graph = HeteroData()
    sizes = dict(zip(NODE_TYPES, counts, strict=True))
    for kind, size in sizes.items():
        graph[kind].x = torch.randn(size, dim, generator=rng)
        graph[kind].keypoints = torch.rand(size, KEYPOINT_WIDTHS[kind], generator=rng)
    for edge in EDGE_TYPES:
        source, target = sizes[edge[0]], sizes[edge[2]]
        count = 3 * target if source else 0
        index = torch.rand(2, count, generator=rng) * torch.tensor([[source], [target]])
        graph[edge].edge_index = index.long()
        relation = torch.randint(len(RELATIONS[edge]), (count,), generator=rng)
        graph[edge].edge_attr = torch.nn.functional.one_hot(relation, len(RELATIONS[edge])).float()
    return graph


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., HeteroData]:
    return random_graph


@pytest.fixture(scope="session")
def covered_graph() -> Callable[..., HeteroData]:
    """As `make_graph`, with the coverage of `side` cells per side."""

    def make(*counts: int, side: int, **options: int) -> HeteroData:
        graph, rng = random_graph(*counts, **options), torch.Generator().manual_seed(7)
        for kind in COVERED_TYPES:
            graph[kind].coverage = torch.rand(len(graph[kind].x), side**2, generator=rng)
        return graph

    return make


@pytest.fixture(scope="session")
def official_shapes(shared_data: Path) -> dict[str, list[int]]:
    """Name to shape of the released ViT-L model."""
    text = (shared_data / "oracle" / "official_vit_large_state_dict.json").read_text()
    return dict(json.loads(text))


@pytest.fixture(scope="session")
def oracle(shared_data: Path) -> dict[str, Any]:
    with np.load(shared_data / "oracle" / "model_tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def oracle_graphs(oracle: dict[str, Any]) -> list[HeteroData]:
    graphs = []
    for name in ("g0", "g1"):
        graph = HeteroData()
        for kind in NODE_TYPES:
            x = torch.from_numpy(oracle[f"{name}.{kind}.x"])
            graph[kind].x, graph[kind].keypoints = x[:, :512], x[:, 512:]
        for a, to, b in EDGE_TYPES:
            edges = {k: oracle[f"{name}.{a}-{b}.{k}"] for k in ("edge_index", "edge_attr")}
            graph[a, to, b].edge_index = torch.from_numpy(edges["edge_index"]).long()
            graph[a, to, b].edge_attr = torch.from_numpy(edges["edge_attr"]).float()
        graphs.append(graph)
    return graphs


@pytest.fixture(scope="session")
def oracle_images(oracle: dict[str, Any]) -> Tensor:
    rng = np.random.RandomState(int(oracle["seed"]))
    return torch.from_numpy(rng.standard_normal((2, 3, 224, 224))).float()


@pytest.fixture(scope="session")
def tiny_state(official_shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The released state dict for vit_tiny, drawn by the rule of the development data."""
    state = {}
    for name, shape in official_shapes.items():
        if name.startswith("img_encoder.blocks.") and int(name.split(".")[2]) >= 12:
            continue
        state[name] = draw(name, _tiny_shape(name, shape))
    return state


def draw(name: str, shape: list[int]) -> Tensor:
    if name.endswith("pos_embed") and name != "img_encoder.pos_embed":
        return mae_table(shape[2])[None]
    shared = f"img_encoder.{name}" if name.startswith("patch_embed.") else name
    values = 0.05 * np.random.RandomState(zlib.crc32(shared.encode())).standard_normal(shape)
    if len(shape) == 1 and name.endswith("weight"):
        values += 1
    return torch.from_numpy(values).float()


def mae_table(width: int, side: int = 14) -> Tensor:
    """MAE's table, written out cell by cell: half the channels for x, half for y."""
    table = np.zeros((1 + side * side, width))
    for cell in range(side * side):
        for axis, place in enumerate((cell % side, cell // side)):
            for i in range(width // 4):
                angle = place / 10_000 ** (i / (width / 4))
                start = axis * (width // 2)
                table[1 + cell, start + i] = np.sin(angle)
                table[1 + cell, start + width // 4 + i] = np.cos(angle)
    return torch.from_numpy(table).float()


def _tiny_shape(name: str, shape: list[int]) -> list[int]:
    """The shape of a ViT-L tensor in the tiny model: only the image encoder's widths differ."""
    image = ("img_encoder", "cls_token", "img_pos_embed", "patch_embed", "img_norm")
    image += ("img_decoder_mlp", "img_fusion_mlp", "img_consistency_prj")
    widths = {1024: 192, 3072: 576, 4096: 768}
    return [widths.get(n, n) for n in shape] if name.startswith(image) else shape
