import json
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import CRS, Transformer
from rasterio.shutil import copy
from scenes import (
    NORTH,
    SIDE,
    UTM35,
    WEST,
    add_scene,
    area_of,
    classes,
    noise,
    pixels_at,
    write_cog,
)
from servers import BROKEN, BUSY, CUT, HTML, NOT_FOUND, WRONG_BYTES, Fault, StacServer, slow

from geolink.errors import UnavailableError
from geolink.grid import WGS84, Bounds, PixelWindow, reproject_bounds, utm_crs
from geolink.sources.network import Network
from geolink.sources.specs import StacImagery, parse_imagery
from geolink.sources.stac import dated, plan_stac

AREA = area_of(150, 150, 120, 130)
QUICK = Network(timeout_s=2.0, retries=1)
WORLD = (date(2015, 1, 1), date(2100, 1, 1))


@pytest.fixture
def server():
    with StacServer() as server:
        yield server


def sentinel2(server, **changes):
    spec = StacImagery(server.url, "sentinel-2-l2a", ("visual",), WORLD, 80.0, "scl")
    return replace(spec, **changes)


def plan(server, spec=None, area=AREA, gsd=None, network=QUICK):
    return plan_stac(spec or sentinel2(server), area, gsd=gsd, network=network)


def read(server, spec=None, **options):
    """The grid and the pixels of a plan of one chunk."""
    found = plan(server, spec, **options)
    (window,) = found.windows
    grid = found.grid.subgrid(window)
    return grid, found.pixels.read(grid)


def names(server, spec=None):
    return [scene.name for scene in plan(server, spec).pixels.scenes]


# The mosaic


def test_pixels_come_from_the_first_scene_that_is_clear_there(server, tmp_path):
    scenes = {
        "best": (noise(1), classes(cloud=(0, 0, 220, SIDE), nothing=(0, 400, SIDE, 112)), 4.0),
        "next": (noise(2), classes(shadow=(0, 0, 200, SIDE)), 9.0),
        "last": (noise(3), classes(cloud=(0, 0, 180, 240), snow=(0, 240, SIDE, 272)), 30.0),
    }
    for name, (rgb, scl, cloud) in reversed(scenes.items()):
        add_scene(server, tmp_path, name, rgb, scl, date="2025-06-01", cloud_cover=cloud)
    grid, found = read(server)
    row, col = np.mgrid[:SIDE, :SIDE]
    expected = np.where(row < 220, scenes["next"][0], scenes["best"][0])
    expected = np.where(col >= 400, scenes["next"][0], expected)
    expected = np.where(row < 200, scenes["last"][0], expected)
    # Cloudy in all of them: the least cloudy one, though its neighbours there are of another.
    expected = np.where((row < 180) & (col < 240), scenes["best"][0], expected)
    assert found.valid.all()
    np.testing.assert_array_equal(found.values, expected[:, *pixels_at(grid)])
    assert found.scenes == ("best", "next", "last")


def test_pixels_that_no_scene_has_stay_empty(server, tmp_path):
    rgb = noise(1)
    rgb[:, :, :160] = 0
    scl = classes(nothing=(0, 0, SIDE, 160))
    add_scene(server, tmp_path, "a", rgb, scl, date="2025-06-01", cloud_cover=1.0)
    grid, found = read(server)
    np.testing.assert_array_equal(found.valid, (rgb > 0).all(axis=0)[pixels_at(grid)])
    assert not found.valid.all()
    assert (found.values[:, ~found.valid] == 0).all()


def test_scenes_are_ordered_by_clouds_then_the_newest_then_the_id(server, tmp_path):
    rgb, scl = noise(1, 64), classes(64)
    for name, day, cloud in (
        ("d", "2025-06-01", 5.0),
        ("a", "2025-06-01", 7.0),
        ("b", "2025-06-09", 7.0),
        ("c", "2025-06-01", 7.0),
        ("overcast", "2025-06-01", 81.0),
    ):
        add_scene(server, tmp_path, name, rgb, scl, date=day, cloud_cover=cloud, gsd=80.0)
    assert names(server) == ["d", "b", "a", "c"]
    assert names(server, sentinel2(server, classes=None, max_cloud=None)) == [
        *("b", "a", "c", "d", "overcast")
    ]


def test_all_pages_of_a_search_are_read(tmp_path):
    with StacServer(page_size=3) as server:
        for number in range(8):
            add_scene(
                server,
                tmp_path,
                f"s{number}",
                noise(number, 64),
                classes(64),
                date="2025-06-01",
                cloud_cover=float(number),
                gsd=80.0,
            )
        assert names(server) == [f"s{number}" for number in range(8)]


def test_only_scenes_of_the_dates_and_the_place_are_used(server, tmp_path):
    rgb, scl = noise(1, 64), classes(64)
    for name, day, west in (
        ("early", "2025-04-30", WEST),
        ("first", "2025-05-01", WEST),
        ("last", "2025-05-31", WEST),
        ("late", "2025-06-01", WEST),
        ("elsewhere", "2025-05-09", WEST + 90_000),
    ):
        add_scene(server, tmp_path, name, rgb, scl, date=day, cloud_cover=1.0, west=west, gsd=80.0)
    may = (date(2025, 5, 1), date(2025, 5, 31))
    assert names(server, sentinel2(server, dates=may)) == ["last", "first"]


def test_few_scenes_are_looked_at_where_nothing_is_clear(server, tmp_path):
    scl = classes(cloud=(0, 0, SIDE, SIDE))
    for number in range(12):
        add_scene(
            server,
            tmp_path,
            f"s{number:02}",
            noise(number),
            scl,
            date="2025-06-01",
            cloud_cover=50.0 + number,
        )
    _, found = read(server)
    assert found.valid.all()
    assert found.scenes == ("s00",)
    asked = {path for path in server.paths("GET") if "/assets/" in path}
    # Colours of scenes that can give nothing better are not read.
    assert {path.rpartition("/")[2] for path in asked} == {
        "s00-TCI.tif",
        *(f"s{number:02}-SCL.tif" for number in range(8)),
    }


def test_a_footprint_that_is_wrong_does_no_harm(server, tmp_path):
    far = {"west": WEST + 300_000, "north": NORTH - 900_000}
    add_scene(
        server, tmp_path, "far", noise(1), classes(), date="2025-06-01", cloud_cover=0.0, **far
    )
    add_scene(server, tmp_path, "near", noise(2), classes(), date="2025-06-01", cloud_cover=9.0)
    for item in server.items:
        item["geometry"] = {
            "type": "Polygon",
            "coordinates": [[[-170, -80], [170, -80], [170, 80], [-170, 80], [-170, -80]]],
        }
    grid, found = read(server)
    assert found.scenes == ("near",)
    np.testing.assert_array_equal(found.values, noise(2)[:, *pixels_at(grid)])


# Where pixels are, and how they are read


def test_pixels_lie_where_they_are_in_another_zone(server, tmp_path):
    """Red and green count metres; the scene is in the zone west of the area's."""
    utm34 = CRS.from_epsg(32634)
    west, _, _, north = reproject_bounds(
        Bounds(WEST, NORTH - 5120, WEST + 5120, NORTH), UTM35, utm34
    )
    row, col = np.mgrid[:720, :720]
    rgb = np.stack([row // 3 + 5, col // 3 + 5, np.full_like(row, 9)]).astype(np.uint8)
    place = {"crs": utm34, "west": west, "north": north}
    add_scene(
        server,
        tmp_path,
        "a",
        rgb,
        classes(720),
        date="2025-06-01",
        cloud_cover=0.0,
        **place,
    )
    grid, found = read(server)
    assert grid.crs == UTM35
    y, x = np.mgrid[: grid.height, : grid.width] + 0.5
    to_scene = Transformer.from_crs(UTM35, utm34, always_xy=True)
    easting, northing = to_scene.transform(grid.west + 10 * x, grid.north - 10 * y)
    expected = np.stack([(north - northing) / 30 + 5, (easting - west) / 30 + 5])
    assert found.valid.all()
    # One grey level is three pixels; truncation in the pattern takes up to one level.
    assert np.abs(found.values[:2] + 0.5 - expected).max() < 1.0


def test_only_what_is_needed_of_the_files_is_sent(server, tmp_path):
    rgb = noise(1, 1536)
    add_scene(server, tmp_path, "a", rgb, classes(1536), date="2025-06-01", cloud_cover=0.0)
    size = (tmp_path / "a-TCI.tif").stat().st_size
    grid, found = read(server, area=area_of(600, 600, 40, 40))
    np.testing.assert_array_equal(found.values, rgb[:, *pixels_at(grid)])
    sent = [request for request in server.requests if request.path.endswith("TCI.tif")]
    assert all(request.range for request in sent if request.method == "GET")
    # 296 x 296 pixels meet 4 x 4 blocks of 128 of its 12 x 12, besides overviews and header.
    assert 0 < sum(sum(request.sent) for request in sent) < 0.2 * size


def test_coarse_pixels_are_read_from_overviews(server, tmp_path):
    rgb = noise(1, 1024)
    add_scene(server, tmp_path, "a", rgb, classes(1024), date="2025-06-01", cloud_cover=0.0)
    whole = area_of(150, 150, 700, 700)

    def transferred(gsd):
        before = server.bytes_sent
        grid, found = read(server, area=whole, gsd=gsd)
        return server.bytes_sent - before, grid, found

    fine, _, _ = transferred(10.0)
    coarse, grid, found = transferred(40.0)
    assert coarse < fine / 8
    row, col = round((NORTH - grid.north) / 40), round((grid.west - WEST) / 40)
    inside = found.values[:, -row : 256 - row, -col : 256 - col]
    mean = rgb.reshape(3, 256, 4, 256, 4).mean(axis=(2, 4))
    assert np.abs(inside - mean).max() < 1.5  # the overviews round twice
    assert found.valid.sum() == 256 * 256


def test_three_assets_of_one_band_each_keep_their_values(server, tmp_path):
    rgb = noise(1, dtype="uint16", top=9_000)
    assets = {
        name: write_cog(tmp_path / f"{name}.tif", band[None])
        for name, band in zip(("red", "green", "blue"), rgb, strict=True)
    }
    server.add_scene("a", assets, date="2025-06-01T00:00:00Z", cloud_cover=1.0, collection="c")
    spec = parse_imagery(f"stac:{server.url}#c/red,green,blue")
    grid, found = read(server, spec)
    assert found.values.dtype == np.uint16
    np.testing.assert_array_equal(found.values, rgb[:, *pixels_at(grid)])


def test_other_collections_show_the_newest_scene_and_their_licence(tmp_path):
    with StacServer(licence="CC-BY-4.0") as server:
        arrays = {"old": noise(1), "new": noise(2)}
        arrays["new"][:, :, :200] = 0
        for name, day in (("old", "2023-01-01"), ("new", "2024-01-01")):
            path = write_cog(tmp_path / f"{name}.tif", arrays[name], gsd=10.0)
            server.add_scene(
                name, {"image": path}, date=f"{day}T00:00:00Z", cloud_cover=0, collection="c"
            )
        grid, found = read(server, parse_imagery(f"stac:{server.url}#c/image"))
        known = plan(server, parse_imagery(f"stac:{server.url}#c/image"))
    assert (grid.gsd, known.licence, known.date) == (10.0, "CC-BY-4.0", "2023-01-01/2024-01-01")
    expected = np.where(arrays["new"] > 0, arrays["new"], arrays["old"])
    np.testing.assert_array_equal(found.values, expected[:, *pixels_at(grid)])


def test_scenes_cut_from_real_imagery(server, tmp_path, shared_data):
    path = shared_data / "imagery" / "virginia_sentinel2" / "s2_rgb_uint8.tif"
    with rasterio.open(path) as raster:
        crs, corner = CRS.from_wkt(raster.crs.to_wkt()), raster.transform
        rgb = raster.read()[:3, 400:1300, 500:1400]
    west, north = corner * (500, 400)
    add_scene(
        server,
        tmp_path,
        "virginia",
        rgb,
        classes(900),
        date="2025-06-01",
        cloud_cover=0.0,
        crs=crs,
        west=west,
        north=north,
        gsd=corner.a,
    )
    bounds = Bounds(west + 3000, north - 5000, west + 5000, north - 3000)
    area = shapely.box(*reproject_bounds(bounds, crs, WGS84))
    grid, found = read(server, area=area)
    assert grid.crs == utm_crs(area.centroid.x, area.centroid.y)
    col, row = (round(edge) for edge in ~corner * (grid.west, grid.north))
    expected = rgb[:, row - 400 : row - 400 + grid.height, col - 500 : col - 500 + grid.width]
    assert found.valid.mean() > 0.9
    np.testing.assert_array_equal(found.values[:, found.valid], expected[:, found.valid])


# What goes wrong


def test_no_scene(server, tmp_path):
    add_scene(server, tmp_path, "a", noise(1), classes(), date="2025-06-01", cloud_cover=90.0)
    with pytest.raises(UnavailableError, match="at most 80 % clouds for this area; try other"):
        plan(server)


def test_dates_are_the_last_twelve_months_where_none_are_given():
    spec = parse_imagery("sentinel2")
    first, last = dated(spec).dates
    assert last - first == timedelta(days=365)
    assert timedelta(0) <= datetime.now(UTC).date() - last <= timedelta(days=1)
    kept = parse_imagery("sentinel2:2025-05-01/2025-05-09")
    assert dated(kept) == kept


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"assets": {}}, "no asset visual, but none"),
        ({"geometry": None, "bbox": None}, "no date or no footprint"),
        ({"geometry": {"type": "Point"}}, "no date or no footprint"),
        ({"geometry": {"type": "Polygon", "coordinates": []}}, "no date or no footprint"),
    ],
)
def test_items_that_cannot_be_used_are_left_out(server, tmp_path, damage, message):
    for name in "ab":
        add_scene(server, tmp_path, name, noise(1), classes(), date="2025-06-01", cloud_cover=1.0)
    pages = server._search

    def damaged(request, only):
        reply = pages(request)
        page = json.loads(reply.body)
        page["features"] = [
            feature | damage if feature["id"] in only else feature for feature in page["features"]
        ]
        return replace(reply, body=json.dumps(page).encode())

    server._search = lambda request: damaged(request, only="a")
    assert names(server) == ["b"]
    server._search = lambda request: damaged(request, only="ab")
    with pytest.raises(UnavailableError, match=message):
        plan(server)


@pytest.mark.parametrize("href", ["s3://bucket/a.tif", "/etc/passwd", "file:///a.tif", "a.tif"])
def test_files_are_read_from_the_web_only(server, tmp_path, href):
    add_scene(server, tmp_path, "a", noise(1), classes(), date="2025-06-01", cloud_cover=1.0)
    absolute = server._absolute
    server._absolute = lambda item: (
        absolute(item) | {"assets": {name: {"href": href} for name in ("visual", "scl")}}
    )
    with pytest.raises(UnavailableError, match="without an account"):
        plan(server)


def test_a_file_that_is_no_geotiff_is_not_opened_as_something_else(server, tmp_path):
    """A VRT from a server could show files of this machine."""
    add_scene(server, tmp_path, "a", noise(1), classes(), date="2025-06-01", cloud_cover=1.0)
    vrt = tmp_path / "trap.vrt"
    copy(tmp_path / "a-TCI.tif", vrt, driver="VRT")
    server.files["/assets/a/a-TCI.tif"] = vrt
    with pytest.raises(UnavailableError, match="something else than a GeoTIFF"):
        read(server)


@pytest.mark.parametrize(
    ("path", "fault", "message"),
    [
        ("/", HTML, "does not answer as a STAC catalogue"),
        ("/", NOT_FOUND, "404"),
        ("/search", BROKEN, "500"),
        ("/search", HTML, "does not answer as a STAC catalogue"),
        ("/search", CUT, "broke the connection off"),
        ("/search", slow(3), "silent for 1 s"),
    ],
)
def test_a_catalogue_that_answers_wrongly(server, tmp_path, path, fault, message):
    add_scene(server, tmp_path, "a", noise(1), classes(), date="2025-06-01", cloud_cover=1.0)
    server.fail(path, fault)
    with pytest.raises(UnavailableError, match=message) as error:
        plan(server, network=Network(timeout_s=1.0, retries=0))
    assert "\n" not in str(error.value)


def test_a_collection_that_is_not_there(server, tmp_path):
    add_scene(server, tmp_path, "a", noise(1), classes(), date="2025-06-01", cloud_cover=1.0)
    with pytest.raises(UnavailableError, match=r"no collection other; it has .* sentinel-2-l2a"):
        plan(server, parse_imagery(f"stac:{server.url}#other/visual"))
    with pytest.raises(UnavailableError, match="no asset red, but scl, visual"):
        plan(server, parse_imagery(f"stac:{server.url}#sentinel-2-l2a/red"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (NOT_FOUND, "it answers 404"),
        (BUSY, "it answers 429"),
        (BROKEN, "it answers 500"),
        (HTML, "something else than a GeoTIFF"),
        (WRONG_BYTES, "something else than a GeoTIFF"),
        (slow(3), "it is silent"),
        (CUT, "breaks off"),
    ],
)
def test_a_file_that_cannot_be_read(server, tmp_path, fault, message):
    add_scene(server, tmp_path, "a", noise(1), classes(), date="2025-06-01", cloud_cover=1.0)
    server.fail("*a-TCI.tif", fault)
    with pytest.raises(UnavailableError, match=f"scene a cannot be read from 127.*{message}"):
        read(server, network=Network(timeout_s=1.0, retries=0))
    server.heal()
    _, found = read(server)  # a failure is not remembered
    assert found.valid.all()


@pytest.mark.parametrize("fault", [BUSY, BROKEN])
def test_what_fails_in_passing_is_repeated(server, tmp_path, fault):
    add_scene(server, tmp_path, "a", noise(1), classes(), date="2025-06-01", cloud_cover=1.0)
    server.fail("*TCI.tif", fault, times=1)
    server.fail("/search", fault, times=1)
    _, found = read(server)
    assert found.valid.all()


def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(server, tmp_path):
    rgb = noise(1)
    add_scene(server, tmp_path, "a", rgb, classes(), date="2025-06-01", cloud_cover=1.0)
    found = plan(server)
    whole = found.grid.subgrid(found.windows[0])
    here = whole.subgrid(PixelWindow(0, 0, 64, 64))
    there = whole.subgrid(PixelWindow(200, 200, 64, 64))
    found.pixels.read(here)  # the file is open now, and fails where a block is read
    server.fail("*TCI.tif", Fault(429, {"Retry-After": "3"}))
    relief = threading.Timer(2.0, server.heal)
    relief.start()
    np.testing.assert_array_equal(found.pixels.read(there).values, rgb[:, *pixels_at(there)])
    relief.join()


def test_a_file_with_other_bands_is_told(server, tmp_path):
    path = write_cog(tmp_path / "grey.tif", noise(1)[:1])
    server.add_scene(
        "a", {"image": path}, date="2025-06-01T00:00:00Z", cloud_cover=1, collection="c"
    )
    with pytest.raises(UnavailableError, match=r"scene a cannot be used: grey\.tif has 1 band"):
        plan(server, parse_imagery(f"stac:{server.url}#c/image"))


def test_pixels_finer_than_the_scenes_are_not_made(server, tmp_path):
    add_scene(server, tmp_path, "a", noise(1), classes(), date="2025-06-01", cloud_cover=1.0)
    assert plan(server, gsd=0.5).grid.gsd == 10.0
    spec = parse_imagery(f"stac:{server.url}#sentinel-2-l2a/visual")
    assert plan(server, spec, gsd=0.5).grid.gsd == 10.0
