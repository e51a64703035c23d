import pytest
from shapely import Point, Polygon, box

from geolink.errors import ConfigError, UnavailableError
from geolink.sources.extracts import (
    _ENGLISH,
    catalogue,
    covering_extract,
    extract_called,
    near_names,
)


def test_catalogue_lists_cities_before_regions() -> None:
    providers = [extract.provider for extract in catalogue()]
    assert providers.count("BBBike") == 238
    assert providers.count("Geofabrik") == 555
    assert providers == sorted(providers)
    assert all(extract.url.endswith(".osm.pbf") for extract in catalogue())
    assert all(extract.area.is_valid and not extract.area.is_empty for extract in catalogue())


def test_every_title_leads_to_its_extract() -> None:
    cities = {extract.name for extract in catalogue() if extract.provider == "BBBike"}
    for extract in catalogue():
        found = extract_called(extract.title)
        assert found is not None
        # `Berlin, Germany` is the region, `Berlin` the city.
        assert found.url == extract.url, extract.title
        assert extract.provider == "Geofabrik" or extract.name in cities


def test_every_english_name_leads_to_a_city() -> None:
    for name in _ENGLISH:
        extract = extract_called(name)
        assert extract is not None
        assert extract.provider == "BBBike"


def test_a_city_comes_before_the_region_around_it() -> None:
    berlin = extract_called("Berlin")
    region = extract_called("Berlin, Germany")
    assert berlin is not None
    assert region is not None
    assert (berlin.provider, region.provider) == ("BBBike", "Geofabrik")
    assert region.size_bytes is not None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("georgia", "'georgia'; write 'Georgia, Europe' or 'Georgia, US'"),
        ("Victoria", "'Victoria'; write 'Victoria, BBBike' or 'Victoria, Australia'"),
    ],
)
def test_places_apart_with_one_name_are_listed(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"several places of the catalogue are called {message}"):
        extract_called(name)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("Georgia, US", Point(-83, 33)),
        ("georgia (us)", Point(-83, 33)),
        ("Georgia, North America", Point(-83, 33)),
        ("Georgia, Europe", Point(44, 42)),
        ("Victoria, Australia", Point(145, -37)),
        ("Victoria, BBBike", Point(-123.36, 48.43)),
    ],
)
def test_a_longer_name_tells_them_apart(name: str, inside: Point) -> None:
    extract = extract_called(name)
    assert extract is not None
    assert extract.area.contains(inside)


@pytest.mark.parametrize("name", ["", "   ", "???", "Atlantis", "Springfield"])
def test_unknown_names_have_no_extract(name: str) -> None:
    assert extract_called(name) is None


def test_near_names_are_spelled_as_listed() -> None:
    assert near_names("helsinky")[0] == "Helsinki"
    assert near_names("Munic")[0] in ("Munich", "Muenchen")
    assert near_names("sampel", "sample")[0] == "sample"
    assert near_names("qqqqqqqqqqqq") == []


# Addresses


def test_a_mirror_replaces_scheme_and_host(monkeypatch: pytest.MonkeyPatch) -> None:
    singapore = extract_called("Singapore")
    assert singapore is not None
    monkeypatch.delenv("GEOLINK_OSM_MIRROR", raising=False)
    assert singapore.address == singapore.url
    monkeypatch.setenv("GEOLINK_OSM_MIRROR", "http://127.0.0.1:8000/osm-data/")
    path = "/osm/bbbike/Singapore/Singapore.osm.pbf"
    assert singapore.address == f"http://127.0.0.1:8000/osm-data{path}"


@pytest.mark.parametrize("mirror", ["mirror.example.org", "file:///etc", "https://", "ftp://a/b"])
def test_a_mirror_is_an_address(monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("GEOLINK_OSM_MIRROR", mirror)
    with pytest.raises(ConfigError, match="GEOLINK_OSM_MIRROR is"):
        _ = catalogue()[0].address


# The smallest extract around an area


@pytest.mark.parametrize(
    ("area", "name", "provider"),
    [
        (box(103.84, 1.28, 103.87, 1.30), "Singapore", "BBBike"),
        (box(9.52, 47.13, 9.54, 47.15), "Liechtenstein", "Geofabrik"),
        (box(7.43, 43.72, 7.45, 43.73), "Monaco", "Geofabrik"),
        (box(-0.08, 51.65, -0.06, 51.66), "Enfield", "Geofabrik"),
        (box(10.3, 49.1, 10.5, 49.2), "Mittelfranken", "Geofabrik"),
    ],
)
def test_the_smallest_extract_is_taken(area: Polygon, name: str, provider: str) -> None:
    extract = covering_extract(area)
    assert (extract.name, extract.provider) == (name, provider)


def test_no_other_extract_that_covers_is_smaller() -> None:
    area = box(103.84, 1.28, 103.87, 1.30)
    chosen = covering_extract(area)
    others = [extract for extract in catalogue() if extract.area.covers(area)]
    assert len(others) >= 3
    assert chosen.area_km2 == min(extract.area_km2 for extract in others)


def test_the_high_sea_has_no_extract() -> None:
    with pytest.raises(UnavailableError, match=r"no OSM extract.*-44\.950, -139\.950.*--osm FILE"):
        covering_extract(box(-140.0, -45.0, -139.9, -44.9))


@pytest.mark.parametrize(
    "twins",
    [box(24.10, 65.82, 24.20, 65.86), box(15.2, -4.35, 15.4, -4.2)],
    ids=["Haparanda and Tornio", "Kinshasa and Brazzaville"],
)
def test_no_continent_is_taken_for_towns_on_a_border(twins: Polygon) -> None:
    assert any(extract.area.covers(twins) for extract in catalogue())
    with pytest.raises(UnavailableError, match=r"one country or city.*--osm overpass"):
        covering_extract(twins)


def test_sizes_are_measured_on_the_ellipsoid() -> None:
    liechtenstein = extract_called("Liechtenstein")
    assert liechtenstein is not None
    assert liechtenstein.area_km2 == pytest.approx(160, rel=0.2)
