"""The one writer of GeoPackages: layers, QGIS styles and metadata, with reproducible bytes."""

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import geopandas as gpd
import pyogrio

from geolink.files import atomic_path, write_errors_named
from geolink.legend import Legend

ZONES, TILES = "zones", "tiles"

# Item of the file's metadata that holds the JSON record.
METADATA_ITEM = "GEOLINK"

_LAYER_TITLES = {
    ZONES: ("Urban functional zones", "Polygons of one class each; confidence from 0 to 1"),
    TILES: ("Tiles", "Footprints of the tiles that the map was made of, and what became of each"),
}

_STYLES_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
    f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
    useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME
)"""

_STATUS_COLORS = {
    "ok": "#4daf4a",
    "no_osm": "#ffb000",
    "no_image": "#b0b0b0",
    "failed": "#e41a1c",
}

_SLD = "http://www.opengis.net/sld"
_OGC = "http://www.opengis.net/ogc"
_SE = "http://www.opengis.net/se"


def write_geopackage(
    target: Path,
    zones: Iterable[gpd.GeoDataFrame],
    tiles: gpd.GeoDataFrame,
    *,
    legend: Legend,
    metadata: Mapping[str, Any],
    overwrite: bool,
    timestamp: datetime | None = None,
) -> None:
    """Write the layers `zones` and `tiles`, their QGIS styles, and the metadata.

    The same arguments give the same bytes. The metadata is one JSON record, the item `GEOLINK` of
    the file's metadata as GDAL and QGIS show it.

    Args:
        target: the `.gpkg` to make; an existing one is replaced, never changed in place.
        zones: polygons with `class_id` and further columns, in one frame or several of the same
            columns; they are written one after the other.
        tiles: tile footprints with `status` and further columns.
        legend: classes and colours of the style.
        metadata: plain JSON data.
        overwrite: replace an existing file.
        timestamp: time of last change to record; by default that of SOURCE_DATE_EPOCH, else 1970.

    Raises:
        OutputError: the target cannot be written, or the disk is full.
    """
    moment = _moment(timestamp)
    record = json_text(metadata)
    with atomic_path(target, overwrite=overwrite) as part, write_errors_named(target):
        for frame in zones:
            _write_layer(part, frame, ZONES, record)
        _write_layer(part, tiles, TILES, record)
        with closing(sqlite3.connect(part)) as database:
            with database:
                _add_styles(database, legend, moment)
                _fix_times(database, moment)
            database.execute("VACUUM")


def json_text(metadata: Mapping[str, Any]) -> str:
    """The metadata as JSON for a tag of a file, also where names of files are no UTF-8."""
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON record of a GeoPackage that `write_geopackage` made."""
    items = pyogrio.read_info(path, layer=ZONES)["dataset_metadata"]
    record: dict[str, Any] = json.loads(items[METADATA_ITEM])
    return record


def zone_style(legend: Legend) -> tuple[str, str]:
    """QML and SLD that colour zones by class."""
    entries = [(str(c.id), c.name, c.color) for c in legend.classes]
    return _qml("class_id", entries, opacity=0.75), _sld(ZONES, "class_id", entries, opacity=0.75)


def tile_style() -> tuple[str, str]:
    """QML and SLD that colour tiles by status."""
    entries = [(status, status, color) for status, color in _STATUS_COLORS.items()]
    return _qml("status", entries, opacity=0.25), _sld(TILES, "status", entries, opacity=0.25)


def _write_layer(path: Path, frame: gpd.GeoDataFrame, name: str, record: str) -> None:
    title, description = _LAYER_TITLES[name]
    pyogrio.write_dataframe(
        frame,
        path,
        layer=name,
        driver="GPKG",
        geometry_type="Polygon",
        append=path.exists(),
        dataset_metadata={METADATA_ITEM: record},
        dataset_options={"VERSION": "1.3"},  # GDAL before 3.7 warns of 1.4
        layer_options={"IDENTIFIER": title, "DESCRIPTION": description, "GEOMETRY_NAME": "geom"},
    )


def _moment(timestamp: datetime | None) -> str:
    """The time in the form that GeoPackage asks for."""
    if timestamp is None:
        timestamp = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    return timestamp.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _add_styles(database: sqlite3.Connection, legend: Legend, moment: str) -> None:
    """The table in which QGIS looks for styles, known to the file as a plain table."""
    database.execute(_STYLES_TABLE)
    database.execute(
        "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, last_change) "
        "VALUES ('layer_styles', 'attributes', 'layer_styles', 'Styles for QGIS', ?)",
        (moment,),
    )
    for layer, (qml, sld) in ((ZONES, zone_style(legend)), (TILES, tile_style())):
        row = ("", "", layer, "geom", layer, qml, sld, 1, _LAYER_TITLES[layer][0], "", None, moment)
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
            "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner, "
            "ui, update_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )


def _fix_times(database: sqlite3.Connection, moment: str) -> None:
    """Replace the times of writing, which would make every file differ."""
    database.execute("UPDATE gpkg_contents SET last_change = ?", (moment,))
    database.execute("UPDATE gpkg_metadata_reference SET timestamp = ?", (moment,))


def _qml(column: str, entries: list[tuple[str, str, str]], *, opacity: float) -> str:
    """A QGIS style with one filled symbol per (value, label, colour)."""
    root = ET.Element("qgis", version="3.28.0", styleCategories="Symbology")
    renderer = ET.SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr=column,
        enableorderby="0",
        forceraster="0",
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for index, (value, label, color) in enumerate(entries):
        ET.SubElement(
            categories,
            "category",
            {
                "type": "integer" if value.isdigit() else "string",
                "value": value,
                "label": label,
                "symbol": str(index),
                "render": "true",
            },
        )
        symbol = ET.SubElement(
            symbols, "symbol", type="fill", name=str(index), alpha=str(opacity), clip_to_extent="1"
        )
        layer = ET.SubElement(
            symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
        )
        properties = {
            "color": _rgba(color),
            "style": "solid",
            "outline_color": "60,60,60,255",
            "outline_style": "solid",
            "outline_width": "0.1",
            "outline_width_unit": "MM",
        }
        options = ET.SubElement(layer, "Option", type="Map")
        for name, setting in properties.items():
            ET.SubElement(options, "Option", type="QString", name=name, value=setting)
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(
        root, encoding="unicode"
    )


def _rgba(color: str) -> str:
    """`#rrggbb` as QGIS writes colours."""
    return ",".join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5)) + ",255"


def _sld(layer: str, column: str, entries: list[tuple[str, str, str]], *, opacity: float) -> str:
    """An OGC style (SLD 1.1) with one rule per (value, label, colour)."""
    for prefix, uri in (("sld", _SLD), ("ogc", _OGC), ("se", _SE)):
        ET.register_namespace(prefix, uri)
    root = ET.Element(f"{{{_SLD}}}StyledLayerDescriptor", version="1.1.0")
    named = ET.SubElement(root, f"{{{_SLD}}}NamedLayer")
    _text(named, _SE, "Name", layer)
    style = ET.SubElement(named, f"{{{_SLD}}}UserStyle")
    _text(style, _SE, "Name", layer)
    rules = ET.SubElement(style, f"{{{_SE}}}FeatureTypeStyle")
    for value, label, color in entries:
        rule = ET.SubElement(rules, f"{{{_SE}}}Rule")
        _text(rule, _SE, "Name", label)
        equal = ET.SubElement(
            ET.SubElement(rule, f"{{{_OGC}}}Filter"), f"{{{_OGC}}}PropertyIsEqualTo"
        )
        _text(equal, _OGC, "PropertyName", column)
        _text(equal, _OGC, "Literal", value)
        symbol = ET.SubElement(rule, f"{{{_SE}}}PolygonSymbolizer")
        fill = ET.SubElement(symbol, f"{{{_SE}}}Fill")
        _text(fill, _SE, "SvgParameter", color, name="fill")
        _text(fill, _SE, "SvgParameter", str(opacity), name="fill-opacity")
        stroke = ET.SubElement(symbol, f"{{{_SE}}}Stroke")
        _text(stroke, _SE, "SvgParameter", "#3c3c3c", name="stroke")
        _text(stroke, _SE, "SvgParameter", "0.3", name="stroke-width")
    return ET.tostring(root, encoding="unicode")


def _text(parent: ET.Element, namespace: str, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, f"{{{namespace}}}{tag}", attributes).text = text
