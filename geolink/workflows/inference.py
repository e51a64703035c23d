"""Tile scores: read, build the graph, run the model, store; in order, resumable."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from traceback import format_exc
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import HeteroData

from geolink.errors import ConfigError, GeolinkError
from geolink.graphs.scene import SceneGraphs, StoredGraphs
from geolink.graphs.schema import NODE_TYPES
from geolink.models.geolink import GeoLink
from geolink.models.threads import each_alone_on_cpu
from geolink.mosaic import TileResult, TileStatus, TileStore
from geolink.samples import filled
from geolink.sources.base import ImageSource
from geolink.tiles import TilePlan
from geolink.workflows.progress import Progress
from geolink.workflows.stages import GRAPHS, MODEL, READING, StageClock

log = logging.getLogger(__name__)

_UNWRITTEN = 16  # results that may wait to be written

Scored = tuple[int, TileResult]  # the number of a tile, and what became of it

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PreparedTile:
    """A tile ready for the model, or the reason why it is not.

    Attributes:
        id: its number in the plan.
        result: what is known before the model has run; `scores` are still missing.
        image: (3, side, side) normalised pixels, None without an image.
        graph: its OSM graph, None without OSM.
        seconds: how long reading and building the graph took.
    """

    id: int
    result: TileResult
    image: Tensor | None = None
    graph: HeteroData | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def pick_device(name: str) -> torch.device:
    """The torch device of `auto`, `cuda`, `mps` or `cpu`.

    Raises:
        ConfigError: the device was asked for by name and is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available.get(name, False):
        raise ConfigError(f"there is no {name} device on this machine; use --device auto")
    return torch.device(name)


def prepare_tile(
    tile: int,
    plan: TilePlan,
    imagery: ImageSource,
    graphs: SceneGraphs | StoredGraphs | None,
    pixels_of: Callable[[NDArray[np.uint8]], Tensor],
) -> PreparedTile:
    """Reads the image and builds the graph of one tile; a failure is a status, not an error.

    Args:
        tile: its number in the plan.
        plan: the tiling.
        imagery: pixels of the scene.
        graphs: OSM of the scene, None where it is not used.
        pixels_of: turns (3, side, side) uint8 pixels into what the model takes.
    """
    grid = plan.tile_grid(tile)
    start = time.perf_counter()
    try:
        pixels = imagery.read(grid)
        read = time.perf_counter()
        if not pixels.valid.any():
            return PreparedTile(
                tile, TileResult(status="no_image"), seconds={READING: read - start}
            )
        graph = graphs.build(grid.bounds) if graphs is not None else None
        seconds = {READING: read - start, GRAPHS: time.perf_counter() - read}
    except Exception as error:  # whatever is wrong with one tile, the others go on
        known = isinstance(error, GeolinkError | OSError)
        reason = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        log.warning("tile %d failed: %s", tile, _utf8(reason if known else format_exc()))
        return PreparedTile(tile, TileResult(status="failed", message=_utf8(reason)))
    nodes = (0, 0, 0) if graph is None else node_counts(graph)
    status: TileStatus = "ok" if any(nodes) else "no_osm"
    result = TileResult(valid=pixels.valid, status=status, nodes=nodes)
    image = pixels_of(filled(pixels))
    return PreparedTile(tile, result, image, graph if any(nodes) else None, seconds)


def _utf8(text: str) -> str:
    """A text with names of files in it, which need not be UTF-8, as one that is."""
    return text.encode("utf-8", "backslashreplace").decode()


def node_counts(graph: HeteroData) -> tuple[int, int, int]:
    """Number of points, lines and polygons of a graph."""
    points, lines, polygons = (len(graph[kind].x) for kind in NODE_TYPES)
    return points, lines, polygons


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, ahead: int = 0
) -> Iterator[Result]:
    """`map` on `workers` threads, results in order.

    It is at most two items a thread ahead, or `ahead` where that is more.
    """
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > max(2 * workers, ahead):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def model_inputs(
    tiles: Sequence[PreparedTile], device: torch.device
) -> tuple[Tensor, list[HeteroData | None]]:
    """Images (B, 3, side, side) and graphs of tiles that have an image, on a device."""
    images = torch.stack([tile.image for tile in tiles if tile.image is not None]).to(device)
    return images, [None if tile.graph is None else tile.graph.to(device) for tile in tiles]


class TileScorer:
    """Runs the model on prepared tiles."""

    def __init__(self, model: GeoLink, device: torch.device) -> None:
        self._model = model.to(device).eval()
        self._device = device

    def __call__(self, tiles: Sequence[PreparedTile]) -> NDArray[np.float16]:
        """Probabilities (tiles, 2, classes, h, w): with OSM at index 0, without at 1."""
        return np.concatenate(each_alone_on_cpu(self._score, tiles, self._device))

    @torch.inference_mode()
    def _score(self, tiles: Sequence[PreparedTile]) -> NDArray[np.float16]:
        images, graphs = model_inputs(tiles, self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            scores = self._model.probabilities_with_and_without(images, graphs)
        result: NDArray[np.float16] = scores.transpose(0, 1).half().cpu().numpy()
        return result


def scored(
    tiles: Sequence[int],
    prepare: Callable[[int], PreparedTile],
    scorer: TileScorer,
    *,
    batch_size: int,
    workers: int,
    clock: StageClock | None = None,
) -> Iterator[Scored]:
    """What becomes of `tiles`, with each its number; a batch at a time, else in their order.

    While the model runs on a batch, `workers` threads prepare the next.
    """
    clock = clock or StageClock(workers)
    batch: list[PreparedTile] = []

    def flush() -> Iterator[Scored]:
        if batch:
            with clock.working(MODEL):
                found = scorer(batch)
            for tile, scores in zip(batch, found, strict=True):
                yield tile.id, replace(tile.result, scores=scores)
            batch.clear()

    with clock.running():
        for tile in ordered_map(prepare, tiles, workers, ahead=batch_size + workers):
            clock.add(tile.seconds)
            if tile.image is None:
                yield tile.id, tile.result
            else:
                batch.append(tile)
            if len(batch) == batch_size:
                yield from flush()
        yield from flush()


def fill_store(
    tiles: Sequence[int],
    score: Callable[[Sequence[int]], Iterable[Scored]],
    store: TileStore,
    progress: Progress,
) -> None:
    """Fills the store with those of `tiles` that it lacks, as their scores arrive.

    Failed tiles are recorded, and tried again in the next run. A thread writes, so that no score
    waits for the disk.

    Args:
        tiles: all that belong to the map.
        score: gives the results of tiles, each with its number, in any order.
        store: where they are kept.
        progress: told of each.
    """
    missing = store.pending(tiles)
    done = len(tiles) - len(missing)
    progress("tiles", done, len(tiles))
    put = ordered_map(lambda found: store.put(*found), score(missing), 1, ahead=_UNWRITTEN)
    for _ in put:
        done += 1
        progress("tiles", done, len(tiles))


def score_tiles(
    tiles: Sequence[int],
    prepare: Callable[[int], PreparedTile],
    scorer: TileScorer,
    store: TileStore,
    *,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> None:
    """Fills the store with those of `tiles` that it lacks, in this process."""
    score = partial(scored, prepare=prepare, scorer=scorer, batch_size=batch_size, workers=workers)
    fill_store(tiles, score, store, progress)
