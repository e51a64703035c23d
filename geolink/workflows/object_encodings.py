"""`encode_objects`: a place in, one encoding per OSM object out, as GeoParquet.

The encodings are the hybrid OSM-RS object encodings (Bai et al. 2025, section 3.2): what an object
is, what surrounds it, and what its part of the picture shows.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import torch
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from geolink.checkpoint import load_model
from geolink.errors import ConfigError, CoverageError
from geolink.files import atomic_path, require_writable
from geolink.graphs.scene import SceneGraphs
from geolink.graphs.schema import NODE_TYPES, NodeType
from geolink.models.geolink import GeoLink
from geolink.models.threads import each_alone_on_cpu
from geolink.samples import normalise
from geolink.sources.cache import Cache
from geolink.sources.network import Network
from geolink.workflows.acquire import gather, local_model
from geolink.workflows.inference import (
    PreparedTile,
    model_inputs,
    ordered_map,
    pick_device,
    prepare_tile,
)
from geolink.workflows.mapping import describe
from geolink.workflows.predict import require_outputs
from geolink.workflows.progress import Progress, silent
from geolink.workflows.request import PredictRequest
from geolink.workflows.scene import Scene, build_scene, tag_semantics
from geolink.workflows.site import Supply, locate, way_out_named
from geolink.workflows.stock import announce, take_stock

Floats = NDArray[np.float32]

_RULE = (
    "mean over the tiles that an object lies in, each weighted by the area or length of the object "
    "within the tile; points count once per tile"
)
_MULTIPLE: dict[NodeType, Callable[..., NDArray[np.object_]]] = {
    "point": shapely.multipoints,
    "line": shapely.multilinestrings,
    "polygon": shapely.multipolygons,
}


@dataclass(frozen=True)
class EncodingResult:
    """What `encode_objects` made.

    Attributes:
        out: the GeoParquet file.
        title: what it holds; it says so where the imagery is simulated.
        objects: number of objects by type.
        tiles: number of tiles by status.
        simulated: True where the imagery was rendered, not observed.
        seconds: wall time.
        metadata: the record that went into the file.
    """

    out: Path
    title: str
    objects: dict[str, int]
    tiles: dict[str, int]
    simulated: bool
    seconds: float
    metadata: dict[str, Any] = field(repr=False)


def encode_objects(
    out: str | Path,
    request: PredictRequest | None = None,
    progress: Progress = silent,
    **settings: Any,  # noqa: ANN401 - checked by PredictRequest
) -> EncodingResult:
    """Writes the encoding of every OSM object of a place to a GeoParquet file.

    The file has a row per object that meets the area and lies in a tile with imagery: `osm_id`,
    `type` (point, line, polygon), `encoding` (a list of `fusion_dim` float32 numbers) and
    `geometry`, in the area's UTM zone, several parts as one multi-part geometry. An object in
    several tiles, which overlap, has the mean of its encodings, each weighted by the area or length
    that lies in the tile. The same request gives the same bytes, whatever the workers and batches.
    A run that is cut leaves nothing, and starts again.

    Args:
        out: GeoParquet file to write.
        request: place, sources, model and tiling, as `predict` takes them, or its fields by name,
            as in `encode_objects("sample.parquet", city="sample")`. Outputs that it names are those
            of maps, and not written.
        progress: called with (stage, done, total).
        **settings: fields of a `PredictRequest`.

    Raises:
        InputError: an input or a setting cannot be used.
        CoverageError: no object lies in the area with imagery.
        UnavailableError: data or a model is not here.
        CheckpointError: the model cannot be loaded.
        OutputError: the output cannot be written.
    """
    request = request or PredictRequest(**settings)
    started = time.monotonic()
    out = Path(out)
    if out.suffix.lower() != ".parquet":
        raise ConfigError(f"encodings are written as GeoParquet: end the name {out} in .parquet")
    require_writable(out, overwrite=request.overwrite)
    device = pick_device(request.device)
    scene, model = _open_scene(request, progress)
    require_outputs(request, out, scene.files)
    means = _SceneMeans(scene, model.to(device), offline=request.offline)
    statuses: Counter[str] = Counter()
    tiles = ordered_map(means.prepare, scene.tiles, request.workers)
    for batch in _batches(tiles, request.batch_size):
        statuses.update(tile.result.status for tile in batch)
        means.add([tile for tile in batch if tile.graph is not None], device)
        progress("tiles", statuses.total(), len(scene.tiles))
    table = means.table(scene.aoi)
    if not table.num_rows:
        raise CoverageError(
            f"no OSM object of {scene.place.name} lies in a tile with imagery; choose another area"
        )
    metadata = {**describe(request, scene, model), "title": _title(scene), "encodings": _RULE}
    with atomic_path(out, overwrite=request.overwrite) as path:
        pq.write_table(_with_metadata(table, scene.grid.crs, metadata), path)
    return EncodingResult(
        out=out,
        title=metadata["title"],
        objects=dict(sorted(Counter(table["type"].to_pylist()).items())),
        tiles=dict(sorted(statuses.items())),
        simulated=scene.imagery.info.simulated,
        seconds=time.monotonic() - started,
        metadata=metadata,
    )


def _open_scene(request: PredictRequest, progress: Progress) -> tuple[Scene, GeoLink]:
    """The scene and the model of a request, fetched where they are missing."""
    supply = Supply(Cache(), Network(offline=request.offline, progress=progress))
    site = locate(request, supply)
    announce(take_stock(request, site, supply))
    with way_out_named(request, site):
        model = load_model(local_model(request.model, supply), offline=True)
        materials = gather(request, site, supply)
    return build_scene(request, materials, model.card.gsd_range), model


def _batches(tiles: Iterator[PreparedTile], size: int) -> Iterator[list[PreparedTile]]:
    while batch := list(islice(tiles, size)):
        yield batch


def _title(scene: Scene) -> str:
    note = " (simulated imagery)" if scene.imagery.info.simulated else ""
    return f"Encodings of the OSM objects of {scene.place.name}{note}"


class ObjectMeans:
    """Weighted means of the encodings of all objects of one type.

    Args:
        frame: the scene's entities of that type; rows with the same `osm_id` are one object.
        width: numbers of an encoding.
    """

    def __init__(self, frame: gpd.GeoDataFrame, width: int) -> None:
        self._geometries: NDArray[np.object_] = frame.geometry.to_numpy()
        self._object, self._names = pd.factorize(frame["osm_id"])  # object of each row
        self._sums = np.zeros((len(self._names), width), dtype=np.float32)
        self._sizes = np.zeros(len(self._names), dtype=np.float32)

    def add(self, rows: NDArray[np.int64], sizes: Floats, encodings: Floats) -> None:
        """Takes in what one tile says of some objects.

        Args:
            rows: (N,) row of the frame that each part is of.
            sizes: (N,) area or length of each part.
            encodings: (N, width).
        """
        np.add.at(self._sums, self._object[rows], sizes[:, None] * encodings)
        np.add.at(self._sizes, self._object[rows], sizes)

    def table(self, kind: NodeType, aoi: BaseGeometry) -> pa.Table:
        """The objects that have an encoding and meet an area, in the order of their first rows."""
        shapely.prepare(aoi)
        near = np.zeros(len(self._names), dtype=bool)
        near[self._object[shapely.intersects(aoi, self._geometries)]] = True
        kept = np.flatnonzero(near & (self._sizes > 0))
        means = self._sums[kept] / self._sizes[kept, None]
        width = means.shape[1]
        return pa.table(
            {
                "osm_id": pa.array(self._names[kept].astype(str).tolist(), pa.string()),
                "type": pa.array([kind] * len(kept), pa.string()),
                "encoding": pa.FixedSizeListArray.from_arrays(pa.array(means.ravel()), width),
                "geometry": pa.array(shapely.to_wkb(self._joined(kind)[kept]), pa.binary()),
            }
        )

    def _joined(self, kind: NodeType) -> NDArray[np.object_]:
        """One geometry per object."""
        parts, first = (
            np.argsort(self._object, kind="stable"),
            np.unique(self._object, return_index=True)[1],
        )
        joined = _MULTIPLE[kind](self._geometries[parts], indices=self._object[parts])
        alone = np.bincount(self._object, minlength=len(self._names)) == 1
        return np.where(alone, self._geometries[first], joined)


class _SceneMeans:
    """Encodes tiles of a scene, and gathers what they say of each object."""

    def __init__(self, scene: Scene, model: GeoLink, *, offline: bool) -> None:
        if scene.entities is None:
            raise ConfigError("encodings of OSM objects need OSM; leave out --no-osm")
        encoder, counts = tag_semantics(model.card, offline=offline)
        # On one cell, coverage is the size of each node in its tile.
        side = model.config.coverage_side or 1
        self._model = model
        self.prepare = partial(
            prepare_tile,
            plan=scene.plan,
            imagery=scene.imagery,
            graphs=SceneGraphs(scene.entities, encoder, counts, coverage_side=side),
            pixels_of=partial(normalise, mean=model.card.mean, std=model.card.std),
        )
        self._objects = {
            kind: ObjectMeans(scene.entities.frame(kind), model.config.fusion_dim)
            for kind in NODE_TYPES
        }

    def add(self, tiles: Sequence[PreparedTile], device: torch.device) -> None:
        """Encodes tiles that have OSM, and adds up what they give."""
        if not tiles:
            return
        found = each_alone_on_cpu(partial(self._encode, device=device), tiles, device)
        for tile, encodings in zip(tiles, (e for batch in found for e in batch), strict=True):
            assert tile.graph is not None
            for kind in NODE_TYPES:
                nodes = tile.graph[kind]
                sizes = np.ones(len(nodes.x), dtype=np.float32)
                if "coverage" in nodes:
                    sizes = nodes.coverage.sum(dim=1).numpy()
                self._objects[kind].add(nodes.source.numpy(), sizes, encodings[kind])

    def table(self, aoi: BaseGeometry) -> pa.Table:
        """All objects, points first, then lines and polygons."""
        return pa.concat_tables([self._objects[kind].table(kind, aoi) for kind in NODE_TYPES])

    @torch.inference_mode()
    def _encode(
        self, tiles: Sequence[PreparedTile], device: torch.device
    ) -> list[dict[NodeType, Floats]]:
        images, graphs = model_inputs(tiles, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            _, objects = self._model.encode_objects(images, graphs)
        return [{kind: x.float().cpu().numpy() for kind, x in tile.items()} for tile in objects]


def _with_metadata(table: pa.Table, crs: CRS, metadata: dict[str, Any]) -> pa.Table:
    """The table as GeoParquet 1.0, with our record beside."""
    geo = {
        "version": "1.0.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {"encoding": "WKB", "geometry_types": [], "crs": crs.to_json_dict()}
        },
    }
    record = {"geo": geo, "geolink": metadata}
    return table.replace_schema_metadata(
        {key: json.dumps(value, ensure_ascii=False) for key, value in record.items()}
    )
