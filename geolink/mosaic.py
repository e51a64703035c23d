"""From tile scores to one seamless map, read block by block from the disk.

Each tile's scores are a small file, so that a run can stop and go on. A block of the map blends
the tiles that meet it; every pixel gets the same operations in the same order whatever block it
is read with, and whatever order the tiles were written in.
"""

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geolink.files import full_disk_named, replace_bytes
from geolink.grid import PixelWindow
from geolink.legend import IGNORE
from geolink.tiles import TilePlan

logger = logging.getLogger(__name__)

TileStatus = Literal["ok", "no_osm", "no_image", "failed"]

# Files per folder of a store; a country has hundreds of thousands of tiles.
_SHARD = 1000


@dataclass(frozen=True)
class TileResult:
    """What became of one tile.

    Attributes:
        scores: (2, classes, h, w) float16 probabilities at the decoder's stride, index 0 with OSM
            and 1 without; None where the tile has no image or failed.
        valid: (side, side) bool, True where there is an image; None as for `scores`.
        status: `failed` is the one that a later run tries again.
        message: why it failed.
        nodes: OSM graph nodes by type (point, line, polygon).
    """

    scores: NDArray[np.float16] | None = None
    valid: NDArray[np.bool_] | None = None
    status: TileStatus = "ok"
    message: str = ""
    nodes: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Blend:
    """Scores of one block of the map.

    Attributes:
        scores: (2, classes, height, width) float32 probabilities, 0 where not valid.
        valid: (height, width) bool, True where there is an image and a tile that saw it.
    """

    scores: NDArray[np.float32]
    valid: NDArray[np.bool_]

    @property
    def classes(self) -> NDArray[np.uint8]:
        """(height, width) most probable class with OSM; 255 where not valid."""
        if not self.valid.any():  # much of a sparse area, whose zeros need no memory till read
            return np.full(self.valid.shape, IGNORE, np.uint8)
        best = self.scores[0].argmax(axis=0).astype(np.uint8)
        return np.where(self.valid, best, np.uint8(IGNORE))


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Digest of everything that determines the scores; `settings` must be plain JSON data."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TileStore:
    """Tile results on disk, one file per tile, in a folder of their own per fingerprint.

    A file that is cut short or not ours counts as missing. Several processes may write to one
    store.

    Attributes:
        folder: where stores are kept.
        fingerprint: digest of what determines the scores (see `fingerprint`); results of other
            settings are never mixed in.
        classes: number of classes in `scores`.
        side: tile side in pixels, that of `valid`.
    """

    folder: Path
    fingerprint: str
    classes: int
    side: int = 224

    @property
    def path(self) -> Path:
        """The folder of this fingerprint."""
        return self.folder / self.fingerprint[:32]

    def put(self, tile_id: int, result: TileResult) -> None:
        """Keep the result of a tile, in place of an earlier one.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        file = self._file(tile_id)
        with full_disk_named(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(file, _pack(result))

    def get(self, tile_id: int) -> TileResult | None:
        """The result of a tile, or None where there is none that can be read."""
        file = self._file(tile_id)
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as archive:
                return self._unpack(archive)
        except FileNotFoundError:
            return None
        except Exception as error:  # foreign bytes can provoke any error in a reader
            logger.warning(
                "tile %d is damaged in %s (%s); it counts as missing", tile_id, file, error
            )
            return None

    def pending(self, ids: Iterable[int]) -> list[int]:
        """Those of `ids` that are missing, damaged or failed, in the given order."""
        return [i for i in ids if (found := self.get(i)) is None or found.status == "failed"]

    def _file(self, tile_id: int) -> Path:
        return self.path / f"{tile_id // _SHARD:05d}" / f"{tile_id:08d}.npz"

    def _unpack(self, archive: Mapping[str, NDArray[Any]]) -> TileResult:
        """The inverse of `_pack`.

        Raises:
            KeyError, ValueError: the archive is not one of ours.
        """
        status, message = (str(text) for text in archive["text"])
        if status not in get_args(TileStatus):
            raise ValueError(f"unknown status {status!r}")
        point, line, polygon = (int(n) for n in archive["nodes"])
        scores, bits = archive["scores"], archive["valid"]
        outcome = (cast(TileStatus, status), message, (point, line, polygon))
        if scores.size == 0:
            return TileResult(None, None, *outcome)
        if scores.dtype != np.float16 or scores.ndim != 4 or scores.shape[:2] != (2, self.classes):
            raise ValueError(f"scores of {scores.dtype} {scores.shape}")
        if bits.size != -(-(self.side**2) // 8):
            raise ValueError(f"{bits.size} bytes of validity for a tile of {self.side} px")
        valid = np.unpackbits(bits, count=self.side**2).reshape(self.side, self.side).astype(bool)
        return TileResult(scores, valid, *outcome)


def _pack(result: TileResult) -> bytes:
    """A result as the bytes of an `.npz`, whose checksums tell damage."""
    buffer = io.BytesIO()
    empty = np.zeros((0, 0, 0, 0), np.float16)
    valid = np.zeros(0, bool) if result.valid is None else result.valid
    np.savez(
        buffer,
        scores=empty if result.scores is None else result.scores.astype(np.float16),
        valid=np.packbits(valid),
        text=np.array([result.status, result.message]),
        nodes=np.array(result.nodes, dtype=np.int64),
    )
    return buffer.getvalue()


def blend(store: TileStore, plan: TilePlan, window: PixelWindow) -> Blend:
    """Scores of the pixels of `window`, overlapping tiles averaged with tapered weights.

    Weights fall off linearly over the overlap, so that a tile's rim, which the model saw with the
    least context, counts least and no seam remains. Missing tiles are not counted.
    """
    shape = (window.height, window.width)
    total = np.zeros((2, store.classes, *shape), np.float32)
    weight = np.zeros(shape, np.float32)
    valid = np.zeros(shape, bool)
    taper = _taper(plan.side, plan.overlap_px)
    for tile_id in plan.tiles_meeting(window):
        result = store.get(tile_id)
        if result is None or result.scores is None or result.valid is None:
            continue
        tile = plan.window(tile_id)
        shared = tile.intersection(window)
        assert shared is not None  # tiles_meeting found it
        here, there = _offset(shared, window).slices, _offset(shared, tile).slices
        tapered = np.outer(taper[there[0]], taper[there[1]])
        total[:, :, *here] += _upsampled(result.scores, plan.side, there) * tapered
        weight[here] += tapered
        valid[here] |= result.valid[there]
    if weight.any():
        np.divide(total, weight, out=total, where=valid)
        total[:, :, ~valid] = 0.0
    return Blend(total, valid)


def tile_frame(store: TileStore, plan: TilePlan, ids: NDArray[np.int64]) -> gpd.GeoDataFrame:
    """The `tiles` layer: footprint, status and node counts of each tile of `ids`.

    Columns: tile_id, status, message, point_nodes, line_nodes, polygon_nodes, geometry. A tile
    without a result is `failed`.
    """
    missing = TileResult(status="failed", message="no result")
    results = (store.get(int(i)) or missing for i in ids)  # of a country: not all at once
    outcomes = [(r.status, r.message, r.nodes) for r in results]
    nodes = np.array([outcome[2] for outcome in outcomes], dtype=np.int32).reshape(-1, 3)
    columns = {
        "tile_id": ids.astype(np.int32),
        "status": pd.array([outcome[0] for outcome in outcomes], dtype="str"),
        "message": pd.array([outcome[1] for outcome in outcomes], dtype="str"),
        **{f"{kind}_nodes": nodes[:, i] for i, kind in enumerate(("point", "line", "polygon"))},
    }
    return gpd.GeoDataFrame(columns, geometry=plan.footprints(ids), crs=plan.grid.crs)


def _taper(side: int, overlap: int) -> NDArray[np.float32]:
    """(side,) weights along one axis: 1 inside, falling to 1 / (overlap + 1) at both ends.

    The ramps of two neighbours add up to 1.
    """
    from_end = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1
    return np.minimum(from_end / (overlap + 1), 1.0).astype(np.float32)


def _offset(window: PixelWindow, origin: PixelWindow) -> PixelWindow:
    """`window` counted from the upper left pixel of `origin`."""
    row, col = window.row_off - origin.row_off, window.col_off - origin.col_off
    return PixelWindow(row, col, window.height, window.width)


def _upsampled(
    scores: NDArray[np.float16], side: int, part: tuple[slice, slice]
) -> NDArray[np.float32]:
    """(2, classes, h, w) scores, bilinear at the pixels `part` of a tile of `side` pixels.

    Plain products and sums of single elements, never a matrix product: its order of summation
    depends on the size of the part.
    """
    low, high, share = _neighbours(scores.shape[2], side, part[0])
    rows = scores[:, :, low].astype(np.float32) * (1 - share)[:, None]
    rows += scores[:, :, high].astype(np.float32) * share[:, None]
    low, high, share = _neighbours(scores.shape[3], side, part[1])
    full: NDArray[np.float32] = rows[..., low] * (1 - share)
    full += rows[..., high] * share
    return full


def _neighbours(
    size: int, side: int, part: slice
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Indices of the two samples around each pixel of `part`, and the share of the second.

    Samples and pixels are areas of the same extent (align_corners=False), clamped at the ends.
    """
    position = (np.arange(part.start, part.stop) + 0.5) * (size / side) - 0.5
    position = np.clip(position, 0, size - 1)
    low = np.floor(position).astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (position - low).astype(np.float32)
