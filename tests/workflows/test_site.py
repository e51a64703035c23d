import subprocess
import sys

import pytest
import requests
from shapely import box

from geolink.errors import ConfigError, UnavailableError
from geolink.sources.base import SourceInfo
from geolink.sources.cache import Cache
from geolink.sources.entries import area_details
from geolink.sources.fetched_imagery import area_key, source_record
from geolink.sources.network import Network
from geolink.sources.places import Place
from geolink.sources.specs import parse_imagery
from geolink.workflows.request import FetchRequest, PredictRequest
from geolink.workflows.site import (
    FROM,
    Supply,
    cached_imagery,
    fetch_command,
    is_simulated,
    locate,
    way_out_named,
)

AREA = box(24.94, 60.16, 24.95, 60.17)


@pytest.fixture
def supply(tmp_path):
    return Supply(Cache(tmp_path), Network(offline=True))


def imagery_of(cache, source, *, area=AREA, gsd=10.0):
    """An entry as a fetch of imagery leaves it."""
    name = f"town{FROM}{source}"
    with cache.staging("imagery", name) as staging:
        (staging / "imagery.vrt").write_text(source)
        asked = {"source": source_record(parse_imagery(source)), "gsd": None}
        asked |= {"area": area_key(area)}
        details = {"request": asked, "gsd": gsd, **area_details(area)}
        info = SourceInfo(source)
        cache.publish("imagery", name, staging, source=source, info=info, details=details)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, "sentinel2"),
        ({"imagery": "sentinel2"}, "sentinel2"),
        ({"imagery": "sentinel2:2025-01-01/2025-02-01"}, None),
        ({"gsd": 20.0}, "sentinel2"),
        ({"gsd": 5.0}, None),
    ],
    ids=str,
)
def test_cached_imagery_serves_what_it_is_fit_for(supply, settings, found):
    imagery_of(supply.cache, "sentinel2")
    imagery_of(supply.cache, "stac:https://a.org#b/c", area=box(0, 0, 1, 1))
    entry = cached_imagery(FetchRequest(city="town", **settings), Place("town", AREA), supply.cache)
    assert (entry and entry.info.description) == found


INNER = box(24.942, 60.162, 24.944, 60.164)


@pytest.mark.parametrize(
    ("settings", "area", "found"),
    [
        ({}, INNER, "sentinel2"),
        ({"imagery": "sentinel2"}, INNER, "sentinel2"),
        ({"imagery": "sentinel2:2025-01-01/2025-02-01"}, INNER, None),
        ({"gsd": 20.0}, INNER, "sentinel2"),
        ({"gsd": 5.0}, INNER, None),
        ({}, box(24.942, 60.162, 24.944, 60.19), None),
    ],
    ids=str,
)
def test_imagery_serves_what_it_covers(supply, settings, area, found):
    imagery_of(supply.cache, "sentinel2")
    imagery_of(supply.cache, "xyz:https://a.org/{z}/{x}/{y}@14")
    request = FetchRequest(city="block", **settings)
    entry = cached_imagery(request, Place("block", area), supply.cache)
    assert (entry and entry.info.description) == found


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ({"city": "São Paulo"}, "geolink fetch --city 'São Paulo'"),
        ({"bbox": (-1.5, 2.0, -1.0, 2.12345678)}, "geolink fetch --bbox -1.5,2,-1,2.12345678"),
        (
            {"city": "Rome", "boundary": "Monti", "osm": "none", "gsd": 5.0},
            "geolink fetch --city Rome --boundary Monti --osm none --gsd 5.0",
        ),
        (
            {"city": "Rome", "model": "https://me:pw@a.org/m.safetensors?token=1"},
            "geolink fetch --city Rome --model https://a.org/m.safetensors",
        ),
    ],
    ids=str,
)
def test_the_command_that_fetches_keeps_secrets(settings, command):
    assert fetch_command(FetchRequest(**settings), None) == command


def test_no_network_gets_a_way_out():
    request = FetchRequest(city="Rome")
    way_out = "^no way, or run `geolink fetch --city Rome` where"
    with pytest.raises(UnavailableError, match=way_out), way_out_named(request):
        raise UnavailableError("no way") from requests.ConnectionError()
    with pytest.raises(UnavailableError, match=r"^wrong$"), way_out_named(request):
        raise UnavailableError("wrong")


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "give a place"),
        ({"imagery": "simulated"}, "give a place"),
        ({"city": "sample", "osm": "none"}, "without OSM"),
    ],
    ids=str,
)
def test_a_request_must_say_where_and_what(supply, settings, word):
    with pytest.raises(ConfigError, match=word):
        locate(PredictRequest(**settings), supply)


def test_the_sample_is_simulated_in_any_spelling(supply):
    request = PredictRequest(city="Sample")
    site = locate(request, supply)
    assert site.place.name == "sample"
    assert is_simulated(request, site)


def test_what_needs_no_model_is_refused_before_torch_is_imported():
    code = (
        "import sys\nimport geolink.workflows.predict, geolink.workflows.fetch\n"
        "print(sorted({'torch', 'timm', 'torch_geometric'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
