"""What does it take to hold the OSM of a country?

    python benchmarks/country.py ../shared/data/osm/liechtenstein.osm.pbf

Reads an extract in three ways, each in a process of its own, and prints how much memory the reading
needs at most and what it leaves held: all at once (`read_osm`), into a table on disk by parts of
the area (as `geolink predict` does, with parts of a given size in bytes of the file), and from that
table tile by tile, as graphs are built. Memory is what the process holds beyond what it held with
all libraries imported.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import geopandas as gpd
import numpy as np
import pyproj
import shapely

from geolink.graphs.scene import StoredGraphs
from geolink.graphs.tags import TableTagEncoder, bundled_key_counts
from geolink.grid import WGS84, Bounds, reproject_bounds, utm_crs
from geolink.sources.entity_table import EntityTable, keep_entities
from geolink.sources.osm import extract_bounds, read_osm, read_osm_parts
from geolink.workflows.scene import lay_parts

TILES = 200  # whose graphs are built
TILE_M = 224.0


def measure(step: str, osm: Path, folder: Path, part_bytes: int) -> dict[str, float]:
    """Do one of the steps, and say what it took."""
    degrees = extract_bounds(osm)
    crs = utm_crs((degrees.west + degrees.east) / 2, (degrees.south + degrees.north) / 2)
    area = reproject_bounds(degrees, WGS84, crs)
    parts = lay_parts(area, osm.stat().st_size, part_bytes=part_bytes)
    table = folder / "osm.sqlite"
    steps: dict[str, Callable[[], object]] = {
        "all at once": lambda: read_osm(osm, area, crs=crs),
        "into a table": lambda: keep_entities(
            table, read_osm_parts(osm, area, parts, crs=crs), crs
        ),
        "tile by tile": lambda: build_graphs(EntityTable(table), area),
    }
    warm_up()
    forget_peak()
    before, start = held("VmRSS"), time.process_time()
    result = steps[step]()
    seconds = time.process_time() - start
    return {
        "seconds": seconds,
        "most_mb": (held("VmHWM") - before) / 1e6,
        "left_mb": (held("VmRSS") - before) / 1e6,
        "entities": len(cast(EntityTable, result)),
        "parts": len(parts) if step == "into a table" else 1,
        "disk_mb": table.stat().st_size / 1e6 if table.exists() else 0.0,
    }


def build_graphs(table: EntityTable, area: Bounds) -> EntityTable:
    """Graphs of tiles all over the area; the table again."""
    graphs = StoredGraphs(table, TableTagEncoder(), bundled_key_counts(), coverage_side=14)
    for bounds in tiles_of(area):
        graphs.build(bounds)
    return table


def tiles_of(area: Bounds) -> Iterator[Bounds]:
    """Tiles on a grid of places over the area."""
    side = int(np.sqrt(TILES))
    for x in np.linspace(area.west, area.east - TILE_M, side):
        for y in np.linspace(area.south, area.north - TILE_M, side):
            yield Bounds(float(x), float(y), float(x) + TILE_M, float(y) + TILE_M)


def warm_up() -> None:
    """Import what is only imported where it is needed."""
    import pyrosm  # noqa: F401

    gpd.GeoSeries([shapely.Point(0, 0)], crs=4326).to_crs(pyproj.CRS.from_epsg(32632))


def forget_peak() -> None:
    """Let the peak of memory begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def held(what: str) -> int:
    """Bytes of memory that this process holds (VmRSS), or held at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Take each step in a fresh process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("osm", type=Path)
    parser.add_argument("--part-bytes", type=int, default=300_000)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        found = measure(arguments.step, arguments.osm, arguments.folder, arguments.part_bytes)
        print(json.dumps(found))
        return
    print(f"{arguments.osm.name}: {arguments.osm.stat().st_size / 1e6:.1f} MB")
    print("              CPU s  parts  entities | memory MB: most  left | table MB")
    with tempfile.TemporaryDirectory() as folder:
        for step in ("all at once", "into a table", "tile by tile"):
            command = [sys.executable, "-W", "ignore", __file__, str(arguments.osm)]
            command += ["--step", step, "--folder", folder]
            command += ["--part-bytes", str(arguments.part_bytes)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            row = json.loads(run.stdout)
            print(
                f"{step:12s} {row['seconds']:6.1f} {row['parts']:6d} {row['entities']:9d} | "
                f"{row['most_mb']:15.0f} {row['left_mb']:5.0f} | {row['disk_mb']:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
