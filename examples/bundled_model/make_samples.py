"""Cuts training samples (simulated imagery, OSM graph, weak labels) out of OSM extracts.

    python make_samples.py EXTRACT.osm.pbf [...] --out samples --per-extract 600

The imagery is simulated: it is rendered from the same OSM, as land cover only. Every sample has
its own season, light, colour cast and ground sampling distance. Samples that exist are kept, so an
interrupted run goes on where it stopped.
"""

import argparse
import functools
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from geolink.files import atomic_path
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.sources.simulated import SimulatedImagery
from pyproj import CRS

from geolink.graphs.scene import SceneGraphs
from geolink.grid import WGS84, Bounds, GridSpec, reproject_bounds, utm_crs
from geolink.legend import IGNORE
from geolink.samples import SceneSampler, to_arrays
from geolink.sources.entities import OsmEntities
from geolink.sources.osm import extract_bounds, read_osm, sea_polygons

SIDE = 224
GSD_RANGE = (0.7, 2.5)  # metres, drawn log-uniformly
MIN_LABELLED = 0.25  # share of the pixels of a sample
SEEDS_PER_EXTRACT = 12  # appearances; building a scene costs more than cutting a tile
"""Kept low: a scene is prepared once per appearance."""


def read_extract(path: Path) -> tuple[OsmEntities, Bounds]:
    """All entities of an extract in its UTM zone, and the extract's bounds there."""
    degrees = extract_bounds(path)
    crs: CRS = utm_crs((degrees.west + degrees.east) / 2, (degrees.south + degrees.north) / 2)
    bounds = reproject_bounds(degrees, WGS84, crs)
    return read_osm(path, bounds, crs=crs), bounds


def random_tile(bounds: Bounds, crs: CRS, rng: np.random.Generator) -> GridSpec:
    """A 224 px tile somewhere in `bounds` at a random ground sampling distance."""
    gsd = float(np.exp(rng.uniform(*np.log(GSD_RANGE))))
    metres = SIDE * gsd
    west = rng.uniform(bounds.west, max(bounds.east - metres, bounds.west + 1))
    north = rng.uniform(min(bounds.south + metres, bounds.north - 1), bounds.north)
    return GridSpec(crs, west, north, gsd, SIDE, SIDE)


def make_scene(path: Path, out: Path, count: int, seed: int) -> int:
    """Writes `count` samples of one extract in one appearance; returns how many are new."""
    folder = out / path.name.removesuffix(".osm.pbf")
    targets = [folder / f"{seed:02d}_{i:04d}.npz" for i in range(count)]
    missing = [(i, t) for i, t in enumerate(targets) if not t.exists()]
    if not missing:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    entities, bounds = read_extract(path)
    sea = sea_polygons(entities, bounds)
    appearance = zlib.crc32(f"{path.name}:{seed}".encode())
    imagery = SimulatedImagery(entities, seed=appearance, sea=sea)
    graphs = SceneGraphs(entities, TableTagEncoder(), bundled_key_counts())
    sampler = SceneSampler(imagery, entities, graphs)
    for i, target in missing:
        rng = np.random.default_rng([appearance, i])
        for _ in range(50):  # look for a place with enough labels
            grid = random_tile(bounds, entities.crs, rng)
            label = sampler.labels.read(grid)
            if (label != IGNORE).mean() >= MIN_LABELLED:
                break
        with atomic_path(target, overwrite=True) as temporary:
            np.savez_compressed(temporary, **to_arrays(sampler.sample(grid)))
    return len(missing)


def main() -> None:
    """Reads the command line and makes the samples of every extract and appearance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extracts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-extract", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    per_seed = -(-args.per_extract // SEEDS_PER_EXTRACT)
    jobs = [(path, seed) for seed in range(SEEDS_PER_EXTRACT) for path in args.extracts]
    with ProcessPoolExecutor(args.workers) as pool:
        run = functools.partial(make_scene, out=args.out, count=per_seed)
        futures = [pool.submit(run, path, seed=seed) for path, seed in jobs]
        for (path, seed), future in zip(jobs, futures, strict=True):
            print(f"{path.name} appearance {seed}: {future.result()} new samples", flush=True)


if __name__ == "__main__":
    main()
