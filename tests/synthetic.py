"""Small made-up inputs that several test files share: rasters, OSM files, a model, a command."""

import contextlib
import hashlib
import io
import json
import subprocess
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import geopandas as gpd
import numpy as np
import rasterio
import torch
from affine import Affine
from PIL import Image
from pyproj import CRS
from shapely import LineString, Point, box

from geolink.checkpoint import save_checkpoint
from geolink.config import ModelConfig
from geolink.graphs.schema import EDGE_TYPES, NODE_TYPES
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.grid import WGS84, Bounds, reproject_bounds
from geolink.legend import UFZ
from geolink.models.card import ModelCard
from geolink.models.geolink import GeoLink
from geolink.samples import IMAGE_MEAN, IMAGE_STD
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.candidates import Provenance
from geolink.sources.entities import OsmEntities
from geolink.sources.manifest import Shard
from geolink.sources.network import Network
from geolink.sources.shard_files import TileObjects, TileSample, write_shard
from geolink.sources.shard_parts import PartRecord, Tally, manifest_of
from geolink_cli.app import main

CRS_35N = "EPSG:32635"
# Upper left corner of the made-up scene, in CRS_35N: central Helsinki.
WEST, NORTH = 385_600.0, 6_671_900.0
HEIGHT, WIDTH = 260, 300


def pixels(height=HEIGHT, width=WIDTH, bands=3, seed=0):
    """(bands, height, width) uint8: fields of 40 px in colours of their own, with some noise."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(20, 230, (bands, height // 40 + 1, width // 40 + 1))
    image = fields.repeat(40, axis=1).repeat(40, axis=2)[:, :height, :width]
    return (image + rng.integers(0, 25, (bands, height, width))).astype(np.uint8)


def write_raster(path, array=None, *, crs=CRS_35N, transform=None, tags=None, **profile):
    """A GeoTIFF of `array` (bands, height, width), 1 m pixels, upper left at WEST, NORTH."""
    array = pixels() if array is None else array
    count, height, width = array.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=array.dtype,
        crs=crs,
        transform=transform or Affine(1.0, 0.0, WEST, 0.0, -1.0, NORTH),
        **profile,
    ) as raster:
        raster.write(array)
        raster.update_tags(**(tags or {"TIFFTAG_DATETIME": "2024:05:31 10:20:30"}))
    return path


def at(x, y):
    """Scene coordinates of a position in metres from the upper left corner, y down."""
    return WEST + x, NORTH - y


def entities():
    """(tags, geometry) of a dozen objects: streets, houses, a park, a pond, trees and a shop."""
    rectangles = [
        ({"landuse": "residential"}, (5, 5, 140, 120)),
        ({"leisure": "park", "name": "Puisto"}, (150, 5, 290, 120)),
        ({"natural": "water"}, (200, 40, 260, 90)),
        ({"building": "house"}, (20, 20, 40, 35)),
        ({"building": "house"}, (60, 20, 80, 40)),
        ({"building": "apartments", "building:levels": "5"}, (90, 60, 130, 80)),
        ({"landuse": "industrial"}, (150, 140, 290, 250)),
    ]
    lines = [
        ({"highway": "residential"}, [(0, 130), (300, 130)]),
        ({"highway": "footway"}, [(145, 0), (145, 260)]),
    ]
    points = [
        ({"natural": "tree"}, (210, 20)),
        ({"natural": "tree"}, (230, 25)),
        ({"shop": "bakery", "opening_hours": "Mo-Fr 08:00-18:00; Sa 10:00-14:00"}, (70, 100)),
    ]
    return [
        *((tags, box(*at(w, s), *at(e, n))) for tags, (w, n, e, s) in rectangles),
        *((tags, LineString([at(*p) for p in path])) for tags, path in lines),
        *((tags, Point(*at(*p))) for tags, p in points),
    ]


def write_osm(path, objects=None):
    """A GeoPackage of (tags, geometry) objects in CRS_35N."""
    tags, geometry = zip(*(entities() if objects is None else objects), strict=True)
    columns = {"osm_id": [f"way/{i}" for i in range(len(tags))], "tags": map(json.dumps, tags)}
    frame = gpd.GeoDataFrame(columns, geometry=list(geometry), crs=CRS_35N)
    frame.to_file(path, layer="osm", driver="GPKG")
    return path


def write_picture(folder, name="a", *, size=(120, 80), bbox=None, layers=("",), **sidecar):
    """A picture of the made-up scene, with its OSM beside it."""
    folder.mkdir(exist_ok=True)
    metric = Bounds(WEST, NORTH - 260, WEST + 300, NORTH)
    degrees = reproject_bounds(metric, CRS.from_user_input(CRS_35N), WGS84)
    picture = Image.fromarray(pixels(size[1], size[0]).transpose(1, 2, 0))
    picture.save(folder / f"{name}.jpg", quality=90)
    record = {"bbox": list(degrees) if bbox is None else bbox, **sidecar}
    (folder / f"{name}.json").write_text(json.dumps(record))
    for layer in layers:
        write_osm(folder / "osm.gpkg")
        _convert(folder / "osm.gpkg", folder / f"{name}{layer}.geojson", layer)
    return folder / f"{name}.jpg"


def _convert(source, target, layer):
    frame = gpd.read_file(source).to_crs(WGS84)
    kinds = {"_point": "Point", "_line": "LineString", "_polygon": "Polygon"}
    if layer:
        frame = frame[frame.geom_type == kinds[layer]]
    labels = [
        ";".join(f"{k.replace(':', ' ')}:{v}" for k, v in json.loads(t).items())
        for t in frame["tags"]
    ]
    frame[["geometry"]].assign(label=labels).to_file(target, driver="GeoJSON")
    source.unlink()


def write_area(path, geometry, *, crs=CRS_35N):
    """A GeoJSON or GeoPackage with one polygon."""
    gpd.GeoDataFrame(geometry=[geometry], crs=crs).to_file(path)
    return path


def write_model(folder, **settings):
    """An untrained ViT-tiny model, whose head is set so that a scene gets several classes."""
    encoder = TableTagEncoder()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GeoLink(ModelConfig(semantic_dim=encoder.dim, **settings)).eval()
    images = torch.from_numpy(pixels(224, 224)).float()[None] / 127.5 - 1
    with torch.inference_mode():
        scores = model.logits_at_stride(images)
        mean, std = scores.mean((0, 2, 3)), scores.std((0, 2, 3))
    with torch.no_grad():
        model.decoder.classify.weight *= 2 / std[:, None, None, None]
        model.decoder.classify.bias.sub_(mean).mul_(2 / std)
    card = ModelCard(
        name="untrained",
        config=model.config,
        legend=UFZ,
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        gsd_range=(0.5, 3.0),
        tag_encoder=encoder.name,
        key_counts=bundled_key_counts(),
        training_data="nothing",
        licence="MIT",
    )
    save_checkpoint(folder, model, replace(card, config=model.config))
    return folder


def build_offline(request, supported_gsd):
    """The scene of a request whose sources are all local."""
    from geolink.workflows.acquire import gather
    from geolink.workflows.scene import build_scene
    from geolink.workflows.site import Supply, locate

    supply = Supply(Cache(), Network(offline=True))
    materials = gather(request, locate(request, supply), supply)
    return build_scene(request, materials, supported_gsd)


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def run_cli(*arguments, cwd=None):
    """`geolink ARGUMENTS` in this process, by the same way in as the installed command."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["geolink", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())


# Ctrl-C reaches the command even where the tests run in the background, which ignores it.
_COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from geolink.sources.manifest import Shard
from geolink.sources.shard_files import TileObjects, TileSample, write_shard
from geolink.sources.shard_parts import PartRecord, Tally, manifest_of
from geolink_cli.app import main
main()
"""


def start_cli(*arguments, cwd=None):
    """`geolink ARGUMENTS` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )


class StubEncoder:
    """Tag vectors of four numbers that follow from the string alone."""

    name, dim = "stub", 4

    def encode(self, strings):
        seeds = (zlib.crc32(string.encode()) for string in strings)
        rows = [np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds]
        return np.array(rows, dtype=np.float32).reshape(-1, self.dim)


def osm_entities(objects=None):
    """The made-up objects as a scene's entities."""
    kinds = {"Point": "point", "LineString": "line", "Polygon": "polygon"}
    rows = {kind: [] for kind in kinds.values()}
    for i, (tags, geometry) in enumerate(entities() if objects is None else objects):
        rows[kinds[geometry.geom_type]].append((f"way/{i}", tags, geometry))
    frames = {
        kind: gpd.GeoDataFrame(
            {"osm_id": [r[0] for r in found], "tags": [r[1] for r in found]},
            geometry=gpd.GeoSeries([r[2] for r in found], crs=CRS_35N),
        )
        for kind, found in rows.items()
    }
    return OsmEntities(**frames, info=SourceInfo("made up"))


def edge_set(edges):
    """The edges of one type as a set of (source, target, columns), whatever their order."""
    columns = map(tuple, edges.edge_attr.tolist())
    return set(zip(*edges.edge_index.tolist(), columns, strict=True))


def assert_same_graph(found, expected, *, keypoints=True):
    """Equal nodes in the same order, and equal edges in any."""
    assert torch.equal(found.bounds, expected.bounds)
    for kind in NODE_TYPES:
        assert torch.equal(found[kind].x, expected[kind].x), kind
        if keypoints:
            assert torch.equal(found[kind].keypoints, expected[kind].keypoints), kind
    for edge_type in EDGE_TYPES:
        assert edge_set(found[edge_type]) == edge_set(expected[edge_type]), edge_type


def tile_objects(rng, count=12):
    """Random houses, ways and trees of one tile, in tile units (y down)."""
    corners = rng.uniform(0, 0.9, (count, 2))
    sizes = rng.uniform(0.02, 0.1, (count, 2))
    houses = [box(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]
    ways = [LineString(ends) for ends in rng.uniform(0, 1, (count // 3, 2, 2))]
    trees = [Point(at) for at in rng.uniform(0, 1, (count // 3, 2))]
    tags = [{"natural": "tree"}, {"highway": "residential"}, {"building": "house"}]
    named = zip(tags, (trees, ways, houses), strict=True)
    return TileObjects(
        geometry=np.array([*trees, *ways, *houses], dtype=object),
        ids=np.array([f"way/{i}" for i in range(len(trees + ways + houses))], dtype=object),
        tags=[dict(tag) for tag, shapes in named for _ in shapes],
    )


def tile_sample(number, side=64, objects=12):
    """A made-up sample of a shard: a PNG of coloured fields, and objects."""
    png = io.BytesIO()
    Image.fromarray(pixels(side, side, seed=number).transpose(1, 2, 0)).save(png, "PNG")
    things = tile_objects(np.random.default_rng(number), objects)
    return TileSample(f"made-up_{number:05d}", png.getvalue(), "png", things, {"gsd": 1.0})


def write_shards(folder, n=12, *, per_shard=4, side=64, objects=12):
    """A folder of shards and their manifest.

    `n` is the number of made-up samples of `side` pixels, or a list of samples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = [tile_sample(i, side, objects) for i in range(n)] if isinstance(n, int) else n
    shards, tally = [], Tally()
    for number, start in enumerate(range(0, len(samples), per_shard)):
        path, held = folder / f"shard-{number:06d}.tar", samples[start : start + per_shard]
        write_shard(path, held)
        payload = path.read_bytes()
        digest = hashlib.sha256(payload).hexdigest()
        shards.append(PartRecord(Shard(path.name, len(held), len(payload), digest), Tally()))
    for sample in samples:
        tally.add(sample)
    provenance = Provenance(SourceInfo("made up", simulated=True), SourceInfo("made up"))
    tally.sources["made up"] = provenance.to_dict()
    records = [*shards, PartRecord(None, tally)]
    manifest_of(records, version="0", settings={}).save(folder)
    return folder
