"""The test servers answer real clients as the public services do."""

import json

import numpy as np
import pystac_client
import pytest
import rasterio
import requests
import shapely
from affine import Affine
from huggingface_hub import hf_hub_download, snapshot_download
from rasterio.io import MemoryFile
from servers import (
    BROKEN,
    BUSY,
    CUT,
    HTML,
    WRONG_BYTES,
    FileServer,
    GDrive,
    Geocoder,
    HubServer,
    Overpass,
    StacServer,
    TileServer,
    geocoded,
    slow,
)
from synthetic import pixels, write_raster

PAYLOAD = bytes(range(256)) * 1000


@pytest.fixture
def files():
    with FileServer({"/a.bin": PAYLOAD}) as server:
        yield server


@pytest.mark.parametrize(
    ("span", "expected"),
    [("0-9", PAYLOAD[:10]), ("1000-", PAYLOAD[1000:]), ("-10", PAYLOAD[-10:])],
)
def test_ranges(files, span, expected):
    reply = requests.get(files.url + "/a.bin", headers={"Range": f"bytes={span}"}, timeout=5)
    assert reply.status_code == 206
    assert reply.content == expected
    assert reply.headers["Content-Range"].endswith(f"/{len(PAYLOAD)}")
    assert files.requests[-1].range == f"bytes={span}"


def test_ranges_beyond_the_end_and_of_another_version(files):
    address = files.url + "/a.bin"
    beyond = requests.get(address, headers={"Range": "bytes=999999-"}, timeout=5)
    assert (beyond.status_code, beyond.content) == (416, b"")
    other = {"Range": "bytes=5-", "If-Range": '"another"'}
    assert requests.get(address, headers=other, timeout=5).content == PAYLOAD
    same = {"Range": "bytes=5-", "If-Range": beyond.headers.get("ETag", "")}
    head = requests.head(address, timeout=5)
    same["If-Range"] = head.headers["ETag"]
    assert int(head.headers["Content-Length"]) == len(PAYLOAD)
    assert requests.get(address, headers=same, timeout=5).status_code == 206


@pytest.mark.parametrize(
    ("fault", "code", "content"),
    [(BROKEN, 500, None), (BUSY, 429, None), (HTML, 200, None), (slow(0.001), 200, PAYLOAD)],
)
def test_faults_pass(files, fault, code, content):
    files.fail("/a.*", fault, times=1)
    reply = requests.get(files.url + "/a.bin", timeout=5)
    assert reply.status_code == code
    assert content is None or reply.content == content
    assert requests.get(files.url + "/a.bin", timeout=5).content == PAYLOAD


def test_cut_and_wrong_bytes(files):
    files.fail("/a.bin", CUT, times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(files.url + "/a.bin", timeout=5)
    assert files.bytes_sent == len(PAYLOAD) // 2
    right = requests.head(files.url + "/a.bin", timeout=5).headers["ETag"]
    files.fail("/a.bin", WRONG_BYTES)
    wrong = requests.get(files.url + "/a.bin", timeout=5)
    assert len(wrong.content) == len(PAYLOAD)
    assert wrong.content != PAYLOAD
    assert wrong.headers["ETag"] == right
    files.heal()
    assert requests.get(files.url + "/a.bin", timeout=5).content == PAYLOAD


def test_stopping_ends_open_connections(files):
    with requests.Session() as session:
        session.get(files.url + "/a.bin", timeout=5)
        files.stop()
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(files.url + "/a.bin", timeout=5)


def test_stac_api(tmp_path):
    cog = write_raster(tmp_path / "visual.tif", tiled=True, blockxsize=128, blockysize=128)
    with StacServer(page_size=2) as server:
        for day, clouds in enumerate((5.0, 80.0, 1.0, 30.0, 12.0), start=1):
            date = f"2024-05-0{day}T10:00:00Z"
            server.add_scene(f"S{day}", {"visual": cog}, date=date, cloud_cover=clouds)
        client = pystac_client.Client.open(server.url)
        assert [c.id for c in client.get_collections()] == ["sentinel-2-l2a"]
        search = {
            "collections": ["sentinel-2-l2a"],
            "bbox": (24.9, 60.1, 25.0, 60.2),
            "datetime": "2024-05-01/2024-05-04",
        }
        found = list(client.search(**search, query={"eo:cloud_cover": {"lt": 50}}).items())
        assert [item.id for item in found] == ["S4", "S3", "S1"]
        by_get = client.search(**search, method="GET", sortby="properties.eo:cloud_cover")
        assert [item.id for item in by_get.items()] == ["S3", "S1", "S4", "S2"]
        assert not list(client.search(bbox=(0, 0, 1, 1)).items())
        address = f"/vsicurl/{found[0].assets['visual'].href}"
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            rasterio.open(address) as raster,
        ):
            np.testing.assert_array_equal(raster.read(), pixels())
        assert any(request.range for request in server.requests)


def test_tiles(tmp_path):
    whole = write_raster(
        tmp_path / "world.tif",
        np.full((3, 64, 64), 77, np.uint8),
        crs="EPSG:4326",
        transform=Affine(0.5, 0, 0, 0, -0.5, 32),
    )
    with TileServer(whole) as server:
        packed = requests.get(server.template.format(z=5, x=16, y=15), timeout=5).content
        with MemoryFile(packed) as file, file.open() as png:
            assert png.shape == (256, 256)
            assert png.read(1)[128, 128] == 77
        assert requests.get(server.template.format(z=5, x=0, y=0), timeout=5).status_code == 404


def test_hub(tmp_path, monkeypatch):
    repo = {"card.json": b"{}", "sub/model.safetensors": PAYLOAD}
    with HubServer({"owner/name": repo}) as server:
        options = {"endpoint": server.url, "cache_dir": tmp_path / "hub"}
        folder = snapshot_download("owner/name", **options)
        path = hf_hub_download("owner/name", "sub/model.safetensors", **options)
        assert path.startswith(folder)
        with open(path, "rb") as file:
            assert file.read() == PAYLOAD
        pinned = server.commit("owner/name")
        assert snapshot_download("owner/name", revision=pinned, **options) == folder


def test_geocoder():
    area = shapely.box(103.6, 1.2, 104.0, 1.5)
    with Geocoder(geocoded("Singapore", area), geocoded("Singapore, Michigan", area)) as server:
        query = {"q": "singapore", "format": "jsonv2", "polygon_geojson": 1, "limit": 5}
        found = requests.get(server.url + "/search", params=query, timeout=5).json()
        assert [place["name"] for place in found] == ["Singapore", "Singapore"]
        assert shapely.from_geojson(json.dumps(found[0]["geojson"])).equals(area)
        assert requests.get(server.url + "/search", params={"q": "x"}, timeout=5).json() == []


def test_overpass_and_drive():
    with Overpass(b'{"elements": []}') as server:
        address = server.url + "/api/interpreter"
        reply = requests.post(address, data={"data": "[out:json];"}, timeout=5)
        assert reply.json() == {"elements": []}
        assert server.queries == ["[out:json];"]
    with GDrive({"ID": PAYLOAD, "small": b"s"}, large=1000) as server:
        address = server.url + "/uc"
        query = {"id": "ID", "export": "download"}
        assert "download-form" in requests.get(address, params=query, timeout=5).text
        confirmed = requests.get(
            server.url + "/download", params=query | {"confirm": "t"}, timeout=5
        )
        assert confirmed.content == PAYLOAD
        assert requests.get(address, params={"id": "small"}, timeout=5).content == b"s"
