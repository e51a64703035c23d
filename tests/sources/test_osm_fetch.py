import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from osm_elements import same
from servers import BROKEN, BUSY, CUT, HTML, NOT_FOUND, WRONG_BYTES, FileServer, slow
from shapely import box

from geolink.errors import InputError, UnavailableError
from geolink.grid import Bounds
from geolink.sources import osm_fetch
from geolink.sources.cache import Cache
from geolink.sources.extracts import extract_called
from geolink.sources.network import Network
from geolink.sources.osm import read_osm
from geolink.sources.osm_fetch import fetch_extract, fetch_osm, plan_osm
from geolink.sources.pbf import extract_timestamp
from geolink.sources.places import (
    Place,
    place_from_bbox,
    place_from_extract,
    sample_extract,
    sample_place,
)

HELSINKI = "/osm/bbbike/Helsinki/Helsinki.osm.pbf"
CHECKSUMS = "/osm/bbbike/Helsinki/CHECKSUM.txt"
LIECHTENSTEIN = "/europe/liechtenstein-latest.osm.pbf"
ONLINE = Network(retries=1)
OFFLINE = Network(offline=True)
CENTRE = Place("centre", box(24.940, 60.166, 24.950, 60.172))


def city(name: str) -> Place:
    extract = extract_called(name)
    assert extract is not None
    return place_from_extract(extract)


def md5(payload: bytes) -> str:
    return hashlib.md5(payload).hexdigest()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    payload = sample_extract().read_bytes()
    sums = [f"{md5(b'other')}  Helsinki.osm.gz", f"{md5(payload)}  Helsinki.osm.pbf", ""]
    with FileServer({HELSINKI: payload, CHECKSUMS: "\n".join(sums).encode()}) as server:
        monkeypatch.setenv("GEOLINK_OSM_MIRROR", server.url)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


# Right answers


def test_a_city_is_fetched_once_with_its_provenance(mirror: FileServer, cache: Cache) -> None:
    place = city("Helsinki")
    entry = fetch_osm(place, cache=cache, network=ONLINE)
    assert entry.path.read_bytes() == sample_extract().read_bytes()
    assert entry.path.name == "Helsinki.osm.pbf"
    assert entry.source == mirror.url + HELSINKI
    assert entry.info.description == "Helsinki (BBBike)"
    assert entry.info.licence == "ODbL-1.0"
    assert entry.info.attribution == "© OpenStreetMap contributors"
    assert entry.info.date == "2024-05-06T10:00:00Z"  # Last-Modified: the header has no date
    assert cache.verify(entry) == []
    asked = len(mirror.requests)
    again = fetch_osm(place, cache=cache, network=OFFLINE)
    assert again.path == entry.path
    assert len(mirror.requests) == asked


def test_the_date_of_the_header_comes_first(
    shared_data: Path, mirror: FileServer, cache: Cache
) -> None:
    payload = (shared_data / "osm/liechtenstein.osm.pbf").read_bytes()
    mirror.files |= {
        LIECHTENSTEIN: payload,
        LIECHTENSTEIN + ".md5": f"{md5(payload)}  liechtenstein-240506.osm.pbf\n".encode(),
    }
    entry = fetch_osm(city("Liechtenstein"), cache=cache, network=ONLINE)
    assert entry.info.date == "2015-07-27T21:14:01Z"
    assert LIECHTENSTEIN + ".md5" in mirror.paths()


def test_a_place_is_served_by_the_smallest_extract_around_it(
    mirror: FileServer, cache: Cache
) -> None:
    entry = fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert entry.info.description == "Helsinki (BBBike)"


def test_an_extract_serves_every_place_that_it_covers(mirror: FileServer, cache: Cache) -> None:
    first = fetch_osm(CENTRE, cache=cache, network=ONLINE)
    mirror.stop()
    other = place_from_bbox(Bounds(24.955, 60.168, 24.960, 60.170))
    assert fetch_osm(other, cache=cache, network=OFFLINE).path == first.path
    with pytest.raises(UnavailableError, match=r"Singapore \(BBBike\)"):
        fetch_osm(place_from_bbox(Bounds(103.85, 1.28, 103.86, 1.29)), cache=cache, network=OFFLINE)


def test_two_that_fetch_at_once_download_once(mirror: FileServer, cache: Cache) -> None:
    mirror.fail(HELSINKI, slow(0.05), times=1)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(fetch_osm, CENTRE, cache=Cache(cache.root), network=Network())
            for _ in range(2)
        ]
        one, two = (job.result() for job in jobs)
    assert one.path == two.path
    assert mirror.paths("GET").count(HELSINKI) == 1


def test_files_registered_under_the_name_come_first(cache: Cache, tmp_path: Path) -> None:
    mine = tmp_path / "mine.osm.pbf"
    mine.write_bytes(sample_extract().read_bytes())
    info = osm_fetch.SourceInfo("mine.osm.pbf")
    cache.register("osm", "centre", mine, info=info)
    assert fetch_osm(CENTRE, cache=cache, network=OFFLINE).path == mine
    assert plan_osm(CENTRE, cache=cache, network=OFFLINE).description == "mine.osm.pbf"


# Offline


def test_offline_names_what_is_missing_and_the_command(cache: Cache) -> None:
    with pytest.raises(
        UnavailableError, match=r'Singapore \(BBBike\).*geolink fetch --city "Singapore, BBBike"'
    ):
        fetch_osm(city("singapore"), cache=cache, network=OFFLINE)
    with pytest.raises(UnavailableError, match=r"fetch --bbox 24\.94,60\.166,24\.95,60\.172"):
        fetch_osm(CENTRE, cache=cache, network=OFFLINE)
    assert cache.entries() == []


def test_a_dead_mirror_is_named(mirror: FileServer, cache: Cache) -> None:
    mirror.stop()
    with pytest.raises(UnavailableError, match=r"Helsinki \(BBBike\).*127\.0\.0\.1"):
        fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert cache.entries() == []


# Failures of the server


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (NOT_FOUND, "404"),
        (BROKEN, "500"),
        (BUSY, "429"),
        (HTML, "web page"),
        (WRONG_BYTES, "checksum"),
    ],
    ids=["missing", "broken", "busy", "page", "wrong"],
)
def test_failures_are_named_and_leave_nothing_broken(
    mirror: FileServer, cache: Cache, fault: object, message: str
) -> None:
    mirror.fail(HELSINKI, fault)
    with pytest.raises(UnavailableError, match=rf"Helsinki \(BBBike\).*{message}"):
        fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert cache.entries() == []
    mirror.heal()
    entry = fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert entry.path.read_bytes() == sample_extract().read_bytes()


def test_a_cut_download_is_resumed(mirror: FileServer, cache: Cache) -> None:
    mirror.fail(HELSINKI, CUT, times=1)
    entry = fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert entry.path.read_bytes() == sample_extract().read_bytes()
    assert any(request.range for request in mirror.requests if request.path == HELSINKI)


def test_a_second_command_goes_on_where_the_first_was_cut(mirror: FileServer, cache: Cache) -> None:
    mirror.fail(HELSINKI, CUT, times=1)
    mirror.fail(HELSINKI, NOT_FOUND, times=1)
    with pytest.raises(UnavailableError):
        fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert cache.entries() == []
    before = len(mirror.requests)
    entry = fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert entry.path.read_bytes() == sample_extract().read_bytes()
    gets = [r for r in mirror.requests[before:] if r.path == HELSINKI and r.method == "GET"]
    assert [bool(request.range) for request in gets] == [True]


# Checksums


def test_without_checksum_the_size_must_do(mirror: FileServer, cache: Cache) -> None:
    del mirror.files[CHECKSUMS]
    assert fetch_osm(CENTRE, cache=cache, network=ONLINE).size == sample_extract().stat().st_size


def test_without_checksum_other_bytes_are_still_found_out(mirror: FileServer, cache: Cache) -> None:
    del mirror.files[CHECKSUMS]
    mirror.fail(HELSINKI, WRONG_BYTES)
    with pytest.raises(UnavailableError, match=r"Helsinki.*no OSM PBF file"):
        fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert cache.entries() == []


def test_a_checksum_that_cannot_be_had_loses_no_download(mirror: FileServer, cache: Cache) -> None:
    mirror.fail(CHECKSUMS, BROKEN)
    with pytest.raises(UnavailableError, match=r"checksum of the OSM extract Helsinki.*500"):
        fetch_osm(CENTRE, cache=cache, network=ONLINE)
    assert cache.entries() == []
    mirror.heal()
    sent = mirror.bytes_sent
    assert fetch_osm(CENTRE, cache=cache, network=ONLINE).size == sample_extract().stat().st_size
    assert mirror.bytes_sent - sent < 1000


@pytest.mark.parametrize(
    "listed",
    [
        "MD5 (Helsinki.osm.pbf) = {}",
        "{} *Helsinki.osm.pbf",
        "{}  ./Helsinki.osm.pbf\n{}  Helsinki.osm.pbf.zip",
    ],
)
def test_checksums_are_read_in_every_usual_form(
    mirror: FileServer, cache: Cache, listed: str
) -> None:
    right, wrong = md5(mirror.files[HELSINKI]), md5(b"wrong")
    mirror.files[CHECKSUMS] = listed.format(wrong, right).encode()
    with pytest.raises(UnavailableError, match="checksum that is published"):
        fetch_osm(CENTRE, cache=cache, network=ONLINE)
    mirror.files[CHECKSUMS] = listed.format(right, wrong).encode()
    assert fetch_osm(CENTRE, cache=cache, network=ONLINE).files


# Crops


@pytest.fixture
def crops_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops small extracts too, to a little more than the place."""
    monkeypatch.setattr(osm_fetch, "_CROPPED_FROM_BYTES", 0)
    monkeypatch.setattr(osm_fetch, "CROP_MARGIN", 2_300.0)


@pytest.mark.usefixtures("crops_pay")
def test_a_crop_holds_what_is_read_of_the_extract(
    shared_data: Path, mirror: FileServer, cache: Cache
) -> None:
    original = shared_data / "osm/liechtenstein.osm.pbf"
    mirror.files[LIECHTENSTEIN] = original.read_bytes()
    vaduz = Place("vaduz", box(9.515, 47.135, 9.530, 47.145))
    entry = fetch_osm(vaduz, cache=cache, network=ONLINE)
    assert entry.details["form"] == "crop"
    assert 0 < entry.size < 0.7 * original.stat().st_size
    assert entry.info.date == "2015-07-27T21:14:01Z"
    assert entry.info.description == "Liechtenstein (Geofabrik), around vaduz"
    assert extract_timestamp(entry.path) == extract_timestamp(original)
    around = vaduz.bounds_metric.buffered(224)
    whole = read_osm(original, around, crs=vaduz.crs)
    crop = read_osm(entry.path, around, crs=vaduz.crs)
    assert same(crop, whole)
    assert crop.info.date == whole.info.date
    assert crop.dropped == whole.dropped
    assert len(whole.polygon) > 100


@pytest.mark.usefixtures("crops_pay")
def test_a_crop_is_used_again(mirror: FileServer, cache: Cache) -> None:
    tiny = Place("tiny", box(24.944, 60.168, 24.946, 60.169))
    entry = fetch_osm(tiny, cache=cache, network=ONLINE)
    assert entry.details["form"] == "crop"
    whole = cache.find("osm", "bbbike-helsinki")
    assert whole is not None
    cache.remove(whole)
    within = Place("within", box(24.9445, 60.1685, 24.9455, 60.1688))
    assert fetch_osm(tiny, cache=cache, network=OFFLINE).path == entry.path
    assert fetch_osm(within, cache=cache, network=OFFLINE).path == entry.path
    with pytest.raises(UnavailableError):
        fetch_osm(CENTRE, cache=cache, network=OFFLINE)


@pytest.mark.usefixtures("crops_pay")
def test_a_damaged_extract_is_no_traceback(mirror: FileServer, cache: Cache) -> None:
    tiny = Place("tiny", box(24.944, 60.168, 24.946, 60.169))
    helsinki = extract_called("Helsinki")
    assert helsinki is not None
    whole = fetch_extract(helsinki, cache=cache, network=ONLINE)
    payload = bytearray(whole.path.read_bytes())
    payload[300_000:] = bytes(len(payload) - 300_000)
    whole.path.write_bytes(payload)
    with pytest.raises(InputError, match=r"Helsinki\.osm\.pbf.*not a readable"):
        fetch_osm(tiny, cache=cache, network=OFFLINE)
    assert [entry.name for entry in cache.entries()] == [whole.name]


@pytest.mark.usefixtures("crops_pay")
def test_a_place_without_objects_has_an_empty_crop(mirror: FileServer, cache: Cache) -> None:
    bare = Place("bare", box(24.80, 60.20, 24.801, 60.201))
    entry = fetch_osm(bare, cache=cache, network=ONLINE)
    assert entry.details["form"] == "crop"
    assert len(read_osm(entry.path, bare.bounds_metric, crs=bare.crs).point) == 0


@pytest.mark.usefixtures("crops_pay")
def test_a_city_as_a_whole_is_not_cropped(mirror: FileServer, cache: Cache) -> None:
    entry = fetch_osm(city("Helsinki"), cache=cache, network=ONLINE)
    assert entry.details["form"] == "extract"


def test_places_of_one_name_have_crops_of_their_own(
    mirror: FileServer, cache: Cache, crops_pay: None
) -> None:
    one = fetch_osm(Place("a", box(24.944, 60.168, 24.946, 60.169)), cache=cache, network=ONLINE)
    two = fetch_osm(Place("a", box(24.954, 60.168, 24.956, 60.169)), cache=cache, network=ONLINE)
    assert one.path != two.path
    assert one.details["area"] != two.details["area"]


# Plans


def test_plans_need_no_network_where_the_size_is_known(cache: Cache) -> None:
    plan = plan_osm(city("Liechtenstein"), cache=cache, network=OFFLINE)
    assert plan.description == "Liechtenstein (Geofabrik)"
    assert plan.size_bytes == 3_460_301
    assert (plan.licence, plan.date) == ("ODbL-1.0", None)
    unknown = plan_osm(city("Singapore"), cache=cache, network=OFFLINE)
    assert unknown.size_bytes is None


def test_an_unknown_size_is_asked_for(mirror: FileServer, cache: Cache) -> None:
    size = sample_extract().stat().st_size
    assert plan_osm(CENTRE, cache=cache, network=ONLINE).size_bytes == size
    assert mirror.paths("GET") == []
    mirror.fail(HELSINKI, NOT_FOUND)
    assert plan_osm(CENTRE, cache=cache, network=ONLINE).size_bytes is None
    mirror.stop()
    with pytest.raises(UnavailableError, match=r"extract Helsinki .* cannot be reached"):
        plan_osm(CENTRE, cache=cache, network=ONLINE)


def test_what_is_here_costs_nothing(mirror: FileServer, cache: Cache) -> None:
    helsinki = extract_called("Helsinki")
    assert helsinki is not None
    fetch_extract(helsinki, cache=cache, network=ONLINE)
    plan = plan_osm(sample_place(), cache=cache, network=OFFLINE)
    assert (plan.size_bytes, plan.date) == (0, "2024-05-06T10:00:00Z")
