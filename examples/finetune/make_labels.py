"""Makes labels for the bundled sample out of its OSM: polygons of two classes, and cells.

python make_labels.py FOLDER
"""

import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from geolink.grid import WGS84
from geolink.sources.osm import read_osm
from geolink.sources.places import sample_extract, sample_place

CELL_M = 224


def main() -> None:
    """Writes `zones.gpkg` and `cells.csv`."""
    folder = Path(sys.argv[1])
    place = sample_place()
    osm = read_osm(sample_extract(), place.bounds_metric, crs=place.crs).polygon
    tags = [set(each) for each in osm["tags"]]
    buildings = osm[["building" in each for each in tags]]
    parks = osm[["leisure" in each for each in tags]]
    built = shapely.union_all(buildings.geometry.buffer(10).to_numpy())
    shapes = [*shapely.get_parts(built), *parks.geometry]
    classes = ["built"] * len(shapely.get_parts(built)) + ["open"] * len(parks)
    zones = gpd.GeoDataFrame({"class": classes}, geometry=shapes, crs=osm.crs)
    zones.to_file(folder / "zones.gpkg")
    cells = _cells(place.bounds_metric)
    area = [shapely.area(shapely.intersection(cell, built)) for cell in cells]
    centres = gpd.GeoSeries(shapely.centroid(cells), crs=osm.crs).to_crs(WGS84)
    table = {"lon": centres.x, "lat": centres.y, "floor_area": np.round(area)}
    pd.DataFrame(table).to_csv(folder / "cells.csv", index=False)


def _cells(bounds: tuple[float, float, float, float]) -> np.ndarray:
    """Squares side by side within some bounds."""
    west, south, east, north = bounds
    x, y = np.meshgrid(
        np.arange(west, east - CELL_M, CELL_M / 2), np.arange(south, north - CELL_M, CELL_M / 2)
    )
    cells: np.ndarray = shapely.box(x.ravel(), y.ravel(), x.ravel() + CELL_M, y.ravel() + CELL_M)
    return cells


if __name__ == "__main__":
    main()
