"""How fast is the model, and how much of its time goes into OSM rather than the ViT?

    python benchmarks/model.py                # vit_tiny, on a GPU where there is one
    python benchmarks/model.py --encoder vit_large_patch16_224 --batch 1
    python benchmarks/model.py --compile      # with a compiled image encoder

One run times `encode` and one training step of this library and of a straightforward
implementation with the same weights: graphs joined by torch-geometric, nodes padded in a loop over
graphs, position tables computed in NumPy for every batch, attention that also returns its weights.
The outputs are checked to be the same. On a CPU, times are seconds of CPU on one core, so that
other work on the machine counts little; on a GPU, both compute in bfloat16.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import Batch, HeteroData

from geolink.config import ENCODERS, ModelConfig
from geolink.graphs.schema import EDGE_TYPES, KEYPOINT_WIDTHS, NODE_TYPES, RELATIONS
from geolink.models.geolink import GeoLink
from geolink.models.image_encoder import as_map

SIDE = 224
Times = dict[str, float]


def random_graph(nodes: int, dim: int, seed: int) -> HeteroData:
    """A third of the nodes of each type, with two edges per node and edge type."""
    rng = torch.Generator().manual_seed(seed)
    graph = HeteroData()
    count = nodes // 3
    for kind in NODE_TYPES:
        graph[kind].x = torch.randn(count, dim, generator=rng)
        graph[kind].keypoints = torch.rand(count, KEYPOINT_WIDTHS[kind], generator=rng)
    for edge in EDGE_TYPES:
        relation = torch.randint(len(RELATIONS[edge]), (2 * count,), generator=rng)
        graph[edge].edge_index = torch.randint(count, (2, 2 * count), generator=rng)
        graph[edge].edge_attr = functional.one_hot(relation, len(RELATIONS[edge])).float()
    return graph


# The straightforward implementation


def numpy_embedding(xy: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """(N, width) sine-cosine embeddings of (N, 2) points."""
    omega = 1 / 10_000 ** (np.arange(width // 4) / (width / 4))
    parts = []
    for axis in range(2):
        angles = np.outer(xy[:, axis], omega)
        parts += [np.sin(angles), np.cos(angles)]
    return np.concatenate(parts, axis=1)


def numpy_table(side: int, width: int) -> Tensor:
    """(1 + side * side, width) position table."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    table = numpy_embedding(np.stack([x.ravel(), y.ravel()], axis=1), width)
    return torch.from_numpy(np.concatenate([np.zeros((1, width)), table])).float()


def plain_encode(model: GeoLink, images: Tensor, graphs: list[HeteroData]) -> list[Tensor]:
    """What `model.encode` computes, step by step as METHOD tells it."""
    maps, tokens, grid = plain_image(model, images)
    batch = Batch.from_data_list(graphs).to(images.device)
    nodes = plain_nodes(model, batch)
    values, positions, padding = plain_padding(model, batch, nodes, len(images))
    block = model.fusion.block
    placed = values + positions
    gained, _ = block.among_nodes(placed, placed, values, key_padding_mask=padding)
    values = block.node_norm(values + gained)
    tokens = model.fusion.image_projection(tokens)
    places = numpy_table(grid[0], model.config.fusion_dim).to(images.device)
    gained, _ = block.image_from_nodes(
        tokens + places, values + positions, values, key_padding_mask=padding
    )
    return [*maps, as_map(block.image_norm(tokens + gained), grid)]


def plain_image(model: GeoLink, images: Tensor) -> tuple[list[Tensor], Tensor, tuple[int, int]]:
    """Feature maps, last tokens, and patches per side."""
    encoder = model.image
    patches = encoder.vit.patch_embed(images)
    grid = (patches.shape[1], patches.shape[2])
    table = numpy_table(grid[0], patches.shape[3]).to(images.device)
    tokens = torch.cat([encoder.cls_token.expand(len(images), -1, -1), patches.flatten(1, 2)], 1)
    tokens = tokens + table
    maps = []
    for index, block in enumerate(encoder.vit.blocks):
        tokens = block(tokens)
        if index in model.config.feature_blocks:
            maps.append(as_map(tokens, grid))
    return maps, encoder.vit.norm(tokens), grid


def plain_nodes(model: GeoLink, batch: Batch) -> dict[str, Tensor]:
    """Per node type, OSM encodings."""
    nodes: dict[str, Tensor] = batch.x_dict
    layers: Any = model.osm.layers
    for depth, layer in enumerate(layers):
        out = layer.conv(nodes, batch.edge_index_dict, edge_attr_dict=batch.edge_attr_dict)
        out = {kind: layer.norm[kind](out[kind].relu()) for kind in NODE_TYPES}
        nodes = {kind: nodes[kind] + out[kind] for kind in NODE_TYPES} if depth else out
    return nodes


def plain_padding(
    model: GeoLink, batch: Batch, nodes: dict[str, Tensor], size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, positions and padding mask of all tiles, one graph after the other."""
    values, positions = [], []
    for tile in range(size):
        parts, places = [], []
        for kind in NODE_TYPES:
            own = batch[kind].batch == tile
            parts.append(model.fusion.node_projection[kind](nodes[kind][own]))
            xy = batch[kind].keypoints[own].cpu().numpy().astype(float) * model.config.grid_size
            corners = [xy[:, i : i + 2] for i in range(0, xy.shape[1], 2)]
            mean = np.mean([numpy_embedding(c, model.config.fusion_dim) for c in corners], axis=0)
            places.append(torch.from_numpy(mean).float().to(nodes[kind].device))
        values.append(torch.cat(parts))
        positions.append(torch.cat(places))
    longest = max(len(value) for value in values)
    padding = torch.stack([torch.arange(longest) >= len(value) for value in values])
    stacked = [
        torch.stack([functional.pad(x, (0, 0, 0, longest - len(x))) for x in tensors])
        for tensors in (values, positions)
    ]
    return stacked[0], stacked[1], padding.to(stacked[0].device)


# Timing


def shortest(runs: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> Times:
    """Shortest time of each of several functions, in seconds, after one round to warm up.

    They take turns, so that whatever else the machine does meets all of them alike.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(clock() - start)
    return {name: min(taken[1:]) for name, taken in times.items()}


def mixed(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU, as `geolink` uses it there; float32 on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def training_step(
    model: GeoLink, encode: Callable[[], list[Tensor]], labels: Tensor
) -> Callable[[], None]:
    """Forward, backward and update of a model whose features `encode` gives."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def step() -> None:
        with mixed(labels.device):
            scores = functional.interpolate(model.decoder(encode()), (SIDE, SIDE), mode="bilinear")
        functional.cross_entropy(scores.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def compare(model: GeoLink, nodes: int, batch: int, rounds: int, device: torch.device) -> None:
    """Times both implementations on tiles of some size and prints a line each."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, SIDE, SIDE, generator=rng).to(device)
    labels = torch.randint(model.config.classes, (batch, SIDE, SIDE), generator=rng).to(device)
    graphs = [random_graph(nodes, model.config.semantic_dim, i) for i in range(batch)]
    ours = partial(model.encode, images, graphs)
    plain = partial(plain_encode, model, images, graphs)
    model.eval()
    with torch.no_grad():
        for found, expected in zip(ours(), plain(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    with torch.no_grad(), mixed(device):
        vit = partial(model.image, images)
        encode = shortest({"ours": ours, "plain": plain, "vit": vit}, rounds, device)
    model.train()
    steps: dict[str, Callable[[], object]] = {
        "ours": training_step(model, ours, labels),
        "plain": training_step(model, plain, labels),
    }
    train = shortest(steps, rounds, device)
    print(f"{nodes} nodes per tile")
    for name, taken in (("encode", encode), ("training", train)):
        fast, slow = taken["ours"], taken["plain"]
        print(
            f"  {name:9}{batch / fast:8.2f} tiles/s, {slow / fast:.2f} times the plain "
            f"{batch / slow:.2f}"
        )
    ours_share, plain_share = (1 - encode["vit"] / encode[name] for name in ("ours", "plain"))
    print(f"  outside the ViT {ours_share:.1%} of encode, plain {plain_share:.1%}")


def compare_compiled(model: GeoLink, batch: int, rounds: int, device: torch.device) -> None:
    """Times the image encoder before and after it is compiled, which it stays."""
    images = torch.randn(batch, 3, SIDE, SIDE, device=device)
    eager = model.image.forward
    model.image.compile()
    with torch.no_grad(), mixed(device):
        runs = {"eager": lambda: eager(images), "compiled": lambda: model.image(images)}
        taken = shortest(runs, rounds, device)
    print(
        f"compiled ViT: {taken['eager'] / taken['compiled']:.2f} times the speed of the eager one"
    )


def main() -> None:
    """Reads the command line and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=ENCODERS, default="vit_tiny_patch16_224")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--nodes", type=int, nargs="+", default=[30, 500])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compile the image encoder")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GeoLink(ModelConfig(args.encoder, dropout=0.0)).to(device)
    numbers = "bfloat16" if device.type == "cuda" else "float32"
    print(f"{args.encoder}, batch {args.batch}, {device.type}, {numbers}")
    if args.compile:
        compare_compiled(model, args.batch, args.rounds, device)
    for nodes in args.nodes:
        compare(model, nodes, args.batch, args.rounds, device)


if __name__ == "__main__":
    main()
