"""Trains a GeoLink model on samples from `make_samples.py`, on CPU or GPU.

    python train.py samples --out run --steps 4000

The state is saved every few minutes; the same command goes on from it. The last state is written
as a checkpoint (safetensors and card) that `geolink predict --model run` loads.
"""

import argparse
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import HeteroData

from geolink.checkpoint import ModelCard, save_checkpoint
from geolink.config import ModelConfig
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.legend import IGNORE, UFZ
from geolink.models.geolink import GeoLink
from geolink.samples import (
    IMAGE_MEAN,
    IMAGE_STD,
    Sample,
    flip,
    from_arrays,
    hide_givers,
    normalise,
)

NO_OSM_SHARE = 0.15  # samples shown without any OSM, so that the image-only path learns
ALL_HIDDEN_SHARE = 0.45  # samples whose label-giving objects are all hidden
NONE_HIDDEN_SHARE = 0.15  # samples with everything mapped; the rest hide a random share
GSD_RANGE = (0.7, 5.0)  # metres: that of the samples, and twice as coarse
MAX_NODES = 384  # per tile while training, the largest; attention over the densest tiles is slow


class Samples(Dataset[Sample]):
    """Stored samples with random hiding, symmetry and colour; a pure function of (seed, index)."""

    def __init__(self, folder: Path, seed: int, start: int, count: int) -> None:
        self.files = sorted(folder.glob("*/*.npz"))
        self.seed, self.start, self.count = seed, start, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        draw = self.start + index
        epoch, place = divmod(draw, len(self.files))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.files))
        rng = np.random.default_rng([self.seed, epoch, place])
        with np.load(self.files[order[place]], allow_pickle=False) as arrays:
            sample = from_arrays(arrays)
        transpose, mirror_x, mirror_y = rng.random(3) < 0.5
        sample = flip(sample, transpose=transpose, mirror_x=mirror_x, mirror_y=mirror_y)
        return jitter(hide_osm(sample, rng), rng)


def hide_osm(sample: Sample, rng: np.random.Generator) -> Sample:
    """Hides all OSM, all, none or a random share of the label-giving objects."""
    chance = rng.random()
    if chance < NO_OSM_SHARE:
        return Sample(sample.rgb, None, sample.label, {})
    if chance < NO_OSM_SHARE + ALL_HIDDEN_SHARE:
        return hide_givers(sample, 1.0, rng)
    if chance < NO_OSM_SHARE + ALL_HIDDEN_SHARE + NONE_HIDDEN_SHARE:
        return sample
    return hide_givers(sample, rng.random(), rng)


def jitter(sample: Sample, rng: np.random.Generator) -> Sample:
    """Random exposure, contrast and colour balance; one in four as blurred as a coarse sensor."""
    rgb = sample.rgb.astype(np.float32)
    if rng.random() < 0.25:
        rgb = blocks(rgb, int(rng.choice([2, 4, 8])))
    balance = rng.uniform(0.9, 1.1, (3, 1, 1))
    exposure = np.exp(rng.uniform(np.log(0.35), np.log(1.3)))
    contrast = rng.uniform(0.6, 1.2)
    middle = rgb.mean()
    rgb = ((rgb - middle) * contrast + middle) * exposure * balance
    return Sample(rgb.clip(0, 255).astype(np.uint8), sample.graph, sample.label, sample.givers)


def blocks(rgb: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(3, H, W) pixels averaged over squares of `side` pixels, at the old size."""
    bands, height, width = rgb.shape
    squares = rgb.reshape(bands, height // side, side, width // side, side).mean(axis=(2, 4))
    return squares.repeat(side, axis=1).repeat(side, axis=2)


def collate(samples: list[Sample]) -> tuple[Tensor, list[HeteroData | None], Tensor]:
    """Images (B, 3, H, W), graphs, labels (B, H, W)."""
    images = normalise(np.stack([s.rgb for s in samples]))
    labels = torch.from_numpy(np.stack([s.label for s in samples])).long()
    return images, [s.graph for s in samples], labels


def halved(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images averaged over 2 x 2 pixels, and the label of each upper left one."""
    return functional.avg_pool2d(images, 2), labels[:, ::2, ::2]


def class_weights(folder: Path) -> Tensor:
    """(classes,) weights, the inverse square root of the share of labelled pixels, mean 1."""
    counts = np.zeros(len(UFZ))
    for file in sorted(folder.glob("*/*.npz"))[::5]:
        with np.load(file, allow_pickle=False) as arrays:
            counts += np.bincount(arrays["label"].ravel(), minlength=256)[: len(UFZ)]
    weights = 1 / np.sqrt(np.maximum(counts / counts.sum(), 1e-3))
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def rate(step: int, steps: int, base: float, warm_up: int = 200) -> float:
    """Learning rate: linear warm-up, then half a cosine."""
    if step < warm_up:
        return base * (step + 1) / warm_up
    return base * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def model_card(
    name: str, config: ModelConfig, encoder: TableTagEncoder, samples: int, seen: int
) -> ModelCard:
    """The card of the trained model, as far as it is known before it is measured."""
    return ModelCard(
        name=name,
        config=config,
        legend=UFZ,
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        gsd_range=GSD_RANGE,
        tag_encoder=encoder.name,
        key_counts=bundled_key_counts(),
        training_data=(
            f"{samples} tiles ({seen} seen) of simulated orthophotos drawn from OpenStreetMap "
            "extracts of Baltimore, Bayreuth, Darmstadt, Karlsruhe, Liechtenstein, Monaco and "
            "Neuss; labels from OSM's own zones; no real imagery, no pretraining"
        ),
        licence="MIT; trained on data of OpenStreetMap contributors, ODbL 1.0",
    )


def save_state(path: Path, state: dict[str, object]) -> None:
    """Writes beside the target, then renames, so that a cut never leaves half a state."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def main() -> None:
    """Reads the command line, trains or goes on training, writes the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="geolink-tiny")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument(
        "--coarse-share",
        type=float,
        default=0.7,
        help="share of the steps, the first ones, at half the resolution and a quarter of the time",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--save-every", type=float, default=180, help="seconds")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = TableTagEncoder()
    config = ModelConfig(
        classes=len(UFZ), semantic_dim=encoder.dim, dropout=0.0, max_nodes=MAX_NODES
    )
    model = GeoLink(config).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.rate, betas=(0.9, 0.999), weight_decay=0.05
    )
    state_file, step = args.out / "state.pt", 0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    weights = class_weights(args.samples).to(device)
    data = Samples(args.samples, args.seed, step * args.batch, (args.steps - step) * args.batch)
    loader = DataLoader(
        data,
        args.batch,
        num_workers=args.workers,
        collate_fn=collate,
        persistent_workers=args.workers > 0,
    )
    model.train()
    started = saved = time.monotonic()
    running, first = 0.0, step
    for images, graphs, labels in loader:
        for group in optimizer.param_groups:
            group["lr"] = rate(step, args.steps, args.rate)
        if step < args.coarse_share * args.steps:
            images, labels = halved(images, labels)
        graphs = [g if g is None else g.to(device) for g in graphs]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(images.to(device), graphs)
        loss = functional.cross_entropy(
            logits.float(), labels.to(device), weight=weights, ignore_index=IGNORE
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        running = loss.item() if step == first + 1 else 0.98 * running + 0.02 * loss.item()
        if step % 20 == 0:
            speed = (step - first) * args.batch / (time.monotonic() - started)
            print(f"step {step}/{args.steps} loss {running:.3f} {speed:.1f} tiles/s", flush=True)
        if time.monotonic() - saved > args.save_every or step == args.steps:
            saved = time.monotonic()
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            save_state(state_file, state)
    trained = GeoLink(replace(config, max_nodes=None))
    trained.load_state_dict(model.state_dict())
    card = model_card(args.name, trained.config, encoder, len(data.files), step * args.batch)
    save_checkpoint(args.out, trained, card, half=True)
    print(f"done: {step} steps on {len(data.files)} samples, model in {args.out}")


if __name__ == "__main__":
    main()
