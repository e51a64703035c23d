"""Makes a picture and an OSM extract of a small town out of the bundled sample.

python make_town.py FOLDER
"""

import shutil
import sys
from pathlib import Path

import rasterio

from geolink.grid import Bounds, GridSpec
from geolink.sources.osm import read_osm
from geolink.sources.places import sample_extract, sample_place
from geolink.sources.simulated import SimulatedImagery

SIDE_M = 450


def main() -> None:
    """Writes `ortho.tif` and `town.osm.pbf`."""
    folder = Path(sys.argv[1])
    shutil.copyfile(sample_extract(), folder / "town.osm.pbf")
    place = sample_place()
    west, south, *_ = place.bounds_metric
    bounds = Bounds(west, south, west + SIDE_M, south + SIDE_M)
    osm = read_osm(sample_extract(), bounds, crs=place.crs)
    grid = GridSpec.from_bounds(place.crs, bounds, 1.0)
    pixels = SimulatedImagery(osm, seed=0).read(grid).rgb
    shape = {"count": 3, "height": grid.height, "width": grid.width, "dtype": "uint8"}
    placed = {"crs": place.crs.to_wkt(), "transform": grid.transform}
    with rasterio.open(folder / "ortho.tif", "w", driver="GTiff", **shape, **placed) as raster:
        raster.write(pixels)


if __name__ == "__main__":
    main()
