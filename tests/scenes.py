"""Made-up scenes of satellites: cloud-optimised files with known pixels, and where they are."""

from pathlib import Path

import numpy as np
import rasterio.shutil
import shapely
from affine import Affine
from pyproj import CRS
from rasterio.io import MemoryFile

from geolink.grid import WGS84, Bounds, GridSpec, reproject_bounds

UTM35 = CRS.from_epsg(32635)
WEST, NORTH = 385_000.0, 6_672_000.0  # of the scenes, metres
SIDE = 512  # pixels of 10 m
VEGETATION, SHADOW, CLOUD, SNOW = 4, 3, 9, 11  # of the scene classification


def write_cog(path, array, *, gsd=10.0, west=WEST, north=NORTH, crs=UTM35, nodata=0, block=128):
    """A cloud-optimised GeoTIFF of `array` (bands, height, width), with averaged overviews."""
    count, height, width = array.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=array.dtype,
            crs=crs.to_wkt(),
            transform=Affine(gsd, 0, west, 0, -gsd, north),
            nodata=nodata,
        ) as raster:
            raster.write(array)
        with memory.open() as raster:
            rasterio.shutil.copy(
                raster,
                path,
                driver="COG",
                compress="deflate",
                blocksize=str(block),
                overview_resampling="nearest" if count == 1 else "average",
            )
    return path


def noise(seed, side=SIDE, dtype="uint8", top=255):
    """(3, side, side) values from 1 to `top`: no two places look the same, none is nodata."""
    return np.random.default_rng(seed).integers(1, top, (3, side, side), dtype=dtype)


def classes(side=SIDE, **rectangles):
    """(1, side // 2, side // 2) scene classification at 20 m: vegetation but for rectangles.

    A rectangle is (row, col, height, width) in pixels of 10 m, by the name of its class.
    """
    codes = {"cloud": CLOUD, "shadow": SHADOW, "snow": SNOW, "nothing": 0}
    found = np.full((1, side // 2, side // 2), VEGETATION, dtype=np.uint8)
    for name, edges in rectangles.items():
        row, col, height, width = (edge // 2 for edge in edges)
        found[:, row : row + height, col : col + width] = codes[name]
    return found


def add_scene(server, folder, name, rgb, scl, *, date, cloud_cover, **where):
    """A Sentinel-2 scene on a `StacServer`; its files have its name, for faults."""
    gsd = where.pop("gsd", 10.0)
    server.add_scene(
        name,
        {
            "visual": write_cog(folder / f"{name}-TCI.tif", rgb, gsd=gsd, **where),
            "scl": write_cog(folder / f"{name}-SCL.tif", scl, gsd=2 * gsd, **where),
        },
        date=f"{date}T09:50:00Z",
        cloud_cover=cloud_cover,
    )


def area_of(row, col, height, width, gsd=10.0):
    """The polygon in EPSG:4326 around some pixels of the scenes."""
    west, north = WEST + col * gsd, NORTH - row * gsd
    bounds = Bounds(west, north - height * gsd, west + width * gsd, north)
    return shapely.box(*reproject_bounds(bounds, UTM35, WGS84))


def pixels_at(grid: GridSpec) -> tuple[slice, slice]:
    """(rows, columns) of the scenes' arrays that a grid of 10 m covers."""
    row, col = round((NORTH - grid.north) / 10.0), round((grid.west - WEST) / 10.0)
    return slice(row, row + grid.height), slice(col, col + grid.width)


def hashes(folder: Path) -> dict[str, bytes]:
    """Content of all files below a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
