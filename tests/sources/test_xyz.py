import io
import math
import threading
import time

import numpy as np
import pytest
import shapely
from PIL import Image
from pyproj import CRS, Transformer
from servers import BROKEN, BUSY, CUT, HTML, Reply, TileServer, slow

from geolink.errors import InputError, UnavailableError
from geolink.sources.network import Network
from geolink.sources.specs import XyzImagery, parse_imagery
from geolink.sources.xyz import Tile, plan_xyz

AREA = shapely.box(24.940, 60.164, 24.945, 60.168)  # Helsinki
HALF_WORLD = 20_037_508.342789244
QUICK = Network(timeout_s=1.0, retries=0)


def ramp(zoom, col, row):
    """Red and green count the pixels of the whole level from its upper left corner, in steps."""
    y, x = np.mgrid[:256, :256]
    red, green = ((col * 256 + x) // 4 % 256, (row * 256 + y) // 4 % 256)
    return np.stack([red, green, np.full_like(red, zoom)], axis=-1).astype(np.uint8)


def flat(zoom, col, row):
    """One colour for a whole tile."""
    return np.full((256, 256, 3), (col % 200 + 20, row % 200 + 20, 9), dtype=np.uint8)


def plan(server, zoom=16, *, area=AREA, gsd=None, network=QUICK):
    spec = parse_imagery(f"xyz:{server.template}@{zoom}")
    return plan_xyz(spec, area, gsd=gsd, network=network, terms="mine")


def read(server, folder, zoom=16, **options):
    """The grid and the pixels of a plan of one chunk."""
    found = plan(server, zoom, **options)
    found.pixels.prepare(folder)
    (window,) = found.windows
    grid = found.grid.subgrid(window)
    return grid, found.pixels.read(grid)


def level_pixels(grid, zoom):
    """(x, y) of a grid's pixel centres in the pixels of a zoom level."""
    row, col = np.mgrid[: grid.height, : grid.width] + 0.5
    to_mercator = Transformer.from_crs(grid.crs, CRS.from_epsg(3857), always_xy=True)
    x, y = to_mercator.transform(grid.west + col * grid.gsd, grid.north - row * grid.gsd)
    scale = 256 * 2**zoom / (2 * HALF_WORLD)
    return (x + HALF_WORLD) * scale, (HALF_WORLD - y) * scale


# What is asked for


@pytest.mark.parametrize(
    ("template", "address"),
    [
        ("https://a.org/{z}/{x}/{y}.png", "https://a.org/3/5/2.png"),
        ("https://{s}.a.org/{z}/{x}/{-y}.jpg?key=1", "https://b.a.org/3/5/5.jpg?key=1"),
    ],
)
def test_addresses(template, address):
    assert Tile(3, row=2, col=5).address(template) == address


def test_nothing_is_asked_for_a_plan():
    with TileServer(ramp) as server:
        found = plan(server)
        assert server.requests == []
    # 2.39 m at the equator, halved by the latitude.
    assert found.grid.gsd == pytest.approx(2.39 * math.cos(math.radians(60.166)), rel=0.02)
    assert found.items == 12
    assert (found.licence, found.attribution, found.date) == ("mine", "mine", None)


@pytest.mark.parametrize(
    ("gsd", "zoom"), [(0.3, 16), (1.2, 16), (2.3, 16), (2.5, 15), (4.9, 14), (1e6, 0)]
)
def test_coarse_pixels_are_read_from_lower_zooms(gsd, zoom):
    with TileServer(ramp) as server:
        found = plan(server, gsd=gsd, area=shapely.box(24.940, 60.164, 24.941, 60.165))
    assert f"zoom {zoom} of" in found.what
    assert found.grid.gsd == max(gsd, 1.2)  # finer pixels than the tiles have are not made


def test_very_many_tiles_are_refused():
    spec = XyzImagery("https://a.org/{z}/{x}/{y}.png", 19)
    area = shapely.box(24.5, 60.0, 25.0, 60.3)
    with pytest.raises(InputError, match=r"more than 20000 tiles of a.org.*lower zoom"):
        plan_xyz(spec, area, gsd=None, network=QUICK, terms=None)


def test_each_tile_is_asked_for_once_and_two_at_a_time(tmp_path):
    lock, running, most = threading.Lock(), [], []

    def slowly(*tile):
        with lock:
            running.append(tile)
            most.append(len(running))
        time.sleep(0.02)
        with lock:
            running.remove(tile)
        return ramp(*tile)

    with TileServer(slowly) as server:
        found = plan(server, zoom=17)
        found.pixels.prepare(tmp_path)
        assert len(server.requests) == found.items == len(set(server.paths()))
        found.pixels.prepare(tmp_path)
        assert len(server.requests) == found.items
        agents = {request.headers["User-Agent"] for request in server.requests}
    assert max(most) <= 2
    assert all(agent.startswith("geolink/") for agent in agents)


# Pixels


def test_pixels_lie_where_they_are(tmp_path):
    with TileServer(ramp) as server:
        grid, found = read(server, tmp_path)
    x, y = level_pixels(grid, 16)
    expected = np.stack([x, y]) / 4 % 256
    difference = np.abs(found.values[:2] + 0.5 - expected)
    inside = (expected > 4).all(axis=0) & (expected < 252).all(axis=0)  # away from the jump to 0
    assert found.valid.all()
    assert inside.mean() > 0.85
    # A grey level is four pixels: less than one pixel beyond the rounding of the pattern.
    assert difference[:, inside].max() < 0.75
    assert (found.values[2] == 16).all()


def test_chunks_agree_where_they_meet(tmp_path):
    with TileServer(ramp) as server:
        found = plan(server)
        found.pixels.prepare(tmp_path)
    whole = found.pixels.read(found.grid)
    for window in found.grid.blocks(100):
        part = found.pixels.read(found.grid.subgrid(window))
        np.testing.assert_array_equal(part.valid, whole.valid[window.slices])
        difference = part.values.astype(int) - whole.values[:, *window.slices]
        assert np.abs(difference).max() <= 1


def test_places_without_a_tile_stay_empty(tmp_path, caplog):
    with TileServer(ramp) as server:
        gone = plan(server).pixels._tiles[0]

    def partly(zoom, col, row):
        return None if (row, col) == (gone.row, gone.col) else flat(zoom, col, row)

    with TileServer(partly) as server:
        grid, found = read(server, tmp_path)
    x, y = level_pixels(grid, 16)
    inside = (np.floor(x / 256) == gone.col) & (np.floor(y / 256) == gone.row)
    assert inside.any()
    # The edge itself may fall on either side.
    assert (found.valid != ~inside).mean() < 0.01
    assert "no tile at 1 of 12 places" in caplog.text
    colours = found.values[:, found.valid]
    assert (colours[2] == 9).all()  # nothing of the missing tile's black is mixed in


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("RGB", "JPEG"), ("RGB", "WEBP"), ("L", "PNG"), ("P", "PNG"), ("LA", "PNG")],
)
def test_formats(tmp_path, mode, kind):
    packed = io.BytesIO()
    Image.new("RGB", (256, 256), (90, 90, 90)).convert(mode, dither=Image.Dither.NONE).save(
        packed, kind
    )
    with TileServer(ramp) as server:
        server.answer = lambda request: Reply(packed.getvalue(), "image/any")
        _, found = read(server, tmp_path)
    assert found.valid.all()
    assert np.ptp(found.values[0]) == 0
    assert np.abs(found.values.astype(int) - 90).max() <= (20 if mode == "P" else 2)


def test_transparent_pixels_are_empty(tmp_path):
    def half(zoom, col, row):
        pixels = np.full((256, 256, 4), 200, dtype=np.uint8)
        pixels[..., 3] = np.where(np.arange(256) < 128, 255, 0)
        return pixels

    with TileServer(half) as server:
        grid, found = read(server, tmp_path)
    x, _ = level_pixels(grid, 16)
    assert (found.valid != (x % 256 < 128)).mean() < 0.02
    assert (found.values[:, found.valid] == 200).all()
    assert (found.values[:, ~found.valid] == 0).all()


def test_tiles_of_512_pixels(tmp_path):
    def fine(zoom, col, row):
        return ramp(zoom, col, row).repeat(2, axis=0).repeat(2, axis=1)

    with TileServer(ramp) as server:
        _, plain = read(server, tmp_path)
    other = tmp_path / "fine"
    other.mkdir()
    with TileServer(fine) as server:
        _, found = read(server, other)
    difference = np.abs(found.values.astype(int) - plain.values)
    assert np.median(difference) == 0
    assert (difference > 1).mean() < 0.1  # where the pattern jumps


# What goes wrong


def test_no_tile_at_all(tmp_path):
    with (
        TileServer(lambda *tile: None) as server,
        pytest.raises(UnavailableError, match="no tile of this area; take a lower zoom"),
    ):
        read(server, tmp_path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (BUSY, "429"),
        (BROKEN, "500"),
        (HTML, "no sound PNG, JPEG or WebP"),
        (CUT, "broke the connection off"),
        (slow(3), "silent for 1 s"),
    ],
)
def test_a_server_that_answers_wrongly(tmp_path, fault, message):
    with TileServer(ramp) as server:
        server.fail("*", fault)
        with pytest.raises(UnavailableError, match=message) as error:
            read(server, tmp_path)
        assert "\n" not in str(error.value)
        server.heal()
        _, found = read(server, tmp_path)
        assert found.valid.all()


def test_a_busy_server_is_asked_again_later(tmp_path):
    with TileServer(ramp) as server:
        server.fail("*", BUSY, times=1)
        started = time.monotonic()
        read(server, tmp_path, network=Network(timeout_s=1.0, retries=2))
    assert time.monotonic() - started >= 1.0  # its Retry-After


@pytest.mark.parametrize("size", [(256, 200), (4_000, 4_000)])
def test_pictures_that_are_no_map_tiles(tmp_path, size):
    packed = io.BytesIO()
    Image.new("1", size).save(packed, "PNG")
    with TileServer(ramp) as server:
        server.answer = lambda request: Reply(packed.getvalue(), "image/png")
        with pytest.raises(UnavailableError, match="of a map tile's size"):
            read(server, tmp_path)


def test_tiles_of_several_sizes(tmp_path):
    def mixed(zoom, col, row):
        return ramp(zoom, col, row)[: 256 // (1 + col % 2), : 256 // (1 + col % 2)]

    with (
        TileServer(mixed) as server,
        pytest.raises(UnavailableError, match="differ in size"),
    ):
        read(server, tmp_path)
