import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from pyproj import CRS
from rasterio.transform import from_origin

from geolink.errors import CoverageError, CRSError, InputError
from geolink.grid import GridSpec
from geolink.legend import IGNORE, UFZ
from geolink.sources.class_table import class_table, read_mapping
from geolink.sources.reference import read_cells, read_reference

UTM = CRS.from_epsg(32635)
GRID = GridSpec(UTM, 500_000.0, 6_000_100.0, 1.0, 100, 100)  # x 500000..500100, y 6000000..


def box(west, south, east, north):
    return shapely.box(500_000 + west, 6_000_000 + south, 500_000 + east, 6_000_000 + north)


def write(path, shapes, crs=UTM, **columns):
    frame = gpd.GeoDataFrame(columns, geometry=list(shapes), crs=UTM)
    (frame.to_crs(crs) if crs != UTM else frame).to_file(path)
    return path


def write_raster(path, values, *, nodata=None, west=500_000.0, gsd=1.0, crs=UTM):
    profile = {"driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": 1}
    profile |= {"dtype": values.dtype, "nodata": nodata, "crs": crs.to_wkt()}
    with rasterio.open(
        path, "w", transform=from_origin(west, 6_000_100.0, gsd, gsd), **profile
    ) as file:
        file.write(values, 1)
    return path


class TestPolygons:
    def test_the_smaller_polygon_wins_whatever_the_order(self, tmp_path):
        shapes = [box(0, 0, 60, 100), box(20, 20, 40, 40)]
        names = ["green", "water"]
        for number, order in enumerate([(0, 1), (1, 0)]):
            path = write(
                tmp_path / f"{number}.gpkg",
                [shapes[i] for i in order],
                class_name=[names[i] for i in order],
            )
            labels = read_reference(path, GRID, legend=UFZ).labels.read(GRID)
            assert (labels[60:80, 20:40] == UFZ.id_of("water")).all()
            assert (labels == UFZ.id_of("water")).sum() == 400
            assert (labels == UFZ.id_of("green")).sum() == 6000 - 400
            assert (labels[:, 60:] == IGNORE).all()

    @pytest.mark.parametrize("name", ["labels.gpkg", "labels.geojson", "labels.shp"])
    def test_other_systems_and_formats_are_projected(self, tmp_path, name):
        crs = CRS.from_epsg(4326) if name.endswith("json") else CRS.from_epsg(3857)
        path = write(tmp_path / name, [box(0, 0, 50, 100)], crs, label=["Residential"])
        labels = read_reference(path, GRID, legend=UFZ).labels.read(GRID)
        assert abs((labels == UFZ.id_of("residential")).sum() - 5000) <= 100

    def test_without_a_legend_every_value_is_a_class(self, tmp_path):
        shapes = [box(0, 0, 50, 50), box(50, 50, 90, 90)]
        path = write(tmp_path / "own.gpkg", shapes, kind=["slum", "formal"])
        reference = read_reference(path, GRID, column="kind")
        assert reference.legend.names == ("formal", "slum")
        assert (reference.labels.read(GRID) == 1).sum() == 2500

    def test_numbers_that_a_format_made_floats_are_classes(self, tmp_path):
        shapes = [box(0, 0, 50, 50), box(50, 50, 90, 90), box(90, 90, 99, 99)]
        path = write(tmp_path / "own.gpkg", shapes, class_id=[4.0, 1.0, None])
        labels = read_reference(path, GRID, legend=UFZ).labels.read(GRID)
        assert set(np.unique(labels)) == {1, 4, IGNORE}

    def test_a_mapping_renames_and_ignores(self, tmp_path):
        shapes = [box(0, 0, 50, 50), box(50, 50, 90, 90), box(10, 10, 20, 20)]
        path = write(tmp_path / "lu.gpkg", shapes, landuse=["houses", "parks", "unknown"])
        mapping = tmp_path / "map.csv"
        mapping.write_text("value,class\nhouses,residential\nparks,green\nunknown,ignore\n")
        labels = read_reference(path, GRID, legend=UFZ, mapping=mapping).labels.read(GRID)
        assert (labels == UFZ.id_of("residential")).sum() == 2400  # the unknown lies on top
        assert (labels == UFZ.id_of("green")).sum() == 1600

    def test_unknown_classes_are_named_with_the_way_out(self, tmp_path):
        path = write(tmp_path / "lu.gpkg", [box(0, 0, 9, 9)], label=["castle"])
        with pytest.raises(InputError, match=r"lu\.gpkg has classes .*'castle'.*mapping file"):
            read_reference(path, GRID, legend=UFZ)

    def test_labels_elsewhere_are_refused(self, tmp_path):
        path = write(tmp_path / "far.gpkg", [box(900, 0, 999, 9)], label=["green"])
        with pytest.raises(CoverageError, match=r"far\.gpkg does not meet"):
            read_reference(path, GRID, legend=UFZ)

    def test_a_file_without_system_is_refused(self, tmp_path):
        write(tmp_path / "nowhere.shp", [box(0, 0, 9, 9)], label=["green"])
        (tmp_path / "nowhere.prj").unlink()
        with pytest.raises(CRSError, match="no coordinate reference system"):
            read_reference(tmp_path / "nowhere.shp", GRID, legend=UFZ)

    def test_the_column_must_be_known(self, tmp_path):
        path = write(tmp_path / "a.gpkg", [box(0, 0, 9, 9)], colour=["red"])
        with pytest.raises(InputError, match="which column holds the class; name one of colour"):
            read_reference(path, GRID, legend=UFZ)
        with pytest.raises(InputError, match="no column 'color'; it has colour"):
            read_reference(path, GRID, legend=UFZ, column="color")

    def test_the_column_must_hold_something(self, tmp_path):
        path = write(tmp_path / "a.gpkg", [box(0, 0, 9, 9)], label=[None])
        with pytest.raises(InputError, match=r"a\.gpkg has no class in 'label'"):
            read_reference(path, GRID, legend=UFZ)

    def test_lines_are_no_labels(self, tmp_path):
        line = shapely.LineString([(500_000, 6_000_000), (500_050, 6_000_050)])
        path = write(tmp_path / "a.gpkg", [line], label=["green"])
        with pytest.raises(InputError, match="no polygons"):
            read_reference(path, GRID, legend=UFZ)

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a map", b"<html></html>"])
    def test_other_files_are_refused(self, tmp_path, content):
        path = tmp_path / "labels.gpkg"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"labels\.gpkg"):
            read_reference(path, GRID, legend=UFZ)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match="does not exist"):
            read_reference(tmp_path / "none.gpkg", GRID)


class TestRasters:
    def test_numbers_are_read_at_the_nearest_pixel(self, tmp_path):
        values = np.full((50, 50), 4, np.uint8)
        values[:25] = 255
        values[0, 0] = 9
        path = write_raster(tmp_path / "labels.tif", values, gsd=2.0)
        reference = read_reference(path, GRID, legend=UFZ, ignore=["9"])
        labels = reference.labels.read(GRID)
        assert (labels[:50] == IGNORE).all()
        assert (labels[50:] == 4).all()

    def test_beyond_the_raster_and_nodata_there_is_no_label(self, tmp_path):
        values = np.zeros((100, 50), np.int16)
        values[:10] = -1
        path = write_raster(tmp_path / "labels.tif", values, nodata=-1)
        labels = read_reference(path, GRID, legend=UFZ).labels.read(GRID)
        assert (labels[:10] == IGNORE).all()
        assert (labels[:, 50:] == IGNORE).all()
        assert (labels[10:, :50] == 0).all()

    def test_overviews_are_not_averaged_into_classes(self, tmp_path):
        values = np.tile(np.array([[0, 8]], np.uint8), (100, 50))
        path = write_raster(tmp_path / "labels.tif", values)
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2], rasterio.enums.Resampling.average)
        coarse = GridSpec(UTM, 500_000.0, 6_000_100.0, 2.0, 50, 50)
        assert set(np.unique(read_reference(path, coarse, legend=UFZ).labels.read(coarse))) <= {
            0,
            8,
        }

    def test_unknown_numbers_and_floats_are_refused(self, tmp_path):
        path = write_raster(tmp_path / "a.tif", np.full((100, 100), 12, np.uint8))
        with pytest.raises(InputError, match="'12'"):
            read_reference(path, GRID, legend=UFZ)
        path = write_raster(tmp_path / "b.tif", np.full((100, 100), 1, np.float32))
        with pytest.raises(InputError, match="float32 numbers, not classes"):
            read_reference(path, GRID, legend=UFZ)

    def test_a_raster_elsewhere_or_empty_is_refused(self, tmp_path):
        path = write_raster(tmp_path / "a.tif", np.zeros((9, 9), np.uint8), west=501_000.0)
        with pytest.raises(CoverageError, match="does not meet"):
            read_reference(path, GRID, legend=UFZ)
        path = write_raster(tmp_path / "b.tif", np.zeros((100, 100), np.uint8), nodata=0)
        with pytest.raises(CoverageError, match="no label within"):
            read_reference(path, GRID, legend=UFZ)


class TestCells:
    def test_polygons_have_a_centre_a_side_and_a_number(self, tmp_path):
        path = write(tmp_path / "pop.gpkg", [box(0, 0, 10, 10), box(20, 0, 40, 20)], pop=[3, 7.5])
        cells = read_cells(path, UTM, column="pop")
        np.testing.assert_allclose(cells.values, [3, 7.5])
        np.testing.assert_allclose(cells.sides, [10, 20])
        np.testing.assert_allclose(cells.centres - [500_000, 6_000_000], [[5, 5], [30, 10]])

    def test_a_table_has_points(self, tmp_path):
        pd.DataFrame({"lon": [27.0], "lat": [54.1], "co2": [2]}).to_csv(
            tmp_path / "c.csv", index=False
        )
        cells = read_cells(tmp_path / "c.csv", UTM, column="co2")
        assert cells.sides.tolist() == [0]
        assert abs(cells.centres[0, 0] - 500_000) < 1  # the central meridian of zone 35

    def test_missing_numbers_are_refused(self, tmp_path):
        path = write(tmp_path / "pop.gpkg", [box(0, 0, 9, 9), box(9, 0, 18, 9)], pop=["3", "many"])
        with pytest.raises(InputError, match=r"1 of 2 cells .* 'pop', the first in row 2"):
            read_cells(path, UTM, column="pop")

    def test_positions_must_be_degrees(self, tmp_path):
        (tmp_path / "c.csv").write_text("lon,lat,v\n500000,6000000,1\n")
        with pytest.raises(InputError, match="not degrees"):
            read_cells(tmp_path / "c.csv", UTM, column="v")
        (tmp_path / "d.csv").write_text("x,y,v\n1,2,3\n")
        with pytest.raises(InputError, match="no column 'lon'; it has x, y, v"):
            read_cells(tmp_path / "d.csv", UTM, column="v")


class TestMapping:
    def test_new_classes_come_in_the_order_of_the_file(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text("value,class\n1,houses\n2,fields\n3,houses\n4,\n", encoding="utf-8-sig")
        table = class_table(["1", "2", "4"], source="x.tif", mapping=path)
        assert table.legend.names == ("houses", "fields")
        assert table.ids == {"1": 0, "2": 1, "3": 0, "4": IGNORE}

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "header and rows"),
            ("a,b\n1,2\n", "header and rows"),
            ("value,class\n1,houses\n1,fields\n", "line 3 .* second class"),
        ],
    )
    def test_bad_files_are_refused(self, tmp_path, text, match):
        path = tmp_path / "m.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            read_mapping(path)

    def test_classes_must_be_in_the_legend(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text("value,class\n1,castle\n")
        with pytest.raises(InputError, match="does not have: 'castle'; it has 'water'"):
            class_table(["1"], source="x.tif", legend=UFZ, mapping=path)

    def test_values_that_a_mapping_lacks_belong_into_it(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text("value,class\n1,water\n")
        with pytest.raises(InputError, match=r"known: '2'; .* add them to the mapping .*m\.csv"):
            class_table(["1", "2"], source="x.tif", legend=UFZ, mapping=path)

    def test_a_mapping_must_be_there(self, tmp_path):
        with pytest.raises(InputError, match="does not exist"):
            read_mapping(tmp_path / "m.csv")

    def test_something_must_not_be_ignored(self):
        with pytest.raises(InputError, match=r"x\.tif has no class but ignored ones"):
            class_table(["1", "2"], source="x.tif", ignore=["1", "2"])

    def test_too_many_values_are_no_classes(self):
        with pytest.raises(InputError, match="300 classes"):
            class_table([str(i) for i in range(300)], source="x.gpkg")

    def test_new_colours_differ(self):
        legend = class_table([f"c{i}" for i in range(40)], source="x.gpkg").legend
        assert len({c.color for c in legend.classes}) == 40
