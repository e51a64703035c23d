"""Tiles of places at several scales and in several looks."""

import numpy as np
import pytest

from geolink.checkpoint import load_model
from geolink.errors import ConfigError
from geolink.sources.places import sample_extract
from geolink.workflows.cutting import Cutting
from geolink.workflows.finetune_request import FinetuneRequest
from geolink.workflows.labelled import LabelledRequest, labelled_data


@pytest.fixture(scope="module")
def card(small_model):
    return load_model(small_model).card


def cut(card, seed=0, **cutting):
    request = LabelledRequest(extracts=(sample_extract(),), labels="osm", seed=seed, offline=True)
    return labelled_data(request, card, cutting=Cutting(**cutting))


def test_every_scale_and_look_has_tiles_of_its_own(card):
    data = cut(card, gsds=(2.0, 4.0), looks=2, tiles=3, side=64)
    assert len(data) == 12
    assert {item.city for item in data.items.values()} == {"helsinki"}
    series = {key.rsplit("/", 1)[0] for key in data.keys}
    assert series == {f"helsinki/{gsd}m look {look}" for gsd in (2, 4) for look in (0, 1)}
    assert data.gsd_range == (2.0, 4.0)
    assert data.simulated
    sample = data.sample(data.keys[0])
    assert sample.rgb.shape == (3, 64, 64)
    np.testing.assert_array_equal(sample.label, data.label(data.keys[0]))
    assert cut(card, gsds=(2.0, 4.0), looks=2, tiles=3, side=64).keys == data.keys
    assert len({info.description for info in data.sources}) >= 1


def test_looks_differ_in_tiles_and_flight(card):
    data = cut(card, gsds=(4.0,), looks=3, side=64)
    keys = [[key for key in data.keys if f"look {look}/" in key] for look in range(3)]
    places = [{data.items[key].position for key in each} for each in keys]
    assert not places[0] & places[1]
    assert not places[1] & places[2]
    colours = np.array(
        [np.mean([data.sample(key).rgb.mean(axis=(1, 2)) for key in each], axis=0) for each in keys]
    )
    assert all(np.ptp(colours, axis=0) > 1)


def test_the_first_look_is_that_of_the_seed(card):
    one = cut(card, gsds=(4.0,), side=64)
    several = cut(card, gsds=(4.0,), looks=2, side=64)
    first = one.keys[len(one) // 2]
    same = first.replace("helsinki/", "helsinki/4m look 0/")
    np.testing.assert_array_equal(one.sample(first).rgb, several.sample(same).rgb)


@pytest.mark.parametrize(
    "settings",
    [{"gsds": (0.0,)}, {"gsds": (1.0, 1.0)}, {"looks": 0}, {"tiles": 0}, {"side": 100}],
)
def test_what_cannot_be_cut_is_refused(settings):
    with pytest.raises(ConfigError):
        Cutting(**settings)


@pytest.mark.parametrize("more", [{"city": "sample"}, {"imagery": "a.tif"}, {"osm": "b.pbf"}])
def test_extracts_are_places_of_their_own(more):
    with pytest.raises(ConfigError, match="extracts"):
        LabelledRequest(extracts=(sample_extract(),), labels="osm", **more)


@pytest.mark.parametrize("more", [{"cutting": Cutting(tiles=2)}, {"keep_samples": True}])
def test_pictures_are_not_cut(tmp_path, more):
    with pytest.raises(ConfigError, match="can only be chosen for places"):
        FinetuneRequest(data=tmp_path, **more)


@pytest.mark.parametrize("share", [{"least_labelled": 1.5}, {"most_uniform": 0.0}])
def test_shares_of_labels_are_shares(share):
    with pytest.raises(ConfigError, match="one class, lie in"):
        FinetuneRequest(city="sample", labels="osm", **share)


def test_classes_of_whole_pictures_are_not_counted_in_pixels(tmp_path):
    with pytest.raises(ConfigError, match="no labelled pixels"):
        FinetuneRequest(data=tmp_path, task="classify", least_labelled=0.2)


def test_cities_to_validate_on_need_cities_to_test_on():
    with pytest.raises(ConfigError, match="need cities to test on"):
        FinetuneRequest(city="sample", labels="osm", validation_cities=("sample",))


def test_photographs_have_one_look(card, small_scene):
    request = LabelledRequest(
        imagery=small_scene / "ortho.tif", osm=small_scene / "osm.gpkg", labels="osm", offline=True
    )
    with pytest.raises(ConfigError, match="only simulated imagery has more than one look"):
        labelled_data(request, card, cutting=Cutting(looks=2))
