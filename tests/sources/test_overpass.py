import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from osm_elements import overpass_answer, same
from servers import BROKEN, BUSY, HTML, NOT_FOUND, Fault, Overpass
from shapely import MultiPolygon, box

from geolink.errors import ConfigError, UnavailableError
from geolink.grid import Bounds
from geolink.sources.cache import Cache
from geolink.sources.network import Network
from geolink.sources.osm import read_osm
from geolink.sources.overpass import fetch_overpass
from geolink.sources.pbf import extract_bounds
from geolink.sources.places import Place, place_from_bbox, sample_extract

ONLINE = Network(retries=1)
OFFLINE = Network(offline=True)
CENTRE = Place("centre", box(24.940, 60.166, 24.950, 60.172))


@pytest.fixture(scope="module")
def answer() -> bytes:
    """A few nodes of Helsinki: enough where the content does not matter."""
    whole = json.loads(overpass_answer(sample_extract()))
    return json.dumps({**whole, "elements": whole["elements"][:20]}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> Iterator[Overpass]:
    with Overpass(answer) as server:
        monkeypatch.setenv("GEOLINK_OVERPASS_URL", server.url + "/api/interpreter")
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_the_same_objects_are_read_as_from_the_extract(server: Overpass, cache: Cache) -> None:
    server.content = overpass_answer(sample_extract())
    entry = fetch_overpass(CENTRE, cache=cache, network=ONLINE)
    around = CENTRE.bounds_metric.buffered(224)
    found = read_osm(entry.path, around, crs=CENTRE.crs)
    expected = read_osm(sample_extract(), around, crs=CENTRE.crs)
    assert same(found, expected)
    assert found.dropped == expected.dropped
    assert len(found.point) > 100
    assert len(found.polygon) > 50
    assert found.info.date == entry.info.date == "2024-05-06T10:00:00Z"


def test_the_singapore_smoke_test_reads_the_same(
    shared_data: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = shared_data / "osm/singapore_bayfront.osm.pbf"
    place = place_from_bbox(extract_bounds(extract))
    with Overpass(overpass_answer(extract)) as server:
        monkeypatch.setenv("GEOLINK_OVERPASS_URL", server.url + "/api/interpreter")
        entry = fetch_overpass(place, cache=cache, network=ONLINE)
    bounds = place.bounds_metric
    assert same(
        read_osm(entry.path, bounds, crs=place.crs), read_osm(extract, bounds, crs=place.crs)
    )


def test_provenance_is_recorded(server: Overpass, cache: Cache) -> None:
    entry = fetch_overpass(CENTRE, cache=cache, network=ONLINE)
    assert entry.info.licence == "ODbL-1.0"
    assert entry.info.attribution == "© OpenStreetMap contributors"
    assert entry.info.description == "centre (Overpass)"
    assert entry.source == server.url + "/api/interpreter"
    assert cache.verify(entry) == []


def test_an_answer_is_used_again(server: Overpass, cache: Cache) -> None:
    first = fetch_overpass(CENTRE, cache=cache, network=ONLINE)
    assert fetch_overpass(CENTRE, cache=cache, network=OFFLINE) == first
    assert len(server.requests) == 1
    moved = Place("centre", box(24.951, 60.166, 24.955, 60.172))
    assert fetch_overpass(moved, cache=cache, network=ONLINE).details != first.details


def test_the_query_asks_for_what_is_read(server: Overpass, cache: Cache) -> None:
    fetch_overpass(CENTRE, cache=cache, network=ONLINE)
    (query,) = server.queries
    boxes = set(re.findall(r"\((-?\d+\.\d+(?:,-?\d+\.\d+){3})\)", query))
    assert len(boxes) == 1
    south, west, north, east = map(float, boxes.pop().split(","))
    assert 24.940 - west == pytest.approx(2000 / 55_500, rel=0.05)
    assert north - 60.172 == pytest.approx(2000 / 111_400, rel=0.05)
    assert south < 60.166 < 60.172 < north
    assert west < east
    assert "[timeout:120]" in query


# Refusals


def test_large_areas_are_refused(cache: Cache) -> None:
    island = Place("singapore", box(103.6, 1.2, 104.0, 1.5))
    with pytest.raises(ConfigError, match=r"singapore has 14\d\d km2.*25 km2 at most.*extract"):
        fetch_overpass(island, cache=cache, network=ONLINE)
    apart = MultiPolygon([box(24.0, 60.0, 24.01, 60.01), box(25.0, 60.0, 25.01, 60.01)])
    with pytest.raises(ConfigError, match="rectangle around islets"):
        fetch_overpass(Place("islets", apart), cache=cache, network=ONLINE)
    fits = Bounds(24.90, 60.15, 24.98, 60.197)
    with pytest.raises(UnavailableError, match="offline"):
        fetch_overpass(place_from_bbox(fits), cache=cache, network=OFFLINE)


def test_offline_names_the_command(cache: Cache) -> None:
    with pytest.raises(
        UnavailableError, match=r"--bbox 24\.94,60\.166,24\.95,60\.172 --osm overpass"
    ):
        fetch_overpass(CENTRE, cache=cache, network=OFFLINE)


# Failures of the server


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (BROKEN, "500"),
        (BUSY, "429"),
        (Fault(504, {"Retry-After": "1"}), "504"),
        (NOT_FOUND, "404"),
        (HTML, "no OSM data"),
    ],
    ids=["broken", "busy", "overloaded", "missing", "page"],
)
def test_failures_are_named_and_leave_nothing_broken(
    server: Overpass, cache: Cache, fault: Fault, message: str
) -> None:
    server.fail("/api/interpreter", fault)
    with pytest.raises(UnavailableError, match=f"the OSM data of centre.*{message}"):
        fetch_overpass(CENTRE, cache=cache, network=ONLINE)
    assert cache.entries() == []


def test_a_busy_server_is_asked_again(server: Overpass, cache: Cache) -> None:
    server.fail("/api/interpreter", BUSY, times=1)
    assert fetch_overpass(CENTRE, cache=cache, network=ONLINE).files
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"remark": "runtime error: Query timed out after 120 seconds."}, "did not finish.*timed"),
        ({"elements": None}, "no OSM data"),
        ({"osm3s": {}}, "form that is not known"),
        ({"osm3s": {"timestamp_osm_base": "yesterday"}}, "form that is not known"),
        ({"elements": [{"type": "node", "id": 1}]}, "form that is not known"),
        ({"elements": [{"type": "way", "id": 1, "nodes": ["a"]}]}, "form that is not known"),
        ({"elements": ["node"]}, "form that is not known"),
    ],
)
def test_answers_of_no_use_are_refused(
    server: Overpass, cache: Cache, answer: bytes, change: dict[str, object], message: str
) -> None:
    server.content = json.dumps({**json.loads(answer), **change}).encode()
    with pytest.raises(UnavailableError, match=message):
        fetch_overpass(CENTRE, cache=cache, network=ONLINE)
    assert cache.entries() == []
