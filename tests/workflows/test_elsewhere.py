"""Maps from files at addresses, to addresses."""

from contextlib import suppress

import geopandas as gpd
import pytest

import geolink
from geolink.errors import OutputError, UnavailableError
from geolink.sources.cache import Cache
from geolink.workflows.elsewhere import outputs_there
from geolink.workflows.predict import plan
from geolink.workflows.request import PredictRequest
from geolink.workflows.work_folder import work_folder

COARSE = {"gsd": 2.0, "workers": 0, "device": "cpu"}  # a single tile


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOLINK_CACHE", str(tmp_path / "cache"))
    return Cache()


def test_a_map_from_and_to_addresses_is_the_same(tmp_path, memory, small_scene, small_model):
    here = {"imagery": small_scene / "ortho.tif", "osm": small_scene / "osm.gpkg"}
    geolink.predict(**here, model=small_model, out=tmp_path / "map.gpkg", **COARSE)

    for path in (*here.values(), small_model / "model.safetensors", small_model / "card.json"):
        memory.put_file(str(path), f"/shop/{path.name}")
    away = {"imagery": "memory://shop/ortho.tif", "osm": "memory://shop/osm.gpkg"}
    request = PredictRequest(
        **away,
        model="memory://shop/model.safetensors",
        out="memory://shop/map.gpkg",
        raster=(tmp_path / "classes.tif").as_uri(),
        **COARSE,
    )
    with pytest.raises(UnavailableError, match=r"memory://shop/ortho.tif is not in the cache"):
        plan(request)
    result = geolink.predict(request)
    assert str(result.out) == "memory://shop/map.gpkg"
    assert result.summary.startswith("memory://shop/map.gpkg: ")
    made = tmp_path / "made.gpkg"
    memory.get_file("/shop/map.gpkg", str(made))
    for layer in ("zones", "tiles"):
        expected = frame(tmp_path / "map.gpkg", layer)
        assert frame(made, layer).equals(expected)
    assert (tmp_path / "classes.tif").is_file()
    assert not list((tmp_path / "cache" / "outputs").iterdir())
    assert str(plan(request).out) == "memory://shop/map.gpkg"  # all is here now
    with pytest.raises(OutputError, match="exists"):
        geolink.predict(request)


def frame(path, layer):
    return gpd.read_file(path, layer=layer)


def test_a_map_with_failed_tiles_is_replaced_by_the_run_that_retries_them(tmp_path, memory, cache):
    request = PredictRequest(out="memory://shop/map.gpkg")
    with outputs_there(request, cache) as asked:
        asked.out.write_bytes(b"first")
        work_folder(asked.out).mkdir()
    assert memory.cat_file("/shop/map.gpkg") == b"first"
    with outputs_there(request, cache) as asked:
        asked.out.write_bytes(b"second")
        work_folder(asked.out).rmdir()
    assert memory.cat_file("/shop/map.gpkg") == b"second"
    with pytest.raises(OutputError, match="exists"), outputs_there(request, cache):
        pass


def test_what_was_cut_goes_on_in_the_same_folder(memory, cache):
    request = PredictRequest(out="memory://shop/map.gpkg")
    with suppress(KeyboardInterrupt), outputs_there(request, cache) as asked:
        first = asked.out
        raise KeyboardInterrupt
    assert not memory.exists("/shop/map.gpkg")
    with outputs_there(request, cache) as asked:
        assert asked.out == first
        asked.out.write_bytes(b"map")
