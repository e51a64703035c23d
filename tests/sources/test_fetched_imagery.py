import json
from datetime import date, timedelta

import numpy as np
import pytest
from scenes import (
    NORTH,
    SIDE,
    UTM35,
    WEST,
    add_scene,
    area_of,
    classes,
    hashes,
    noise,
    write_cog,
)
from servers import BROKEN, NOT_FOUND, StacServer, TileServer

from geolink.errors import ConfigError, CoverageError, UnavailableError
from geolink.grid import GridSpec
from geolink.sources import chunks
from geolink.sources.cache import Cache
from geolink.sources.fetched_imagery import fetch_imagery, plan_imagery
from geolink.sources.imagery import open_imagery
from geolink.sources.network import Network
from geolink.sources.specs import parse_imagery

AREA = area_of(150, 150, 130, 140)  # with the margin about 400 x 400 pixels
WANTED = GridSpec(UTM35, WEST + 1500, NORTH - 1500, 10.0, 130, 140)
QUICK = Network(timeout_s=2.0, retries=0)
SPEC = "sentinel2:2025-01-01/2025-12-31"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of 256 pixels: the area has 2 x 2 of them."""
    monkeypatch.setattr(chunks, "CHUNK_SIDE", 256)


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A catalogue with two scenes; the first is cloudy in the north and ends in the west."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    with StacServer() as server:
        monkeypatch.setenv("GEOLINK_STAC_URL", server.url)
        best = noise(1)
        best[:, :, :200] = 0
        scl = classes(cloud=(0, 0, 180, SIDE), nothing=(0, 0, SIDE, 200))
        add_scene(server, folder, "a", best, scl, date="2025-06-01", cloud_cover=5.0)
        add_scene(server, folder, "b", noise(2), classes(), date="2025-07-01", cloud_cover=9.0)
        yield server


def mosaic():
    """What the two scenes show in WANTED."""
    row, col = np.mgrid[:SIDE, :SIDE]
    whole = np.where((row < 180) | (col < 200), noise(2), noise(1))
    return whole[:, 150:280, 150:290]


def fetch(cache, spec=SPEC, *, area=AREA, gsd=None, network=QUICK, terms=None):
    return fetch_imagery(
        parse_imagery(spec),
        area,
        name="town",
        gsd=gsd,
        cache=cache,
        network=network,
        accept_terms=terms,
    )


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def staged(cache):
    """Where an interrupted fetch left what it had."""
    return cache.root / "imagery" / ".town.staging"


def test_an_entry_reads_as_one_seamless_raster(server, cache):
    entry = fetch(cache)
    imagery = open_imagery(entry.path)
    tile = imagery.read(WANTED)
    assert tile.valid.all()
    np.testing.assert_array_equal(tile.rgb, mosaic())
    assert (imagery.crs, imagery.native_gsd, imagery.scale) == (UTM35, 10.0, None)
    assert len(imagery.rasters) == 1
    assert len(list(entry.path.rglob("*.tif"))) == 4


def test_no_seam_shows_between_chunks(server, cache, monkeypatch):
    """Interpolated halfway between pixels, also where two chunks meet."""
    chopped = open_imagery(fetch(cache).path)
    monkeypatch.setattr(chunks, "CHUNK_SIDE", 1024)
    whole = open_imagery(fetch(Cache(cache.root.with_name("whole"))).path)
    for gsd in (7.3, 20.0, 50.0):
        side = 2400 // round(gsd)  # to where corners farther from the area are left out
        grid = GridSpec(UTM35, WEST + 1503, NORTH - 1504, gsd, side, side)
        np.testing.assert_array_equal(chopped.read(grid).rgb, whole.read(grid).rgb)


def test_provenance(server, cache):
    entry = fetch(cache)
    assert entry.kind == "imagery"
    assert entry.info.description == "Sentinel-2 L2A"
    assert entry.info.licence == "Copernicus Sentinel data terms"
    assert entry.info.attribution == "Contains modified Copernicus Sentinel data 2025"
    assert entry.info.date == "2025-06-01/2025-07-01"
    assert not entry.info.simulated
    assert entry.source == server.url
    assert entry.details["dates"] == ["2025-01-01", "2025-12-31"]
    in_file = open_imagery(entry.path).info
    assert (in_file.date, in_file.attribution) == ("2025-07-01", entry.info.attribution)
    assert cache.verify(entry) == []


def test_only_scenes_that_are_used_give_the_date(server, cache):
    server.items = [item for item in server.items if item["id"] == "b"]
    late = {**server.items[0], "id": "c"}
    late["properties"] = {**late["properties"], "eo:cloud_cover": 60.0}
    late["properties"]["datetime"] = "2025-11-11T00:00:00Z"
    server.items.append(late)
    assert plan_imagery(parse_imagery(SPEC), AREA, gsd=None, network=QUICK).date == (
        "2025-07-01/2025-11-11"
    )
    assert fetch(cache).info.date == "2025-07-01"


def test_the_same_request_is_answered_without_the_network(server, cache):
    first = fetch(cache)
    server.requests.clear()
    again = fetch(cache, network=Network(offline=True))
    assert again == first
    assert server.requests == []


def test_another_request_replaces_the_entry(server, cache):
    fetch(cache)
    coarse = fetch(cache, gsd=20.0)
    assert open_imagery(coarse.path).native_gsd == 20.0
    assert [entry.details["gsd"] for entry in cache.entries()] == [20.0]


def test_files_are_the_same_in_every_run(server, cache, tmp_path):
    first, second = fetch(cache), fetch(Cache(tmp_path / "other"))
    assert first.files == second.files


def test_offline_and_not_there(server, cache):
    with pytest.raises(UnavailableError, match=r"town.*--offline.*geolink fetch"):
        fetch(cache, network=Network(offline=True))
    assert server.requests == []
    assert cache.entries() == []


def test_progress_counts_chunks(server, cache):
    seen = []
    fetch(cache, network=Network(progress=lambda *told: seen.append(told)))
    total = seen[0][2]
    assert seen == [("fetching imagery", done, total) for done in range(1, total + 1)]


# Interruptions


def test_a_fetch_goes_on_where_it_stopped(server, cache, tmp_path):
    """The second scene is missing for a while: chunks that the first one fills are kept."""
    server.fail("*b-TCI.tif", NOT_FOUND)
    with pytest.raises(UnavailableError, match=r"scene b cannot be read.*same command again"):
        fetch(cache)
    assert cache.entries() == []
    kept = {path: path.stat().st_mtime_ns for path in staged(cache).rglob("*.tif")}
    server.heal()
    server.requests.clear()
    seen = []
    entry = fetch(cache, network=Network(progress=lambda *told: seen.append(told)))
    assert len(seen) == seen[0][2] - len(kept)
    for path, when in kept.items():
        assert (entry.path / path.relative_to(staged(cache))).stat().st_mtime_ns == when
    unbroken = fetch(Cache(tmp_path / "unbroken"))
    assert entry.files == unbroken.files


def test_chunks_are_kept_when_the_user_stops(server, cache, monkeypatch):
    real = chunks._fetch_chunk
    started = iter((False, False, True, True))
    fetched = []

    def stopped(plan, folder, window):
        if next(started):
            raise KeyboardInterrupt
        real(plan, folder, window)
        fetched.append(window)

    monkeypatch.setattr(chunks, "_fetch_chunk", stopped)
    with pytest.raises(KeyboardInterrupt):
        fetch(cache)
    left = len(list(staged(cache).rglob("*.tif")))
    assert left == len(fetched) == 2
    monkeypatch.setattr(chunks, "_fetch_chunk", real)
    seen = []
    fetch(cache, network=Network(progress=lambda *told: seen.append(told)))
    assert len(seen) == seen[0][2] - left
    assert not staged(cache).exists()


def test_an_interrupted_fetch_keeps_its_dates(server, cache, monkeypatch):
    """Without dates they are counted from today, which may be another day when it goes on."""
    for item in server.items:
        item["properties"]["datetime"] = (
            date.today() - timedelta(days=9)
        ).isoformat() + "T00:00:00Z"
    server.fail("*b-TCI.tif", NOT_FOUND)
    with pytest.raises(UnavailableError):
        fetch(cache, "sentinel2")
    note = staged(cache) / ".plan.json"
    began = json.loads(note.read_text())
    began["dates"] = ["2020-02-02", date.today().isoformat()]
    note.write_text(json.dumps(began))
    server.heal()
    entry = fetch(cache, "sentinel2")
    assert entry.details["dates"] == began["dates"]
    assert ".plan.json" not in entry.files
    # Later runs reuse what the first one fixed.
    server.requests.clear()
    assert fetch(cache, "sentinel2") == entry
    assert server.requests == []


@pytest.mark.parametrize("change", ["request", "catalogue", "note"])
def test_chunks_of_another_plan_are_not_kept(server, cache, tmp_path, change):
    server.fail("*b-TCI.tif", NOT_FOUND)
    with pytest.raises(UnavailableError):
        fetch(cache)
    (staged(cache) / "chunks" / "stray.tif").write_bytes(b"")
    server.heal()
    gsd = None
    if change == "request":
        gsd = 20.0
    elif change == "catalogue":
        server.items = [item for item in server.items if item["id"] == "b"]
    else:
        (staged(cache) / ".plan.json").write_text("{")
    entry = fetch(cache, gsd=gsd)
    assert "chunks/stray.tif" not in entry.files
    assert entry.files == fetch(Cache(tmp_path / "fresh"), gsd=gsd).files


def test_a_server_that_dies_leaves_no_entry(server, cache):
    server.fail("*.tif", BROKEN)
    with pytest.raises(UnavailableError, match="500"):
        fetch(cache)
    server.stop()
    with pytest.raises(UnavailableError, match="cannot be reached"):
        fetch(cache)
    assert cache.entries() == []


def test_an_area_without_a_pixel(server, cache):
    rgb = np.zeros((3, SIDE, SIDE), np.uint8)
    for name in "ab":
        write_cog(cache.root.with_name("scenes") / f"{name}-TCI.tif", rgb)
    with pytest.raises(CoverageError, match=r"Sentinel-2 L2A.* has no pixel of this area"):
        fetch(cache)
    assert cache.entries() == []


# Other values, other sources


def test_reflectances_are_scaled_once_for_the_scene(tmp_path, cache):
    bands = noise(1, dtype="uint16", top=9_000)
    assets = {
        name: write_cog(tmp_path / f"{name}.tif", band[None])
        for name, band in zip(("red", "green", "blue"), bands, strict=True)
    }
    with StacServer(licence="CC-BY-4.0") as server:
        server.add_scene("a", assets, date="2025-06-01T00:00:00Z", cloud_cover=1, collection="c")
        entry = fetch(cache, f"stac:{server.url}#c/red,green,blue")
    imagery = open_imagery(entry.path)
    assert imagery.rasters[0].dtype == "uint16"
    assert imagery.scale == pytest.approx((180, 8820), rel=0.1)
    low, high = imagery.scale
    expected = (bands[:, 150:280, 150:290] - low) * 255 / (high - low)
    tile = imagery.read(WANTED)
    assert np.abs(tile.rgb - np.clip(expected, 0, 255)).max() <= 0.5
    assert entry.info.licence == "CC-BY-4.0"


def test_tiles_need_a_note_of_their_licence(cache):
    with TileServer(lambda *tile: None) as server:
        for terms in (None, "", "  "):
            with pytest.raises(ConfigError, match="--accept-imagery-terms"):
                fetch(cache, f"xyz:{server.template}@13", terms=terms)
        assert server.requests == []


def test_tiles_as_an_entry(tmp_path, cache):
    path = write_cog(tmp_path / "ortho.tif", np.kron(noise(1, 32), np.ones((1, 16, 16), np.uint8)))
    with TileServer(path) as server:
        spec = f"xyz:{server.template}?token=hush@14"
        entry = fetch(cache, spec, terms="CC-BY 4.0, City of Helsinki")
        assert len(server.paths()) == len(set(server.paths()))
        server.requests.clear()
        assert fetch(cache, spec, network=Network(offline=True)) == entry
        assert server.requests == []
    assert entry.info.licence == entry.info.attribution == "CC-BY 4.0, City of Helsinki"
    assert all(b"hush" not in content for content in hashes(cache.root).values())
    assert not any(name.startswith(".tiles") for name in entry.files)
    tile = open_imagery(entry.path).read(WANTED)
    truth = open_imagery(path).read(WANTED)
    assert tile.valid.all()
    # Tiles of 4.8 m show squares of 160 m: away from their edges the colours are the same.
    assert np.median(np.abs(tile.rgb.astype(int) - truth.rgb)) <= 1


def test_tiles_go_on_where_they_stopped(tmp_path, cache):
    path = write_cog(tmp_path / "ortho.tif", noise(1))
    with TileServer(path) as server:
        spec = f"xyz:{server.template}@13"
        plan = plan_imagery(parse_imagery(spec), AREA, gsd=None, network=QUICK)
        server.fail("*", BROKEN, times=1)
        with pytest.raises(UnavailableError, match="500"):
            fetch(cache, spec, terms="mine")
        had = {path.name for path in (staged(cache) / ".tiles").iterdir()}
        server.requests.clear()
        fetch(cache, spec, terms="mine")
        assert len(server.requests) == plan.items - len(had)
