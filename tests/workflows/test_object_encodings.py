import json

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from shapely import box
from synthetic import CRS_35N, NORTH, WEST, write_area, write_model

import geolink
from geolink.errors import ConfigError, CoverageError, OutputError
from geolink.graphs.schema import NODE_TYPES
from geolink.sources.places import sample_extract
from geolink.workflows.object_encodings import ObjectMeans, encode_objects

# A few blocks of the sample city.
BLOCKS = {"bbox": (24.940, 60.1685, 24.9465, 60.1705), "imagery": "simulated"}


@pytest.fixture(scope="module")
def small(small_scene, small_model):
    """Settings of the made-up scene."""
    return {
        "imagery": small_scene / "ortho.tif",
        "osm": small_scene / "osm.gpkg",
        "model": small_model,
        "workers": 0,
    }


@pytest.fixture(scope="module")
def blocks(tmp_path_factory, small_model):
    """Encodings of the sample city's objects: the file, its frame, and what is said of it."""
    path = tmp_path_factory.mktemp("blocks") / "objects.parquet"
    settings = {**BLOCKS, "osm": sample_extract(), "model": small_model, "workers": 2}
    return path, settings, encode_objects(path, **settings)


def test_every_object_has_one_row(blocks):
    path, _, result = blocks
    frame = gpd.read_parquet(path)
    assert list(frame.columns) == ["osm_id", "type", "encoding", "geometry"]
    assert frame["osm_id"].is_unique
    assert len(frame) > 200
    assert frame["type"].value_counts().to_dict() == result.objects
    assert list(frame["type"].unique()) == list(NODE_TYPES)
    assert frame.crs.to_epsg() == 32635
    assert frame.is_valid.all()
    assert set(frame["osm_id"].str.partition("/")[0]) <= {"node", "way", "relation"}
    encodings = np.stack(frame["encoding"])
    assert encodings.shape == (len(frame), 256)
    assert encodings.dtype == np.float32
    assert np.isfinite(encodings).all()
    assert len(np.unique(encodings, axis=0)) > 0.9 * len(frame)


def test_the_file_says_what_it_is(blocks):
    path, _, result = blocks
    schema = pq.read_schema(path)
    assert schema.field("encoding").type == pa.list_(pa.float32(), 256)
    record = json.loads(schema.metadata[b"geolink"])
    assert record == json.loads(json.dumps(result.metadata))
    assert record["title"].startswith("Encodings of the OSM objects of ")
    assert record["title"].endswith("(simulated imagery)")
    assert "weighted by the area or length" in record["encodings"]
    assert record["osm"]["licence"] == "ODbL-1.0"
    assert record["simulated_imagery"]
    assert result.simulated


def test_workers_and_batches_do_not_show(blocks, tmp_path):
    path, settings, _ = blocks
    encode_objects(tmp_path / "a.parquet", **{**settings, "workers": 0, "batch_size": 3})
    assert (tmp_path / "a.parquet").read_bytes() == path.read_bytes()


def test_only_objects_that_meet_the_area(small, tmp_path):
    area = write_area(tmp_path / "area.gpkg", box(WEST + 20, NORTH - 35, WEST + 40, NORTH - 21))
    encode_objects(tmp_path / "a.parquet", aoi=area, **small)
    assert gpd.read_parquet(tmp_path / "a.parquet")["osm_id"].tolist() == ["way/0", "way/3"]


def parts(rows, sizes, encodings):
    return np.array(rows), np.array(sizes, np.float32), np.array(encodings, np.float32)


@pytest.fixture
def frame():
    """Four parts of three objects: a relation of two squares, and two houses."""
    shapes = [box(x, 0, x + 2, 2) for x in (0, 10, 20, 30)]
    ids = ["way/1", "relation/9", "relation/9", "way/2"]
    return gpd.GeoDataFrame({"osm_id": ids}, geometry=shapes, crs=CRS_35N)


@pytest.mark.parametrize("backwards", [False, True])
def test_encodings_count_by_the_size_of_the_part(frame, backwards):
    means = ObjectMeans(frame, 2)
    tiles = [
        parts([0, 1], [4, 3], [[1, 2], [0, 8]]),
        parts([1, 2], [1, 4], [[8, 0], [8, 0]]),
    ]
    for tile in tiles[::-1] if backwards else tiles:
        means.add(*tile)
    table = means.table("polygon", box(0, 0, 100, 100))
    assert table["osm_id"].to_pylist() == ["way/1", "relation/9"]  # way/2 is in no tile
    assert table["encoding"].to_pylist() == [[1, 2], [5, 3]]
    one, two = shapely.from_wkb(table["geometry"].to_numpy())
    assert one.equals(frame.geometry[0])
    assert two.equals(shapely.union_all(frame.geometry[1:3]))


def test_one_part_in_the_area_is_enough(frame):
    means = ObjectMeans(frame, 1)
    means.add(*parts(range(4), [4] * 4, [[1]] * 4))
    assert means.table("polygon", box(19, 0, 21, 1))["osm_id"].to_pylist() == ["relation/9"]


def test_a_type_without_objects(frame):
    assert ObjectMeans(frame[:0], 3).table("polygon", box(0, 0, 1, 1)).num_rows == 0


def test_a_model_that_places_nodes_by_coverage(small, tmp_path):
    """It draws maps and encodes objects, and neither is what it is without coverage."""
    model = write_model(tmp_path / "model", position="coverage")
    area = write_area(tmp_path / "area.gpkg", box(WEST, NORTH - 200, WEST + 200, NORTH))
    gains, encodings = [], []
    for name, spec in (("covered", model), ("plain", small["model"])):
        settings = {**small, "model": spec, "aoi": area}
        geolink.predict(out=tmp_path / f"{name}.gpkg", **settings)
        gains.append(gpd.read_file(tmp_path / f"{name}.gpkg", layer="zones")["osm_gain"].mean())
        geolink.encode_objects(tmp_path / f"{name}.parquet", **settings)
        encodings.append(np.stack(gpd.read_parquet(tmp_path / f"{name}.parquet")["encoding"]))
    assert gains[0] != gains[1]
    assert encodings[0].shape == encodings[1].shape
    assert not np.allclose(*encodings, atol=1e-3)


def test_what_cannot_be_done_is_said(small, tmp_path):
    with pytest.raises(ConfigError, match="need OSM"):
        encode_objects(tmp_path / "a.parquet", **{**small, "osm": "none"})
    empty = write_area(
        tmp_path / "area.gpkg", box(WEST + 270, NORTH - 259, WEST + 280, NORTH - 252)
    )
    with pytest.raises(CoverageError, match="no OSM object of area"):
        encode_objects(tmp_path / "a.parquet", aoi=empty, **small)
    with pytest.raises(OutputError, match="does not exist"):
        encode_objects(tmp_path / "missing" / "a.parquet", **small)
    with pytest.raises(ConfigError, match=r"end the name \S*a\.gpkg in \.parquet"):
        encode_objects(tmp_path / "a.gpkg", **small)
    (tmp_path / "a.parquet").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        encode_objects(tmp_path / "a.parquet", **small)
    assert (tmp_path / "a.parquet").read_bytes() == b"mine"
