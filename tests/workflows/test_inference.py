import logging
import threading
from functools import partial

import numpy as np
import pytest
import torch
from pyproj import CRS
from synthetic import CRS_35N, HEIGHT, NORTH, WEST, WIDTH, StubEncoder, osm_entities, pixels

from geolink.checkpoint import load_model
from geolink.errors import ConfigError, InputError
from geolink.graphs.scene import SceneGraphs
from geolink.grid import GridSpec
from geolink.mosaic import TileResult, TileStore
from geolink.samples import normalise
from geolink.sources.base import ImageTile, SourceInfo
from geolink.tiles import TilePlan
from geolink.workflows.inference import (
    PreparedTile,
    TileScorer,
    filled,
    ordered_map,
    pick_device,
    prepare_tile,
    score_tiles,
    scored,
)
from geolink.workflows.stages import StageClock

GRID = GridSpec(CRS.from_user_input(CRS_35N), WEST, NORTH, 1.0, HEIGHT, WIDTH)
PLAN = TilePlan(GRID)


class Noise:
    """Imagery that has pixels where `valid` says, and fails where it says None."""

    info = SourceInfo("noise")

    def __init__(self, valid=True):
        self.valid = valid

    def read(self, grid):
        if self.valid is None:
            raise InputError("noise.tif cannot be read")
        seed = int(grid.west + grid.north)
        return ImageTile(pixels(*grid.shape, seed=seed), np.full(grid.shape, self.valid))


@pytest.fixture(scope="module")
def scorer(small_model):
    return TileScorer(load_model(small_model), torch.device("cpu"))


@pytest.fixture(scope="module")
def graphs(small_model):
    encoder = StubEncoder()
    encoder.dim = load_model(small_model).config.semantic_dim
    return SceneGraphs(osm_entities(), encoder, {})


def prepare(tile, imagery=None, graphs=None):
    return prepare_tile(
        tile, plan=PLAN, imagery=imagery or Noise(), graphs=graphs, pixels_of=normalise
    )


# Devices


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device("auto") == torch.device(best)
    with pytest.raises(ConfigError, match="no abacus device"):
        pick_device("abacus")


# Preparing


def test_a_tile_with_image_and_osm(graphs):
    tile = prepare(0, graphs=graphs)
    assert tile.result.status == "ok"
    assert tile.result.nodes == (2, 2, 7)
    assert tile.image.shape == (3, 224, 224)
    assert tile.result.valid.all()


def test_a_tile_without_osm():
    tile = prepare(0)
    assert (tile.result.status, tile.result.nodes, tile.graph) == ("no_osm", (0, 0, 0), None)
    assert tile.image is not None


def test_a_tile_without_image(graphs):
    tile = prepare(0, Noise(valid=False), graphs)
    assert (tile.result.status, tile.image, tile.graph) == ("no_image", None, None)


def test_pixels_without_image_are_like_the_nearest_with_one():
    rgb = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    valid = np.zeros((4, 4), dtype=bool)
    valid[:, :2] = True
    full = filled(ImageTile(np.where(valid, rgb, 0).astype(np.uint8), valid))
    np.testing.assert_array_equal(full[..., :2], rgb[..., :2])
    np.testing.assert_array_equal(full[..., 2:], rgb[..., [1, 1]])


def test_a_tile_that_fails_says_why(graphs):
    tile = prepare(2, Noise(valid=None), graphs)
    assert (tile.id, tile.image) == (2, None)
    assert (tile.result.status, tile.result.message) == ("failed", "noise.tif cannot be read")


class Broken(Noise):
    """Imagery with a mistake that nobody foresaw, in a file whose name is no UTF-8."""

    def read(self, grid):
        raise ValueError("a\udcff.tif")


def test_an_unforeseen_failure_is_that_of_one_tile(caplog):
    with caplog.at_level(logging.DEBUG, logger="geolink"):
        tile = prepare(2, Broken())
    assert (tile.result.status, tile.image) == ("failed", None)
    assert tile.result.message == r"unexpected ValueError: a\udcff.tif"
    assert "Traceback" in caplog.text
    caplog.text.encode()  # a log can be written as UTF-8


# Order


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers):
    slow = threading.Event()

    def work(item):
        if item == 0 and workers > 1:
            slow.wait(5)  # until a later item is done
        else:
            slow.set()
        return -item

    assert list(ordered_map(work, range(9), workers)) == [-i for i in range(9)]


@pytest.mark.parametrize("workers", [0, 2])
def test_work_is_not_far_ahead(workers):
    started = []
    results = ordered_map(started.append, range(100), workers)
    for _ in range(3):
        next(results)
    results.close()
    assert len(started) <= 3 + 2 * workers + 1


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_pass(workers):
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda item: 1 // item, [1, 0, 2], workers))


# Scoring


def test_scores_are_probabilities_with_and_without_osm(scorer, graphs):
    with_osm, without = (scorer([prepare(0, graphs=g)])[0] for g in (graphs, None))
    assert with_osm.shape == (2, 9, 56, 56)
    np.testing.assert_allclose(with_osm.astype(float).sum(axis=1), 1, atol=0.01)
    assert not np.array_equal(with_osm[0], with_osm[1])
    np.testing.assert_array_equal(without[0], without[1])
    np.testing.assert_array_equal(with_osm[1], without[1])


@pytest.fixture
def store(tmp_path):
    return TileStore(tmp_path, "fingerprint", classes=9)


def test_batches_do_not_show(tmp_path, scorer, graphs):
    stores = []
    for batch_size, workers in ((1, 0), (3, 2)):
        store = TileStore(tmp_path / str(batch_size), "fingerprint", classes=9)
        score_tiles(
            range(4),
            partial(prepare, graphs=graphs),
            scorer,
            store,
            batch_size=batch_size,
            workers=workers,
            progress=lambda *stage: None,
        )
        stores.append(store)
    for tile in range(4):
        one, other = (store.get(tile) for store in stores)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert (one.status, one.nodes) == (other.status, other.nodes)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_clock_sees_every_stage(scorer, graphs, workers):
    clock = StageClock(workers)
    tiles = range(4)
    found = scored(
        tiles,
        partial(prepare, graphs=graphs),
        scorer,
        batch_size=2,
        workers=workers,
        clock=clock,
    )
    assert [tile for tile, _ in found] == list(tiles)
    report = clock.report()
    assert all(0 < share <= 1 for share in report.busy.values())
    if workers == 0:
        assert sum(report.busy.values()) <= 1


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_cores_does_not_show(scorer, graphs, threads):
    tiles = [prepare(tile, graphs=graphs) for tile in range(2)]
    before = torch.get_num_threads()
    alone = scorer(tiles)
    torch.set_num_threads(threads)
    try:
        np.testing.assert_array_equal(scorer(tiles), alone)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_only_missing_and_failed_tiles_are_scored(store):
    store.put(1, TileResult(status="no_image"))
    store.put(3, TileResult(status="failed", message="a hiccup"))
    asked, stages = [], []

    def blank(tile):
        asked.append(tile)
        status = "failed" if tile == 4 else "no_image"
        return PreparedTile(tile, TileResult(status=status))

    score_tiles(
        range(5),
        blank,
        scorer=None,
        store=store,
        batch_size=2,
        workers=0,
        progress=lambda *stage: stages.append(stage),
    )
    assert asked == [0, 2, 3, 4]
    assert [store.get(tile).status for tile in range(5)] == ["no_image"] * 4 + ["failed"]
    assert stages[0] == ("tiles", 1, 5)
    assert stages[-1] == ("tiles", 5, 5)
    assert store.pending(range(5)) == [4]
