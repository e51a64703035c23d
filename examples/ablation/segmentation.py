"""The rows of the segmentation table: one model each, trained and tested on the same tiles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tiles import Tile, batches, class_weights, hidden, joined, labels
from torch import Tensor
from torch.nn import functional
from torch_geometric.data import HeteroData

from geolink.config import ModelConfig
from geolink.graphs.schema import NODE_TYPES, NodeType
from geolink.legend import IGNORE, UFZ
from geolink.metrics import ConfusionMatrix
from geolink.models.fusion import Fusion
from geolink.models.geolink import GeoLink
from geolink.models.graph_batch import GraphBatch, collate
from geolink.models.image_encoder import ImageFeatures, as_map
from geolink.models.slots import Slots
from geolink.samples import hide_givers

BATCH = 8
RATE = 1e-3
WARM_UP = 25
DECODER_WIDTH = 16


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: what it is called.
        config: the model.
        osm: the model sees the graph.
        random_cap: the fused nodes are drawn at random, not the largest.
    """

    name: str
    config: ModelConfig
    osm: bool = True
    random_cap: bool = False


def rows(semantic_dim: int) -> list[Row]:
    """Every choice after the baseline changes one thing of the row above it.

    But the last two, which both change one thing of the row with the second layer.
    """
    released = replace(
        ModelConfig.released("vit_tiny_patch16_224", classes=len(UFZ)),
        semantic_dim=semantic_dim,
        decoder_width=DECODER_WIDTH,
        dropout=0.0,
        pretraining=False,
    )
    every = replace(released, max_nodes=None)
    usual = replace(every, osm_norm="node", empty_token=True)
    aware = replace(usual, relation_aware=True)
    deep = replace(aware, osm_layers=2)
    return [
        Row("image only", released, osm=False),
        Row("released choices (50 nodes at random)", released, random_cap=True),
        Row("the 50 largest nodes", released),
        Row("all nodes", every),
        Row("+ norm per node, token for no OSM", usual),
        Row("+ relation-aware messages", aware),
        Row("+ second layer", deep),
        Row("+ coverage positions", replace(deep, position="coverage")),
        Row("+ painted objects", replace(deep, paint_objects=True)),
    ]


class RandomCap(Fusion):
    """Fuses as many nodes as the config says, drawn at random, as the released code does."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        super().__init__(config)
        self.rng = torch.Generator().manual_seed(seed)

    def forward(
        self, image: ImageFeatures, nodes: dict[NodeType, Tensor], graphs: GraphBatch
    ) -> Tensor:
        """Hybrid patch encodings (B, fusion_dim, h, w)."""
        hybrid, _ = self._fuse(image, nodes, graphs, [self._drawn(graphs)])
        return as_map(hybrid, image.grid)

    def _drawn(self, graphs: GraphBatch) -> Slots:
        tile = torch.cat([graphs.tile[kind] for kind in NODE_TYPES])
        node = torch.randperm(len(tile), generator=self.rng)
        node = node[tile[node].argsort(stable=True)]
        counts = torch.bincount(tile, minlength=graphs.size)
        rank = torch.arange(len(node)) - (counts.cumsum(0) - counts)[tile[node]]
        assert self.max_nodes is not None
        kept = rank < self.max_nodes
        length = max(int(rank[kept].amax(0)) + 1, 1) if kept.any() else 1
        tiles = torch.arange(graphs.size)
        return Slots(tiles, node[kept], tile[node[kept]], rank[kept], length)


def new_model(row: Row, seed: int) -> GeoLink:
    """An untrained model; only its encoder of pictures is never used."""
    torch.manual_seed(seed)
    model = GeoLink(row.config)
    if row.random_cap:
        model.fusion = RandomCap(row.config, seed)
    return model


def scores(model: GeoLink, features: ImageFeatures, graphs: Sequence[HeteroData | None]) -> Tensor:
    """(B, classes, h, w) scores at the decoder's stride."""
    config = model.config
    batch = collate(
        graphs,
        len(graphs),
        semantic_dim=config.semantic_dim,
        coverage_cells=(config.coverage_side or 0) ** 2,
    )
    hybrid = model.fusion(features, model.osm(batch), batch)
    found: Tensor = model.decoder([*features.maps, hybrid])
    return found


def run(
    row: Row, seed: int, train: Sequence[Tile], test: Sequence[Tile], steps: int
) -> dict[str, Any]:
    """Trains one model and measures it where nothing that gave a label is in the graph."""
    model = new_model(row, seed).train()
    trained = [p for part in (model.osm, model.fusion, model.decoder) for p in part.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.05)
    weights, rng = class_weights(train), np.random.default_rng([seed, 2])
    losses = []
    for step, indices in enumerate(batches(len(train), BATCH, steps, seed)):
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule(step, steps)
        tiles = [train[i] for i in indices]
        graphs = [hidden(tile.sample, rng).graph if row.osm else None for tile in tiles]
        truth = labels(tiles)
        found = functional.interpolate(
            scores(model, joined(tiles), graphs), truth.shape[1:], mode="bilinear"
        )
        loss = functional.cross_entropy(found, truth, weight=weights, ignore_index=IGNORE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return {"loss": float(np.mean(losses[-50:])), **evaluate(model.eval(), row, test)}


def schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(steps - WARM_UP, 1)))


@torch.inference_mode()
def evaluate(model: GeoLink, row: Row, test: Sequence[Tile]) -> dict[str, float]:
    """Mean IoU and accuracy, every label-giving object hidden."""
    rng = np.random.default_rng(0)  # hiding everything takes no chance, but an argument
    total = ConfusionMatrix(np.zeros((len(UFZ), len(UFZ)), np.int64))
    for tile in test:
        graph = hide_givers(tile.sample, 1.0, rng).graph if row.osm else None
        found = scores(model, joined([tile]), [graph])
        found = functional.interpolate(found, tile.sample.label.shape, mode="bilinear")
        classes = found[0].argmax(0).numpy().astype(np.uint8)
        total += ConfusionMatrix.of(tile.sample.label, classes, classes=len(UFZ))
    return {"miou": total.mean_iou, "accuracy": total.accuracy}
