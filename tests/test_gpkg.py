import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
from geopandas.testing import assert_geodataframe_equal
from shapely import box

from geolink.errors import OutputError
from geolink.gpkg import read_metadata, tile_style, write_geopackage, zone_style
from geolink.legend import UFZ, Legend, MapClass

METADATA = {"seed": 1, "licences": ["ODbL-1.0"], "command": 'predict --city "Å & <b>"'}


def zones() -> gpd.GeoDataFrame:
    x = 380_000 + 100 * np.arange(3)
    columns = {
        "class_id": np.array([2, 4, 5], np.int32),
        "class_name": ["farmland", "residential", "commercial"],
        "confidence": [0.5, 0.75, 1.0],
        "osm_objects": np.array([0, 7, 2], np.int32),
    }
    return gpd.GeoDataFrame(columns, geometry=box(x, 0, x + 100, 50), crs=32635)


def tiles() -> gpd.GeoDataFrame:
    columns = {
        "tile_id": np.array([0, 1], np.int32),
        "status": ["ok", "failed"],
        "message": ["", "no <image> & \U0001f3d9"],
    }
    x = np.array([380_000, 380_168])
    return gpd.GeoDataFrame(columns, geometry=box(x, 0, x + 224, 224), crs=32635)


def write(path: Path, **changes: object) -> Path:
    options = {"legend": UFZ, "metadata": METADATA, "overwrite": False} | changes
    write_geopackage(path, [zones()], tiles(), **options)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gpkg") / "map.gpkg")


@pytest.mark.parametrize(("layer", "frame"), [("zones", zones()), ("tiles", tiles())])
def test_layers_round_trip(package: Path, layer: str, frame: gpd.GeoDataFrame) -> None:
    found = pyogrio.read_dataframe(package, layer=layer)
    assert_geodataframe_equal(found, frame, check_dtype=False)
    info = pyogrio.read_info(package, layer=layer)
    assert info["geometry_type"] == "Polygon"
    assert info["layer_metadata"]["IDENTIFIER"]


def test_metadata_is_read_by_gdal_and_registered_as_extension(package: Path) -> None:
    assert read_metadata(package) == METADATA
    with closing(sqlite3.connect(package)) as database:
        extended = database.execute(
            "SELECT table_name FROM gpkg_extensions WHERE extension_name = 'gpkg_metadata'"
        ).fetchall()
    assert sorted(extended) == [("gpkg_metadata",), ("gpkg_metadata_reference",)]


def test_styles_are_a_listed_table_with_one_default_per_layer(package: Path) -> None:
    assert "layer_styles" in pyogrio.list_layers(package)[:, 0]
    styles = pyogrio.read_dataframe(package, layer="layer_styles").set_index("f_table_name")
    assert set(styles.index) == {"zones", "tiles"}
    assert styles.useAsDefault.all()
    assert (styles.f_geometry_column == "geom").all()
    assert (styles.styleQML["zones"], styles.styleSLD["zones"]) == zone_style(UFZ)
    assert (styles.styleQML["tiles"], styles.styleSLD["tiles"]) == tile_style()


def test_qml_pairs_each_class_with_its_colour() -> None:
    root = ET.fromstring(zone_style(UFZ)[0])
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert renderer.attrib["attr"] == "class_id"
    found = {}
    for category in renderer.iter("category"):
        symbol = renderer.find(f"symbols/symbol[@name='{category.attrib['symbol']}']")
        assert symbol is not None
        color = symbol.find("layer/Option/Option[@name='color']")
        assert color is not None
        found[int(category.attrib["value"])] = (category.attrib["label"], color.attrib["value"])
    assert found == {c.id: (c.name, "{},{},{},255".format(*c.rgb)) for c in UFZ.classes}


def test_sld_has_a_rule_per_class() -> None:
    root = ET.fromstring(zone_style(UFZ)[1])
    se, ogc = "{http://www.opengis.net/se}", "{http://www.opengis.net/ogc}"
    rules = list(root.iter(f"{se}Rule"))
    assert [rule.findtext(f"{se}Name") for rule in rules] == list(UFZ.names)
    literals = [rule.findtext(f".//{ogc}Literal") for rule in rules]
    assert literals == [str(c.id) for c in UFZ.classes]
    fills = [rule.findtext(f".//{se}Fill/{se}SvgParameter") for rule in rules]
    assert fills == [c.color for c in UFZ.classes]


HOSTILE = "<script>\"a\" & 'b'</script>]]><!--'); DROP TABLE zones;--"


def test_names_are_escaped_in_styles() -> None:
    for style in zone_style(Legend("odd", (MapClass(0, HOSTILE, "#112233"),))):
        assert "<script>" not in style
        root = ET.fromstring(style)
        texts = {e.text for e in root.iter()} | {v for e in root.iter() for v in e.attrib.values()}
        assert HOSTILE in texts


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    legend = Legend("odd", (MapClass(0, HOSTILE, "#112233"),))
    hostile_zones = zones().assign(class_name=HOSTILE)
    hostile_tiles = tiles().assign(message=HOSTILE)
    metadata = {"title": HOSTILE + "\0\x1b", "imagery": "not UTF-8: \udcff"}
    path = tmp_path / "map.gpkg"
    write_geopackage(
        path, [hostile_zones], hostile_tiles, legend=legend, metadata=metadata, overwrite=False
    )
    assert read_metadata(path) == metadata
    assert gpd.read_file(path, layer="zones")["class_name"].tolist() == [HOSTILE] * 3
    assert gpd.read_file(path, layer="tiles")["message"].tolist() == [HOSTILE] * 2
    with closing(sqlite3.connect(path)) as database:
        styles = database.execute("SELECT styleQML, styleSLD FROM layer_styles").fetchall()
        for style in (style for row in styles for style in row):
            ET.fromstring(style)


def test_the_same_arguments_give_the_same_bytes(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = write(tmp_path / "map.gpkg")
    assert again.read_bytes() == package.read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = write(tmp_path / "dated.gpkg")
    same = write(tmp_path / "same.gpkg", timestamp=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))
    assert dated.read_bytes() == same.read_bytes() != package.read_bytes()
    with closing(sqlite3.connect(dated)) as database:
        times = database.execute("SELECT DISTINCT last_change FROM gpkg_contents").fetchall()
    assert times == [("2023-11-14T22:13:20.000Z",)]


def test_an_existing_package_is_replaced_as_a_whole(tmp_path: Path, package: Path) -> None:
    target = tmp_path / "map.gpkg"
    pyogrio.write_dataframe(zones(), target, layer="old")
    with pytest.raises(OutputError, match="exists"):
        write(target)
    write(target, overwrite=True)
    assert target.read_bytes() == package.read_bytes()
    assert list(tmp_path.iterdir()) == [target]


def test_zones_may_come_in_several_frames(tmp_path: Path, package: Path) -> None:
    path = tmp_path / "map.gpkg"
    parts = (zones().iloc[i : i + 1] for i in range(3))
    write_geopackage(path, parts, tiles(), legend=UFZ, metadata=METADATA, overwrite=False)
    one, other = (pyogrio.read_dataframe(p, layer="zones") for p in (package, path))
    assert_geodataframe_equal(one, other)
    inside = (380_110, 10, 380_120, 20)
    assert pyogrio.read_dataframe(path, layer="zones", bbox=inside).class_id.tolist() == [4]
    assert read_metadata(path) == METADATA


def test_the_file_is_sound(package: Path) -> None:
    with closing(sqlite3.connect(package)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        (kind,) = database.execute("PRAGMA application_id").fetchone()
    assert kind == int.from_bytes(b"GPKG", "big")


def test_a_map_without_zones_is_written(tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg"
    write_geopackage(path, [zones().head(0)], tiles(), legend=UFZ, metadata={}, overwrite=False)
    assert len(pyogrio.read_dataframe(path, layer="zones")) == 0


LIMITED = """
import resource, sys
from pathlib import Path
import geopandas as gpd
import numpy as np
import shapely
from geolink.errors import OutputError
from geolink.gpkg import write_geopackage
from geolink.legend import UFZ
spots = shapely.buffer(shapely.points(np.arange(3000), 0), 1)
columns = {"class_id": np.zeros(3000, int), "status": ["ok"] * 3000}
frame = gpd.GeoDataFrame(columns, geometry=spots, crs=32635)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    write_geopackage(Path(sys.argv[1]), [frame], frame, legend=UFZ, metadata={}, overwrite=False)
except OutputError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
@pytest.mark.parametrize("limit", [50_000, 800_000, 3_000_000])
def test_a_full_disk_leaves_no_file(tmp_path: Path, limit: int) -> None:
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "map.gpkg"), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "disk is full" in run.stdout
    assert list(tmp_path.iterdir()) == []
