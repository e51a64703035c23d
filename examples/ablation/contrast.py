"""Type attention where it counts: telling which graph belongs to which picture.

The region encoding, which type attention weighs, enters the contrastive loss of pretraining alone;
no feature map depends on it. So a small contrastive run measures it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tiles import Tile, batches, joined
from torch import Tensor

from geolink.config import ModelConfig, TypeAttention
from geolink.models.geolink import GeoLink
from geolink.models.graph_batch import collate
from geolink.models.objectives import info_nce

BATCH = 32
RATE = 1e-3
TEMPERATURE = 0.2


def run(
    attention: TypeAttention, seed: int, train: Sequence[Tile], test: Sequence[Tile], steps: int
) -> dict[str, Any]:
    """Trains the graph's side against frozen pictures; measures the matches in the test city."""
    train, test = ([tile for tile in some if tile.nodes] for some in (train, test))
    torch.manual_seed(seed)
    graph = train[0].sample.graph
    assert graph is not None  # it has nodes
    semantic_dim = graph["point"].x.shape[1]
    model = GeoLink(
        ModelConfig(semantic_dim=semantic_dim, type_attention=attention, pretraining=True)
    )
    assert model.pretraining is not None
    parts = (model.osm, model.pretraining.readout, model.pretraining.region_projection)
    trained = [
        p for part in (*parts, model.pretraining.image_projection) for p in part.parameters()
    ]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.05)
    for indices in batches(len(train), BATCH, steps, seed):
        images, regions = encodings(model, [train[i] for i in indices])
        loss = info_nce(images, regions, temperature=TEMPERATURE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return {"train_loss": loss.item(), **evaluate(model.eval(), test)}


def encodings(model: GeoLink, tiles: Sequence[Tile]) -> tuple[Tensor, Tensor]:
    """(B, D) projections of pictures and of graphs."""
    assert model.pretraining is not None
    graphs = [tile.sample.graph for tile in tiles]
    batch = collate(graphs, len(tiles), semantic_dim=model.config.semantic_dim)
    regions = model.pretraining.readout(model.osm(batch), batch)
    pooled = joined(tiles).tokens[:, 1:].mean(dim=1)
    return (
        model.pretraining.image_projection(pooled),
        model.pretraining.region_projection(regions),
    )


@torch.inference_mode()
def evaluate(model: GeoLink, test: Sequence[Tile]) -> dict[str, float]:
    """InfoNCE over all test tiles, and how often the right graph is among the first five."""
    halves = [encodings(model, test[i : i + BATCH]) for i in range(0, len(test), BATCH)]
    images, regions = (torch.cat(part) for part in zip(*halves, strict=True))
    loss = info_nce(images, regions, temperature=TEMPERATURE)
    images, regions = (x / x.norm(dim=1, keepdim=True) for x in (images, regions))
    best = (images @ regions.T).topk(5, dim=1).indices
    hits = (best == torch.arange(len(test))[:, None]).any(dim=1)
    return {"info_nce": float(loss), "top5": float(np.mean(hits.numpy())), "tiles": len(test)}
