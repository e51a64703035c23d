"""Speed of pretraining: against a straightforward loop, waiting for data, memory, two processes.

    python benchmarks/pretrain.py EXTRACT.osm.pbf --device cpu
    torchrun --nproc-per-node 4 benchmarks/pretrain.py EXTRACT.osm.pbf --out SHARED_FOLDER

The straightforward loop does the same work on the same samples in the way that is written first: it
encodes all patches and hides the masked ones by a token, runs the graph layers tile by tile, draws
masks in Python loops, prepares the samples in line, and computes in float32. Both are measured in
one run. Without torchrun, weak scaling is measured too: two processes, each with the batch that one
has alone. Images are SIMULATED; that does not change the speed.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from geolink.augment import Augmentation
from geolink.config import ModelConfig
from geolink.graphs.schema import NODE_TYPES, NodeType
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.models.geolink import GeoLink
from geolink.models.graph_batch import collate
from geolink.models.objectives import (
    Masks,
    Objective,
    ObjectiveConfig,
    hide_nodes,
    info_nce,
    patchify,
)
from geolink.models.pretraining import Pretraining
from geolink.shards import Draw, ShardDataset
from geolink.training.callbacks import Status
from geolink.training.data import Steps
from geolink.training.distributed import world
from geolink.training.loop import Watchers, train
from geolink.training.pretraining import MaskedSamples, PretrainTask
from geolink.training.settings import TrainingSettings
from geolink.workflows.shard_building import ShardRequest, build_shards

OBJECTIVES = ObjectiveConfig()
WARM_UP = 2  # steps that are not measured


def load_samples(shards: Path, config: ModelConfig) -> MaskedSamples:
    """Random views of the samples."""
    data = ShardDataset(
        shards,
        encoder=TableTagEncoder(),
        key_counts=bundled_key_counts(),
        augmentation=Augmentation(),
        side=config.image_size,
        coverage_side=config.coverage_side,
    )
    return MaskedSamples(data, config, objectives=OBJECTIVES, seed=0)


def ours(
    samples: MaskedSamples, config: ModelConfig, settings: TrainingSettings, steps: int
) -> dict[str, float]:
    """Samples per second and share of waiting of the training loop, after the first steps."""
    seen: list[tuple[float, Status]] = []
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            PretrainTask(GeoLink(config), OBJECTIVES),
            samples,
            samples.join,
            settings=settings,
            record={},
            folder=Path(folder),
            watchers=Watchers(
                watch=lambda status: seen.append((time.perf_counter(), status)),
                enough=lambda: len(seen) >= steps + WARM_UP,
            ),
        )
    if not seen:  # another process than the first
        return {}
    seconds = seen[-1][0] - seen[WARM_UP - 1][0]
    waited = [status.waiting / status.samples_per_second for _, status in seen[WARM_UP:]]
    worked = [1 / status.samples_per_second for _, status in seen[WARM_UP:]]
    return {
        "samples_per_second": settings.batch_size * (len(seen) - WARM_UP) / seconds,
        "waiting": sum(waited) / sum(worked),
        "steps": result.step,
    }


class PlainLoop:
    """The same losses, written without a thought for speed."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.model = GeoLink(config).to(device)
        self.token = torch.nn.Parameter(torch.zeros(1, 1, config.encoder.width, device=device))
        self.optimizer = torch.optim.AdamW([*self.model.parameters(), self.token], lr=1e-4)

    def step(self, samples: MaskedSamples, draws: list[Draw]) -> None:
        """One step on some samples, which it reads itself."""
        parts = [samples.samples[draw] for draw in draws]
        images = torch.stack([part.image for part in parts]).to(self.device)
        images = (images.float() / 255 - 0.45) / 0.22
        masks = [self._mask({kind: len(p.graph[kind].x) for kind in NODE_TYPES}) for p in parts]
        losses = self._losses(images, [part.graph for part in parts], masks)
        loss = OBJECTIVES.total(losses)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def _mask(self, counts: dict[NodeType, int]) -> Masks:
        patches = self.config.grid_size**2
        visible: set[int] = set()
        while len(visible) < round(patches * (1 - OBJECTIVES.patch_share)):
            visible.add(random.randrange(patches))
        nodes: dict[NodeType, Tensor] = {}
        for kind, count in counts.items():
            flags = [False] * count
            for _ in range(max(1, round(OBJECTIVES.node_share * count)) if count else 0):
                flags[random.randrange(count)] = True
            nodes[kind] = torch.tensor(flags, dtype=torch.bool)
        hidden = [patch for patch in range(patches) if patch not in visible]
        return Masks(torch.tensor([sorted(visible)]), torch.tensor([hidden]), nodes).to(self.device)

    def _losses(self, images: Tensor, graphs: list, masks: list[Masks]) -> dict[Objective, Tensor]:  # type: ignore[type-arg]
        model, parts = self.model, self.model.pretraining
        assert isinstance(parts, Pretraining)
        tokens = self._tokens(images, masks)
        pixels = patchify(images, self.config.patch_size)
        node_mask = {kind: parts.node_mask[kind] for kind in NODE_TYPES}
        rebuilt, regions, consistent = [], [], []
        for tile, (graph, mask) in enumerate(zip(graphs, masks, strict=True)):
            batch = collate([graph], 1, semantic_dim=self.config.semantic_dim).to(self.device)
            masked = hide_nodes(batch, mask.nodes, node_mask)
            nodes = model.osm(masked)
            regions.append(parts.region_projection(parts.readout(nodes, masked))[0])
            features = model.image(images[tile : tile + 1])
            objects = model.fusion.objects(features, nodes, masked)
            found = torch.cat([objects[k][mask.nodes[k]] for k in NODE_TYPES])
            target = torch.cat([batch.x[k][mask.nodes[k]] for k in NODE_TYPES])
            if len(found):
                consistent.append((parts.node_decoder(found) - target).square().mean())
            every = torch.arange(pixels.shape[1], device=self.device)[None]
            grid = (self.config.grid_size, self.config.grid_size)
            predicted = parts.patch_decoder(tokens[tile : tile + 1], every, grid)[0]
            for patch in mask.hidden[0].tolist():
                wanted = pixels[tile, patch]
                wanted = (wanted - wanted.mean()) / (wanted.var() + 1e-6).sqrt()
                rebuilt.append((predicted[patch] - wanted).square().mean())
        means = torch.stack(
            [tokens[i, 1 + mask.visible[0]].mean(0) for i, mask in enumerate(masks)]
        )
        contrast = info_nce(
            parts.image_projection(means), torch.stack(regions), temperature=OBJECTIVES.temperature
        )
        return {
            "reconstruction": torch.stack(rebuilt).mean(),
            "contrast": contrast,
            "consistency": torch.stack(consistent).mean(),
        }

    def _tokens(self, images: Tensor, masks: list[Masks]) -> Tensor:
        """Tokens of whole images, in which a token stands in for the masked patches."""
        vit = self.model.image.vit
        tokens = vit.patch_embed(images).flatten(1, 2)
        rows = []
        for tile, mask in enumerate(masks):
            row = tokens[tile].clone()
            for patch in mask.hidden[0].tolist():
                row[patch] = self.token[0, 0]
            rows.append(row)
        whole = torch.cat(
            [self.model.image.cls_token.expand(len(rows), 1, -1), torch.stack(rows)], 1
        )
        encoded: Tensor = vit.norm(vit.blocks(whole))
        return encoded


def plain(samples: MaskedSamples, config: ModelConfig, args: argparse.Namespace) -> float:
    """Samples per second of the straightforward loop."""
    loop = PlainLoop(config, torch.device(args.device))
    settings = TrainingSettings(epochs=10**6, batch_size=args.batch_size)
    draws = iter(Steps(samples, settings))
    loop.step(samples, next(draws))
    started = time.perf_counter()
    for _ in range(args.plain_steps):
        loop.step(samples, next(draws))
    if args.device == "cuda":
        torch.cuda.synchronize()
    samples_read: int = args.batch_size * args.plain_steps
    return samples_read / (time.perf_counter() - started)


def peak_memory_mb(device: str) -> float:
    """Greatest memory that was in use: of the GPU, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def two_processes(args: argparse.Namespace, shards: Path) -> float:
    """Samples per second of two processes, each with the batch that one has alone."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += [__file__, "--shards", str(shards), "--device", args.device, "--only-ours"]
    for name in ("batch_size", "steps", "workers", "image_size", "model"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    return float(json.loads(line)["samples_per_second"])


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extract", type=Path, nargs="?", help="cut into simulated samples")
    parser.add_argument("--shards", type=Path, help="a ready set, instead")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16, help="of one process")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--plain-steps", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only-ours", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as scratch:
        shards = args.shards or Path(scratch) / "shards"
        if args.shards is None:
            build_shards(
                ShardRequest(
                    out=shards,
                    imagery="simulated",
                    osm=(args.extract,),
                    side=args.image_size,
                    limit=64,
                )
            )
        measure(args, shards)


def measure(args: argparse.Namespace, shards: Path) -> None:
    """Measures and prints."""
    rank, world_size = world()
    config = ModelConfig(args.model, image_size=args.image_size, pretraining=True)
    samples = load_samples(shards, config)
    settings = TrainingSettings(
        epochs=10**6,
        batch_size=args.batch_size * world_size,
        workers=args.workers,
        log_every=1,
        save_every=10**9,
        device=args.device,
    )
    found = ours(samples, config, settings, args.steps)
    if rank == 0 and (args.only_ours or world_size > 1):
        print(json.dumps(found))
    if args.only_ours or world_size > 1:
        return
    found["peak_memory_mb"] = peak_memory_mb(args.device)
    nodes = [len(samples.samples[Draw(0, i)].graph[k].x) for i in range(16) for k in NODE_TYPES]
    print(f"{args.model}, {args.image_size} px, batch {args.batch_size}, on {args.device},")
    print(f"{sum(nodes) / 16:.0f} OSM objects a tile")
    print(f"training loop      {found['samples_per_second']:8.1f} samples/s")
    print(f"waiting for data   {found['waiting']:8.1%} of the time")
    print(f"peak memory        {found['peak_memory_mb']:8.0f} MB")
    speed = plain(samples, config, args)
    ratio = found["samples_per_second"] / speed
    print(f"straightforward    {speed:8.1f} samples/s: {ratio:.1f} times slower")
    both = two_processes(args, shards)
    share = both / found["samples_per_second"] / 2
    print(f"two processes      {both:8.1f} samples/s: {share:.0%} of twice one")


if __name__ == "__main__":
    main()
