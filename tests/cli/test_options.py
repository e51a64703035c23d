import pytest
import typer

from geolink_cli.options import osm_spec, parse_bands, parse_bbox


def test_boxes():
    assert parse_bbox(None) is None
    assert parse_bbox("24.93,60.16, 24.96,6.018e1") == (24.93, 60.16, 24.96, 60.18)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1;2;3;4"])
def test_what_is_no_box(text):
    with pytest.raises(typer.BadParameter, match="four numbers"):
        parse_bbox(text)


def test_bands():
    assert parse_bands(None) is None
    assert parse_bands("3,2,1") == (3, 2, 1)
    for text in ("3,2", "r,g,b", "1.5,2,3"):
        with pytest.raises(typer.BadParameter, match="band numbers"):
            parse_bands(text)


def test_no_osm_is_osm_none():
    assert osm_spec(None, no_osm=True) == osm_spec("none", no_osm=True) == "none"
    assert osm_spec("a.osm.pbf", no_osm=False) == "a.osm.pbf"
    assert osm_spec(None, no_osm=False) is None
    with pytest.raises(typer.BadParameter, match="contradict"):
        osm_spec("a.osm.pbf", no_osm=True)
