"""The interactive page: what is in it, and what it does in a real browser."""

import json
import re

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from browser import find_chromium, open_page
from pyproj import CRS
from shapely import Polygon, box

from geolink import web_map
from geolink.errors import OutputError
from geolink.grid import Bounds
from geolink.legend import UFZ, Legend, MapClass
from geolink.sources.base import ImageTile, SourceInfo
from geolink.web_map import MAX_BYTES, write_web_map

UTM35 = CRS.from_epsg(32635)
HOSTILE = '</script><img src=x onerror="window.hacked=1"><b>&amp;{{7*7}}'


class Noise:
    """Imagery that compresses badly."""

    def __init__(self, *, simulated=False):
        self.info = SourceInfo("noise", simulated=simulated)

    def read(self, grid):
        rgb = np.frombuffer(np.random.default_rng(0).bytes(3 * grid.height * grid.width), np.uint8)
        return ImageTile(rgb.reshape(3, *grid.shape), np.ones(grid.shape, bool))


class Flat(Noise):
    """Imagery of one colour."""

    def read(self, grid):
        rgb = np.full((3, *grid.shape), 90, np.uint8)
        return ImageTile(rgb, np.ones(grid.shape, bool))


def frame(geometry, classes, **columns):
    zones = gpd.GeoDataFrame({"class_id": classes}, geometry=geometry, crs=UTM35)
    known = {"confidence": 0.8765, "osm_gain": -0.12, "area_m2": zones.area}
    return zones.assign(**(known | columns))


def halves():
    """Green in the west, with residential around a hole of water in the east."""
    east = Polygon(box(500, 0, 1000, 800).exterior, [box(700, 300, 800, 500).exterior])
    return frame([box(0, 0, 500, 800), east, box(700, 300, 800, 500)], [1, 4, 0])


def write(path, zones, imagery=None, **changes):
    frames = zones if isinstance(zones, list) else [zones]
    options = {
        "bounds": Bounds(*pd.concat(frames).total_bounds),
        "legend": UFZ,
        "title": "Zones",
        "credits": ["© contributors"],
        "overwrite": False,
    }
    write_web_map(path, frames, imagery, crs=UTM35, **(options | changes))
    return path.read_text(encoding="utf-8")


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


def test_the_data_are_the_zones(tmp_path):
    data = data_of(write(tmp_path / "map.html", halves()))
    assert data["metres"] * data["width"] == pytest.approx(1000)
    assert data["metres"] * data["height"] == pytest.approx(800)
    labels, confidences, gains, areas, rings = zip(*data["zones"], strict=True)
    assert labels == (1, 4, 0)
    assert set(confidences) == {0.876}
    assert set(gains) == {-0.12}
    assert areas == ("40.0 ha", "38.0 ha", "2.00 ha")
    assert [len(r) for r in rings] == [1, 2, 1]
    corners = data["metres"] * np.cumsum(np.reshape(rings[2][0], (-1, 2)), axis=0)
    assert corners.min(axis=0) == pytest.approx([700, 300], abs=0.1)
    assert corners.max(axis=0) == pytest.approx([800, 500], abs=0.1)


def test_what_is_not_known_is_null(tmp_path):
    zones = halves().assign(osm_gain=np.nan)
    assert {zone[2] for zone in data_of(write(tmp_path / "map.html", zones))["zones"]} == {None}


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_imagery_is_named(tmp_path, simulated):
    page = write(tmp_path / "map.html", halves(), Flat(simulated=simulated))
    assert ("Simulated imagery" in page) == simulated


def test_names_from_outside_are_text(tmp_path):
    legend = Legend("x", tuple(MapClass(c.id, f"{c.name}{HOSTILE}", c.color) for c in UFZ.classes))
    page = write(tmp_path / "map.html", halves(), legend=legend, title=HOSTILE, credits=[HOSTILE])
    assert "<img" not in page
    assert page.count("</script>") == 2  # the data's and the script's own
    assert data_of(page)["names"][0] == f"water{HOSTILE}"


def test_nothing_is_fetched(tmp_path):
    page = write(tmp_path / "map.html", halves(), Flat())
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"base64,[^\"]*", "", page))


def test_the_same_map_gives_the_same_bytes(tmp_path):
    pages = {write(tmp_path / name, halves(), Flat()) for name in ("a.html", "b.html")}
    assert len(pages) == 1


def test_an_existing_page_stays(tmp_path):
    (tmp_path / "map.html").write_text("old")
    with pytest.raises(OutputError, match="exists"):
        write(tmp_path / "map.html", halves())
    assert (tmp_path / "map.html").read_text() == "old"


def test_the_smallest_of_many_zones_are_not_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(web_map, "MAX_ZONES", 80)
    zones = frame([box(i, 0, i + 1, 1) for i in range(90)], [i % 9 for i in range(90)])
    zones.loc[zones.index[-10:], "area_m2"] = 5.0
    page = write(tmp_path / "map.html", zones)
    assert len(data_of(page)["zones"]) == 80
    assert data_of(page)["zones"][0][3] == "5 m²"
    assert "The 10 smallest of 90 zones, 7.7 % of the area, are not drawn" in page


def test_outlines_of_many_corners_are_simplified(tmp_path, monkeypatch):
    monkeypatch.setattr(web_map, "MAX_VERTICES", 2000)
    angle = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    radius = 1000 + np.random.default_rng(0).normal(0, 0.5, len(angle))
    circle = Polygon(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]))
    page = write(tmp_path / "map.html", frame([circle], [1]))
    (rings,) = (zone[4] for zone in data_of(page)["zones"])
    assert 100 < sum(map(len, rings)) / 2 < 2000
    assert "Outlines are simplified" in page


def checkered(side):
    """Zones of 10 m, each with a corner more on every edge, which its neighbours share."""
    at = np.arange(0, side * 10 + 1, 5.0)
    rows = []
    for col in range(side):
        for row in range(side):
            x, y = at[2 * col : 2 * col + 3], at[2 * row : 2 * row + 3]
            ring = [(x[0], y[i]) for i in (0, 1, 2)] + [(x[i], y[2]) for i in (1, 2)]
            ring += [(x[2], y[i]) for i in (1, 0)] + [(x[1], y[0])]
            rows.append(Polygon(ring))
    return frame(rows, [i % 9 for i in range(side**2)])


def test_zones_in_parts_give_the_same_page(tmp_path, monkeypatch):
    zones = checkered(20)
    parts = [zones[:7], zones[7:250], zones[250:]]
    assert write(tmp_path / "a.html", zones) == write(tmp_path / "b.html", parts)
    monkeypatch.setattr(web_map, "_HELD_VERTICES", 3500)
    page = write(tmp_path / "c.html", zones)
    assert page == write(tmp_path / "d.html", parts)
    data = data_of(page)
    assert len(data["zones"]) == 400
    assert sum(len(zone[4][0]) // 2 for zone in data["zones"]) < 3500
    assert "Outlines are simplified" in page
    # No gaps: the corners of neighbours were moved to the same places.
    rings = [np.cumsum(np.reshape(zone[4][0], (-1, 2)), axis=0) for zone in data["zones"]]
    drawn = gpd.GeoSeries([Polygon(ring) for ring in rings])
    assert drawn.union_all().area == pytest.approx(drawn.area.sum(), rel=1e-9)
    assert drawn.union_all().geom_type == "Polygon"


def test_zones_and_holes_smaller_than_a_cell_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(web_map, "_HELD_VERTICES", 16)
    ground = Polygon(box(0, 0, 1000, 1000).exterior, [box(500, 500, 500.1, 500.1).exterior])
    page = write(tmp_path / "a.html", frame([ground, box(500, 500, 500.1, 500.1)], [1, 2]))
    assert len(data_of(page)["zones"]) == 2
    monkeypatch.setattr(web_map, "_HELD_VERTICES", 14)
    page = write(tmp_path / "b.html", frame([ground, box(500, 500, 500.1, 500.1)], [1, 2]))
    assert [len(zone[4]) for zone in data_of(page)["zones"]] == [1]
    assert "The 1 smallest of 2 zones" in page


def test_imagery_takes_its_share_at_most(tmp_path):
    zones = frame([box(0, 0, 2000, 2000)], [1])
    page = write(tmp_path / "map.html", zones, Noise())
    assert 1_000_000 < len(page) < 3_100_000 < MAX_BYTES


def test_no_zones(tmp_path):
    page = write(tmp_path / "map.html", halves().head(0), bounds=Bounds(0, 0, 10, 1))
    assert data_of(page)["zones"] == []


needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium")
# The colour of a pixel, read from a copy: reading a canvas itself changes how it is kept.
COLOUR = """(([x, y]) => {
    const copy = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
    const context = copy.getContext("2d");
    context.drawImage(document.querySelector("canvas"), -x, -y);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of `halves` over imagery, with names that would break it if they could."""
    legend = Legend("x", tuple(MapClass(c.id, f"{c.name}{HOSTILE}", c.color) for c in UFZ.classes))
    path = tmp_path_factory.mktemp("page") / "map.html"
    options = {"legend": legend, "title": HOSTILE, "credits": [HOSTILE]}
    write(path, halves(), Flat(simulated=True), **options)
    with open_page(path) as opened:
        # Opaque zones have the colours of the legend.
        opened.run("opacity.value = 100, opacity.dispatchEvent(new Event('input')), 0")
        opened.settle()
        yield opened
        assert opened.errors == []
        assert opened.requests == [path.as_uri()]
        assert opened.run("window.hacked") is None


def place_of(page, east, south):
    """Pixel of the page that shows a share of the map's width and height."""
    left, top, width, height = page.run(
        "(r => [r.left, r.top, r.width, r.height])(document.querySelector('canvas')"
        ".getBoundingClientRect())"
    )
    long = 0.96 * min(width / 1000, height / 800)
    x = left + width / 2 + (east - 0.5) * 1000 * long
    y = top + height / 2 + (south - 0.5) * 800 * long
    return (x, y), (round(x - left), round(y - top))


def colour_at(page, east, south):
    return tuple(page.run(f"{COLOUR}({list(place_of(page, east, south)[1])})"))


@needs_chromium
def test_zones_are_drawn_in_their_colours(page):
    assert colour_at(page, 0.25, 0.3) == UFZ.classes[1].rgb
    assert colour_at(page, 0.9, 0.3) == UFZ.classes[4].rgb
    assert colour_at(page, 0.75, 0.5) == UFZ.classes[0].rgb


@needs_chromium
def test_a_class_can_be_hidden(page):
    toggle = "document.querySelector('[data-class=\"1\"]').click()"
    page.run(toggle)
    page.settle()
    assert colour_at(page, 0.25, 0.3) != UFZ.classes[1].rgb
    assert colour_at(page, 0.9, 0.3) == UFZ.classes[4].rgb
    page.click(*place_of(page, 0.25, 0.3)[0])
    assert page.run("popup.textContent") == ""
    page.run(toggle)
    page.settle()
    assert colour_at(page, 0.25, 0.3) == UFZ.classes[1].rgb


@needs_chromium
def test_a_click_tells_of_the_zone_and_stays(page):
    page.click(*place_of(page, 0.75, 0.5)[0])
    told = page.run("popup.innerText")
    assert told.startswith(f"water{HOSTILE}")
    assert re.findall(r"[\d.]+ ha|\d+ %|\N{MINUS SIGN}[\d.]+", told) == [
        "2.00 ha",
        "88 %",
        "\N{MINUS SIGN}0.12",
    ]
    page.mouse("mouseMoved", *place_of(page, 0.25, 0.3)[0])
    assert page.run("popup.innerText") == told
    page.run("document.querySelector('canvas').focus()")
    page.press("Escape")
    assert page.run("popup.innerText") == ""


@needs_chromium
def test_the_pointer_tells_of_the_zone_under_it(page):
    page.mouse("mouseMoved", *place_of(page, 0.25, 0.3)[0])
    assert page.run("popup.innerText").startswith("green")
    page.mouse("mouseMoved", 5, 5)
    assert page.run("popup.innerText") == ""


@needs_chromium
def test_the_map_moves_and_zooms(page):
    start, _ = place_of(page, 0.25, 0.3)
    page.drag(start, (start[0] + 300, start[1]))
    assert colour_at(page, 0.65, 0.3) == UFZ.classes[1].rgb
    before = page.run("document.querySelector('#scale').innerText")
    page.mouse("mouseWheel", *start, deltaX=0, deltaY=-2000)
    page.settle()
    assert page.run("document.querySelector('#scale').innerText") != before
    page.run("document.querySelector('#fit').click()")
    page.settle()
    assert page.run("document.querySelector('#scale').innerText") == before
    assert colour_at(page, 0.65, 0.3) == UFZ.classes[4].rgb


@needs_chromium
def test_the_keyboard_suffices(page):
    page.run("document.querySelector('canvas').focus()")
    scale = [page.run("document.querySelector('#scale').innerText")]
    for key in "++++--":
        page.press(key)
    scale.append(page.run("document.querySelector('#scale').innerText"))
    assert scale[0] != scale[1]
    for _ in range(3):
        page.press("ArrowRight")
    page.press("Enter")
    assert page.run("popup.innerText").startswith("residential")
    page.press("Escape")
    page.press("0")
    assert page.run("document.querySelector('#scale').innerText") == scale[0]


@needs_chromium
def test_everything_has_a_name(page):
    """Of what can be focused, and of images, as assistive technology sees them."""
    named = page.run(
        "[...document.querySelectorAll('button, input, canvas, img, [role=img]')].map(e =>"
        "e.getAttribute('aria-label') || e.alt || e.labels?.[0]?.textContent || '')"
    )
    assert len(named) > 8
    assert all(named)
