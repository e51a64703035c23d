from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely
from servers import FileServer, Geocoder, geocoded
from shapely import Point, box

from geolink.errors import ConfigError, InputError, UnavailableError
from geolink.sources import geocode
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.gazetteer import find_place
from geolink.sources.network import Network
from geolink.sources.osm_fetch import fetch_osm
from geolink.sources.places import sample_extract, sample_place

ONLINE = Network(retries=1)
OFFLINE = Network(offline=True)
VADUZ = Point(9.5209, 47.1410)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def geocoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Geocoder]:
    monkeypatch.setattr(geocode, "_PAUSE_S", 0.0)
    places = {
        "Nida, Neringa, Lithuania": box(20.97, 55.29, 21.01, 55.32),
        "Kallio, Helsinki, Finland": box(24.940, 60.165, 24.955, 60.175),
        "Springfield, Illinois": box(-89.8, 39.6, -89.5, 39.9),
        "Springfield, Ohio": box(-83.9, 39.8, -83.7, 40.0),
    }
    with Geocoder(*(geocoded(name, area) for name, area in places.items())) as server:
        monkeypatch.setenv("GEOLINK_NOMINATIM_URL", server.url)
        yield server


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with FileServer({"/osm/bbbike/Helsinki/Helsinki.osm.pbf": sample_extract()}) as server:
        monkeypatch.setenv("GEOLINK_OSM_MIRROR", server.url)
        yield server


# Where names are looked for


@pytest.mark.parametrize("name", ["sample", "Sample", " SAMPLE "])
def test_the_sample_is_always_here(cache: Cache, name: str) -> None:
    assert find_place(name, network=OFFLINE, cache=cache) == sample_place()
    assert not cache.root.exists()


def test_cities_of_the_catalogue_need_no_network(cache: Cache) -> None:
    place = find_place("singapore", network=OFFLINE, cache=cache)
    assert place.name == "singapore"
    assert place.extract is not None
    assert place.aoi.contains(Point(103.85, 1.29))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Singapore", "singapore"),
        ("new york", "newyork"),
        ("New-York", "newyork"),
        ("Zürich", "zuerich"),
        ("Zu\u0308rich", "zuerich"),
        ("Zurich", "zuerich"),
        ("München", "muenchen"),
        ("MUNICH", "muenchen"),
        ("Bogotá", "bogota"),
        ("liechtenstein", "liechtenstein"),
    ],
)
def test_names_are_taken_lightly(cache: Cache, given: str, name: str) -> None:
    assert find_place(given, network=OFFLINE, cache=cache).name == name


def test_registered_places_come_before_the_catalogue(cache: Cache, tmp_path: Path) -> None:
    mine = box(103.85, 1.28, 103.86, 1.29)
    (tmp_path / "area.geojson").write_text(shapely.to_geojson(mine))
    info = SourceInfo("area.geojson")
    cache.register("place", "singapore", tmp_path / "area.geojson", info=info)
    for name in ("singapore", "Singapore"):
        place = find_place(name, network=OFFLINE, cache=cache)
        assert (place.name, place.extract) == ("singapore", None)
        assert place.aoi.equals(mine)


def test_other_names_are_geocoded_once(geocoder: Geocoder, cache: Cache) -> None:
    place = find_place("Nida", network=ONLINE, cache=cache)
    assert place.name == "nida"
    assert place.aoi.equals(box(20.97, 55.29, 21.01, 55.32))
    assert place.extract is None
    geocoder.stop()
    assert find_place("Nida", network=OFFLINE, cache=cache) == place
    assert find_place("NIDA", network=OFFLINE, cache=cache) == place


def test_a_geocoded_place_finds_its_extract(
    geocoder: Geocoder, mirror: FileServer, cache: Cache
) -> None:
    place = find_place("Kallio, Helsinki", network=ONLINE, cache=cache)
    assert place.name == "kallio_helsinki"
    entry = fetch_osm(place, cache=cache, network=ONLINE)
    assert entry.info.description == "Helsinki (BBBike)"


# Names that do not do


def test_ambiguous_names_of_the_catalogue_are_listed(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="'Georgia, Europe' or 'Georgia, US'"):
        find_place("georgia", network=OFFLINE, cache=cache)
    place = find_place("Georgia, US", network=OFFLINE, cache=cache)
    assert place.aoi.contains(Point(-83, 33))


def test_ambiguous_names_of_the_map_are_listed(geocoder: Geocoder, cache: Cache) -> None:
    with pytest.raises(ConfigError, match="'Springfield, Illinois' or 'Springfield, Ohio'"):
        find_place("Springfield", network=ONLINE, cache=cache)
    assert find_place("Springfield, Ohio", network=ONLINE, cache=cache).name == "springfield_ohio"


def test_unknown_names_suggest_near_ones(geocoder: Geocoder, cache: Cache) -> None:
    with pytest.raises(UnavailableError, match=r"'Helsinky'; did you mean Helsinki"):
        find_place("Helsinky", network=ONLINE, cache=cache)
    with pytest.raises(UnavailableError, match=r"'qqqqqq'; give the area with --bbox or --aoi"):
        find_place("qqqqqq", network=ONLINE, cache=cache)


def test_offline_unknown_names_say_so(cache: Cache) -> None:
    with pytest.raises(
        UnavailableError, match=r"'Helsinky' in the cache.*--offline forbids.*did you mean Helsinki"
    ):
        find_place("Helsinky", network=OFFLINE, cache=cache)


@pytest.mark.parametrize("name", ["", " ", "--", "../.."])
def test_empty_names_are_refused(cache: Cache, name: str) -> None:
    with pytest.raises(ConfigError, match="must have letters"):
        find_place(name, network=OFFLINE, cache=cache)


def test_names_cannot_leave_the_cache(geocoder: Geocoder, cache: Cache) -> None:
    with pytest.raises(UnavailableError, match="no place"):
        find_place("../../etc/passwd", network=ONLINE, cache=cache)
    outside = [path for path in cache.root.parent.rglob("*") if cache.root not in path.parents]
    assert outside == [cache.root]


# Boundaries


def test_a_boundary_of_the_sample(cache: Cache) -> None:
    place = find_place("sample", network=OFFLINE, cache=cache, boundary="Seepra")
    assert place.name == "sample"  # whose data is bundled
    assert shapely.box(24.9, 60.1, 25.0, 60.2).contains(place.aoi)


def test_a_boundary_within_a_region(shared_data: Path, mirror: FileServer, cache: Cache) -> None:
    extract = shared_data / "osm/liechtenstein.osm.pbf"
    mirror.files["/europe/liechtenstein-latest.osm.pbf"] = extract
    place = find_place("Liechtenstein", network=ONLINE, cache=cache, boundary="vaduz")
    assert place.name == "liechtenstein_vaduz"
    assert place.aoi.contains(VADUZ)
    assert place.aoi_metric.area == pytest.approx(17.3e6, rel=0.01)
    mirror.stop()
    again = find_place("Liechtenstein", network=OFFLINE, cache=cache, boundary="Vaduz")
    assert again == place
    kept = cache.find("place", "liechtenstein-vaduz")
    assert kept is not None
    assert kept.info.description == "vaduz in Liechtenstein (Geofabrik)"
    assert kept.info.attribution == "© OpenStreetMap contributors"
    assert fetch_osm(again, cache=cache, network=OFFLINE).info.description.startswith("Liecht")


def test_a_boundary_within_a_geocoded_place(
    geocoder: Geocoder, mirror: FileServer, cache: Cache
) -> None:
    place = find_place("Kallio", network=ONLINE, cache=cache, boundary="Seepra")
    assert place.name == "kallio_seepra"


def test_a_boundary_that_is_not_there(cache: Cache) -> None:
    with pytest.raises(InputError, match="'Sepra'; did you mean Seepra"):
        find_place("sample", network=OFFLINE, cache=cache, boundary="Sepra")
    with pytest.raises(ConfigError, match="must have letters"):
        find_place("sample", network=OFFLINE, cache=cache, boundary=" ")


def test_a_boundary_of_a_country_too_wide_to_map_needs_its_extract(cache: Cache) -> None:
    with pytest.raises(UnavailableError, match=r"Russian Federation.*geolink fetch"):
        find_place("Russian Federation", network=OFFLINE, cache=cache, boundary="Kazan")
    with pytest.raises(InputError, match="split"):
        find_place("Russian Federation", network=OFFLINE, cache=cache)
