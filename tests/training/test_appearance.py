"""Pictures of other flights: changed, but of the same shape and the same for equal seeds."""

import numpy as np
import pytest

from geolink.errors import ConfigError
from geolink.samples import Sample
from geolink.training.appearance import seen_anew
from geolink.training.labelled import Variation, blank


def picture(shape=(3, 48, 64)):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_it_follows_from_the_generator():
    rgb = picture()
    looks = [seen_anew(rgb, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert looks[0].shape == rgb.shape
    assert looks[0].dtype == np.uint8
    np.testing.assert_array_equal(looks[0], looks[1])
    assert not np.array_equal(looks[0], looks[2])
    np.testing.assert_array_equal(rgb, picture())


def test_both_dates_of_a_pair_change_alike():
    one = picture()
    looks = [seen_anew(np.stack([one, one]), np.random.default_rng(seed)) for seed in range(12)]
    gaps = [np.abs(look[0].astype(int) - look[1]).mean() for look in looks]
    assert max(gaps) < 12  # the noise of the sensor is each date's own


def test_what_is_bright_may_be_dark_but_shapes_stay():
    """Colours change widely from look to look; the edge between two halves is kept in all."""
    rgb = np.full((3, 48, 48), 70, np.uint8)
    rgb[:, :, 24:] = np.array([90, 160, 80])[:, None, None]
    looks = np.stack([seen_anew(rgb, np.random.default_rng(seed)) for seed in range(40)])
    green = looks[:, :, :, 36:].mean(axis=(2, 3))
    assert np.ptp(green.mean(axis=1)) > 60  # brightness
    assert np.ptp(green[:, 1] - green[:, 0]) > 40  # how green it is
    halves = looks.mean(axis=1)
    edge = np.abs(halves[:, 8:40, 34:44].mean((1, 2)) - halves[:, 8:40, 4:14].mean((1, 2)))
    assert np.median(edge) > 10


def sample(nodes=True):
    from torch_geometric.data import HeteroData

    graph = HeteroData()
    graph["point"].num_nodes = 1
    return Sample(picture(), graph if nodes else None, np.zeros((48, 64), np.uint8), {})


def test_a_share_of_pictures_is_blank_but_never_where_there_is_no_osm():
    variation = Variation(symmetries=False, no_osm=0.5, no_image=0.25, all_hidden=0.3)
    seen = [variation.apply(sample(), np.random.default_rng(seed)) for seed in range(400)]
    empty = np.array([np.array_equal(s.rgb, blank(s.rgb)) for s in seen])
    without = np.array([s.graph is None for s in seen])
    assert not (empty & without).any()
    assert abs(empty.mean() - 0.25) < 0.07
    assert abs(without.mean() - 0.5) < 0.07


def test_pictures_without_osm_are_never_blank():
    variation = Variation(no_osm=0.0, no_image=1.0)
    seen = variation.apply(sample(nodes=False), np.random.default_rng(0))
    assert seen.rgb.std() > 0


@pytest.mark.parametrize(
    "settings",
    [{"appearance": "wild"}, {"no_osm": -0.1}, {"no_osm": 0.5}, {"no_image": 0.9}],
)
def test_shares_that_do_not_add_up_are_refused(settings):
    with pytest.raises(ConfigError):
        Variation(**settings)
