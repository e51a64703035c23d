import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import CRS

from geolink.grid import GridSpec, PixelWindow
from geolink.legend import IGNORE
from geolink.mosaic import Blend, TileResult, TileStore, blend, fingerprint, tile_frame
from geolink.tiles import TilePlan

GRID = GridSpec(CRS.from_epsg(32635), 380_000.0, 6_680_000.0, 1.0, 150, 190)
PLAN = TilePlan(GRID, 64, 20)
CLASSES = 3


def store(folder: Path, mark: str = "a") -> TileStore:
    return TileStore(folder, fingerprint({"mark": mark}), CLASSES, PLAN.side)


def result(tile_id: int, **changes: object) -> TileResult:
    rng = np.random.default_rng(tile_id)
    scores = rng.dirichlet(np.ones(CLASSES), (2, 16, 16)).transpose(0, 3, 1, 2)
    valid = rng.random((64, 64)) < 0.9
    parts = {"scores": scores.astype(np.float16), "valid": valid, "nodes": (1, 2, tile_id)}
    return TileResult(**(parts | changes))  # type: ignore[arg-type]


@pytest.fixture
def full(tmp_path: Path) -> TileStore:
    tiles = store(tmp_path)
    for tile_id in range(len(PLAN)):
        tiles.put(tile_id, result(tile_id))
    return tiles


def assembled(tiles: TileStore, side: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    scores = np.full((2, CLASSES, *GRID.shape), np.nan, np.float32)
    valid = np.zeros(GRID.shape, bool)
    for window in GRID.blocks(side):
        block = blend(tiles, PLAN, window)
        scores[:, :, *window.slices] = block.scores
        valid[window.slices] = block.valid
    return scores, valid


def test_round_trip(tmp_path: Path) -> None:
    tiles, kept = store(tmp_path), result(4, status="no_osm", message="écart 🏙")
    tiles.put(4, kept)
    found = tiles.get(4)
    assert found is not None
    assert found.scores is not None
    assert found.scores.dtype == np.float16
    np.testing.assert_array_equal(found.scores, kept.scores)
    np.testing.assert_array_equal(found.valid, kept.valid)
    assert (found.status, found.message, found.nodes) == ("no_osm", "écart 🏙", (1, 2, 4))


def test_a_tile_without_scores_round_trips(tmp_path: Path) -> None:
    tiles = store(tmp_path)
    tiles.put(0, TileResult(status="no_image"))
    assert tiles.get(0) == TileResult(status="no_image")


def test_pending_are_missing_failed_and_damaged_tiles(full: TileStore) -> None:
    full.put(3, TileResult(status="failed", message="the image cannot be read"))
    whole = full._file(5).read_bytes()
    full._file(5).write_bytes(whole[: len(whole) // 2])
    full._file(6).unlink()
    full._file(7).write_bytes(b"not an archive")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    full._file(8).write_bytes(bytes(damaged))
    assert full.pending(range(len(PLAN))) == [3, 5, 6, 7, 8]


def test_foreign_files_count_as_missing(tmp_path: Path) -> None:
    tiles = store(tmp_path)
    tiles.put(0, result(0))
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    pickled = io.BytesIO()
    np.savez(pickled, text=np.array([object()], dtype=object))
    other_classes = io.BytesIO()
    np.savez(
        other_classes,
        scores=np.zeros((2, CLASSES + 1, 16, 16), np.float16),
        valid=np.zeros(512, np.uint8),
        text=np.array(["ok", ""]),
        nodes=np.zeros(3, np.int64),
    )
    for payload in (b"", array.getvalue(), pickled.getvalue(), other_classes.getvalue()):
        tiles._file(0).write_bytes(payload)
        assert tiles.get(0) is None


def test_other_settings_share_nothing(full: TileStore) -> None:
    assert store(full.folder, "b").pending([0]) == [0]
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


@pytest.mark.parametrize("side", [1000, 64, 37])
def test_the_block_layout_changes_no_bit(full: TileStore, side: int) -> None:
    scores, valid = assembled(full, side)
    one, one_valid = assembled(full, 11)
    assert scores.tobytes() == one.tobytes()
    assert valid.tobytes() == one_valid.tobytes()


def test_the_order_of_writing_changes_no_bit(full: TileStore, tmp_path: Path) -> None:
    other = store(tmp_path, "other order")
    for tile_id in np.random.default_rng(0).permutation(len(PLAN)):
        other.put(int(tile_id), result(int(tile_id)))
    assert assembled(full, 80)[0].tobytes() == assembled(other, 80)[0].tobytes()


def test_blended_scores_are_probabilities(full: TileStore) -> None:
    scores, valid = assembled(full, 100)
    sums = scores.sum(axis=1)
    np.testing.assert_allclose(sums[:, valid], 1.0, atol=2e-3)  # float16 tiles
    assert (sums[:, ~valid] == 0).all()


def test_upsampling_equals_torch_bilinear(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tiles, kept = store(tmp_path), result(0, valid=np.ones((64, 64), bool))
    tiles.put(0, kept)
    block = blend(tiles, PLAN, PixelWindow(0, 0, 64, 64))
    scores = torch.from_numpy(np.asarray(kept.scores, np.float32))
    expected = torch.nn.functional.interpolate(scores, (64, 64), mode="bilinear")
    np.testing.assert_allclose(block.scores, expected.numpy(), atol=1e-6)


def test_equal_tiles_blend_to_themselves_without_a_seam(tmp_path: Path) -> None:
    tiles = store(tmp_path)
    scores = np.zeros((2, CLASSES, 16, 16), np.float16)
    scores[0, 1], scores[1, 2] = 0.75, 0.5
    for tile_id in range(len(PLAN)):
        tiles.put(tile_id, TileResult(scores, np.ones((64, 64), bool)))
    blended, valid = assembled(tiles, 70)
    assert valid.all()
    np.testing.assert_allclose(blended[0, 1], 0.75, atol=1e-6)
    np.testing.assert_allclose(blended[1, 2], 0.5, atol=1e-6)


def test_weights_pass_smoothly_from_tile_to_tile(tmp_path: Path) -> None:
    tiles = store(tmp_path)
    for tile_id, value in ((0, 0.0), (1, 1.0)):
        scores = np.full((2, CLASSES, 16, 16), value, np.float16)
        tiles.put(tile_id, TileResult(scores, np.ones((64, 64), bool)))
    row = blend(tiles, PLAN, PixelWindow(10, 0, 1, 108)).scores[0, 0, 0]
    assert (row[:44] == 0).all()
    np.testing.assert_allclose(row[64:], 1, atol=1e-6)
    np.testing.assert_allclose(np.diff(row[43:65]), 1 / 21, atol=1e-6)


def test_missing_tiles_leave_the_rest(full: TileStore) -> None:
    full._file(0).unlink()
    full.put(1, TileResult(status="failed"))
    block = blend(full, PLAN, PixelWindow(0, 0, 64, 64))
    assert not block.valid[:44, :44].any()
    assert block.valid[50:, :].any()
    assert (block.classes == IGNORE).sum() == (~block.valid).sum()


def test_class_map_takes_the_most_probable_class_with_osm() -> None:
    scores = np.zeros((2, CLASSES, 1, 3), np.float32)
    scores[0, :, 0] = [[0.2, 0.5, 0.9], [0.7, 0.5, 0.1], [0.1, 0.0, 0.0]]
    block = Blend(scores, np.array([[True, True, False]]))
    assert block.classes.tolist() == [[1, 0, IGNORE]]


def test_tile_frame(full: TileStore) -> None:
    full.put(2, TileResult(status="failed", message="broken"))
    full._file(4).unlink()
    frame = tile_frame(full, PLAN, np.array([0, 2, 4]))
    assert frame.status.tolist() == ["ok", "failed", "failed"]
    assert frame.message.tolist() == ["", "broken", "no result"]
    assert frame.polygon_nodes.tolist() == [0, 0, 0]
    assert frame.line_nodes.tolist() == [2, 0, 0]
    assert frame.crs == GRID.crs
    assert frame.geometry.iloc[0].bounds == PLAN.tile_grid(0).bounds


def test_tile_frame_does_not_hold_the_scores_of_all_tiles(full: TileStore) -> None:
    one = full.get(0)
    assert one is not None
    assert one.scores is not None
    assert one.valid is not None
    ids = np.tile(np.arange(len(PLAN)), 20)
    tile_frame(full, PLAN, ids[:1])  # what is made once only, such as imports
    tracemalloc.start()
    try:
        tile_frame(full, PLAN, ids)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(ids) * (one.scores.nbytes + one.valid.nbytes) / 2
