"""How busy are reading, graph building and the model while a map is made?

    python benchmarks/pipeline.py              # about 64 tiles of central Helsinki, a minute or two

Renders the simulated orthophoto of the bundled extract into a GeoTIFF, runs `geolink predict` on it
with the bundled model and the bundled OSM, and prints how busy each stage was while tiles were
scored: reading and graphs as shares of the time of the threads that prepare tiles, the model of the
wall time. The busiest of both is what the run waited for.
"""

import argparse
import tempfile
from pathlib import Path

import rasterio

import geolink
from geolink.grid import Bounds, GridSpec
from geolink.sources.osm import read_osm
from geolink.sources.places import sample_extract, sample_place
from geolink.sources.simulated import SimulatedImagery


def write_orthophoto(path: Path, side: int) -> None:
    """A simulated orthophoto of `side` by `side` metres, and as many pixels, around the centre."""
    place = sample_place()
    whole = place.bounds_metric
    x, y = (whole.west + whole.east) / 2, (whole.south + whole.north) / 2
    half = side / 2
    grid = GridSpec.from_bounds(place.crs, Bounds(x - half, y - half, x + half, y + half), 1.0)
    entities = read_osm(sample_extract(), grid.bounds, crs=place.crs)
    pixels = SimulatedImagery(entities).read(grid)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=3,
        height=grid.height,
        width=grid.width,
        crs=grid.crs.to_wkt(),
        transform=grid.transform,
        photometric="RGB",
        tiled=True,
    ) as raster:
        raster.write(pixels.rgb)


def main() -> None:
    """Make a map and print what the run says of its stages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=1300, help="of the map, pixels of one metre")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_orthophoto(folder / "ortho.tif", arguments.side)
        print("threads  tiles  wall s  tiles/s | busy %: reading  graphs  model | busiest")
        for workers in arguments.workers:
            result = geolink.predict(
                imagery=folder / "ortho.tif",
                osm=sample_extract(),
                out=folder / f"{workers}.gpkg",
                workers=workers,
                batch_size=arguments.batch_size,
                device=arguments.device,
                offline=True,
            )
            assert result.stages is not None  # this process scored the tiles
            shares = [100 * share for share in result.stages.busy.values()]
            tiles, seconds = sum(result.tiles.values()), result.stages.seconds
            print(
                f"{workers:7d} {tiles:6d} {seconds:7.1f} {tiles / seconds:8.2f} | "
                f"{shares[0]:15.0f} {shares[1]:7.0f} {shares[2]:6.0f} | "
                f"{100 * result.stages.bottleneck:6.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
