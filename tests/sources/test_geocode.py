import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely
from servers import BROKEN, BUSY, HTML, Fault, FileServer, Geocoder, Reply, Request, geocoded
from shapely import LineString, MultiPolygon, Point, box

from geolink.errors import ConfigError, UnavailableError
from geolink.sources import geocode as module
from geolink.sources.cache import Cache
from geolink.sources.geocode import geocode
from geolink.sources.network import Network
from geolink.sources.places import place_from_file

NETWORK = Network(retries=1)
TARTU = box(26.66, 58.34, 26.79, 58.41)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Geocoder]:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    with Geocoder(geocoded("Tartu, Tartu linn, Estonia", TARTU)) as server:
        monkeypatch.setenv("GEOLINK_NOMINATIM_URL", server.url)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


# Right answers


def test_a_place_is_kept_with_its_provenance(server: Geocoder, cache: Cache) -> None:
    entry = geocode("Tartu", cache=cache, network=NETWORK)
    assert entry is not None
    assert (entry.kind, entry.name) == ("place", "tartu")
    assert place_from_file(entry.path).aoi.equals(TARTU)
    assert entry.info.description == "Tartu, Tartu linn, Estonia"
    assert entry.info.attribution == "© OpenStreetMap contributors"
    assert entry.info.licence == "ODbL-1.0"
    assert cache.find("place", "tartu") == entry


def test_the_request_follows_the_usage_policy(server: Geocoder, cache: Cache) -> None:
    geocode("Tartu", cache=cache, network=NETWORK)
    (request,) = server.requests
    assert request.headers["User-Agent"].startswith("geolink/")
    assert request.query["q"] == "Tartu"
    assert request.query["format"] == "jsonv2"


def test_without_outline_the_bounding_box_is_taken(server: Geocoder, cache: Cache) -> None:
    for outline in (None, shapely.to_geojson(Point(1, 1)), shapely.to_geojson(LineString())):
        result = geocoded("Nida, Lithuania", box(20.97, 55.29, 21.01, 55.32))
        result["geojson"] = outline
        server.results = [{k: v for k, v in result.items() if v is not None}]
        entry = geocode("Nida", cache=cache, network=NETWORK)
        assert entry is not None
        assert place_from_file(entry.path).aoi.equals(box(20.97, 55.29, 21.01, 55.32))


def test_outlines_of_several_parts_and_with_faults_are_valid(
    server: Geocoder, cache: Cache
) -> None:
    bow_tie = shapely.Polygon([(1, 1), (2, 2), (2, 1), (1, 2)])
    server.results = [geocoded("Islands", MultiPolygon([box(3, 3, 4, 4), bow_tie]))]
    entry = geocode("Islands", cache=cache, network=NETWORK)
    assert entry is not None
    assert place_from_file(entry.path).aoi.area == pytest.approx(1.5)


def test_nothing_found(server: Geocoder, cache: Cache) -> None:
    assert geocode("Atlantis", cache=cache, network=NETWORK) is None
    assert cache.entries() == []


# Several places


def result(name: str, west: float, importance: float = 0.5, **more: object) -> dict[str, object]:
    return {**geocoded(name, box(west, 40, west + 0.1, 40.1)), "importance": importance, **more}


def test_places_of_one_name_are_listed(server: Geocoder, cache: Cache) -> None:
    states = ["Illinois", "Massachusetts", "Missouri", "Ohio", "Oregon", "Vermont"]
    server.results = [
        result(f"Springfield, {state}, United States", -90 + i, 0.6 - 0.01 * i)
        for i, state in enumerate(states)
    ]
    with pytest.raises(ConfigError, match="several places are called 'Springfield'") as caught:
        geocode("Springfield", cache=cache, network=NETWORK)
    assert str(caught.value).count("Springfield, ") == 5
    assert "'Springfield, Illinois, United States'" in str(caught.value)
    assert "Vermont" not in str(caught.value)
    assert cache.entries() == []
    entry = geocode("Springfield, Illinois", cache=cache, network=NETWORK)
    assert entry is not None
    assert entry.name == "springfield_illinois"
    assert place_from_file(entry.path).aoi.bounds[0] == -90


def test_a_clearly_more_important_place_is_meant(server: Geocoder, cache: Cache) -> None:
    server.results = [result("Paris, Texas", -95, 0.5), result("Paris, France", 2, 0.9)]
    entry = geocode("Paris", cache=cache, network=NETWORK)
    assert entry is not None
    assert entry.info.description == "Paris, France"


def test_a_city_its_county_and_its_node_are_one_place(server: Geocoder, cache: Cache) -> None:
    server.results = [result("Tartu, Estonia", 26, 0.6), result("Tartu county, Estonia", 26.05)]
    entry = geocode("Tartu", cache=cache, network=NETWORK)
    assert entry is not None
    assert entry.info.description == "Tartu, Estonia"


def test_towns_come_before_shops_of_their_name(server: Geocoder, cache: Cache) -> None:
    shop = result("Tartu, Main Street", 10, 0.9, category="shop", type="bakery")
    server.results = [shop, result("Tartu, Estonia", 26)]
    entry = geocode("Tartu", cache=cache, network=NETWORK)
    assert entry is not None
    assert entry.info.description == "Tartu, Estonia"


# Politeness


class Watch(Geocoder):
    """A geocoder that notes when it is asked."""

    def answer(self, request: Request) -> Reply:
        self.times = [*getattr(self, "times", []), time.monotonic()]
        return super().answer(request)


def test_requests_keep_their_distance(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.3)
    with Watch(geocoded("Tartu, Estonia", TARTU)) as server:
        monkeypatch.setenv("GEOLINK_NOMINATIM_URL", server.url)
        for name in ("Tartu", "tartu", "Tartu, Estonia"):
            geocode(name, cache=Cache(cache.root), network=NETWORK)
    first, second, third = server.times
    assert second - first >= 0.29
    assert third - second >= 0.29


def test_processes_take_turns(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; from pathlib import Path; from geolink.sources.cache import Cache\n"
        "from geolink.sources.geocode import geocode; from geolink.sources.network import Network\n"
        "geocode(sys.argv[2], cache=Cache(Path(sys.argv[1])), network=Network())"
    )
    with Watch(geocoded("Tartu, Estonia", TARTU)) as server:
        monkeypatch.setenv("GEOLINK_NOMINATIM_URL", server.url)
        asked = [
            subprocess.Popen([sys.executable, "-c", code, str(cache.root), name])
            for name in ("Tartu", "Tartu, Estonia")
        ]
        assert [process.wait() for process in asked] == [0, 0]
    first, second = server.times
    assert second - first >= 0.99
    assert [entry.name for entry in cache.entries()] == ["tartu", "tartu_estonia"]


# Failures


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (BROKEN, "500"),
        (BUSY, "429"),
        (HTML, "no JSON"),
    ],
    ids=["broken", "busy", "page"],
)
def test_failures_are_named(server: Geocoder, cache: Cache, fault: Fault, message: str) -> None:
    server.fail("/search", fault)
    with pytest.raises(UnavailableError, match=f"the place 'Tartu'.*{message}"):
        geocode("Tartu", cache=cache, network=NETWORK)
    assert cache.entries() == []
    server.heal()
    assert geocode("Tartu", cache=cache, network=NETWORK) is not None


@pytest.mark.parametrize(
    "answer",
    [
        [None, 3, "x", []],
        [{}],
        [{"display_name": "X", "category": "place"}],
        [{"display_name": "X", "boundingbox": ["1", "2"]}],
        [{"display_name": "X", "boundingbox": ["a", "b", "c", "d"]}],
        [{"display_name": "X", "boundingbox": ["1", "1", "2", "2"]}],
        [{"display_name": "X", "boundingbox": ["1", "2", "3", "4"], "importance": "high"}],
        [{"display_name": "X", "boundingbox": ["nan", "nan", "nan", "nan"]}],
        [{"boundingbox": ["1", "2", "3", "4"]}],
    ],
)
def test_results_of_no_use_are_passed_over(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, answer: list[object]
) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    with FileServer({"/search": json.dumps(answer).encode()}) as server:
        monkeypatch.setenv("GEOLINK_NOMINATIM_URL", server.url + "/")
        assert geocode("Tartu", cache=cache, network=NETWORK) is None


def test_another_server_is_no_geocoder(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer({"/search": b'{"error": "no"}'}) as server:
        monkeypatch.setenv("GEOLINK_NOMINATIM_URL", server.url)
        with pytest.raises(UnavailableError, match="another form than Nominatim"):
            geocode("Tartu", cache=cache, network=NETWORK)
