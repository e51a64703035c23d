import numpy as np

from geolink.sources.landcover.noise import Knots, lattice_hash, normal, unit

EVERY = np.arange(-150, 150)


def test_hashes_are_uniform_and_uncorrelated() -> None:
    values = unit(lattice_hash(EVERY, EVERY, 3)).astype(float)
    assert abs(values.mean() - 0.5) < 0.01
    assert abs(values.std() - 12**-0.5) < 0.01
    for other in (values[1:], values[:, 1:], unit(lattice_hash(EVERY, EVERY, 4))):
        same = values[: other.shape[0], : other.shape[1]]
        assert abs(np.corrcoef(same.ravel(), other.ravel())[0, 1]) < 0.02


def test_hashes_belong_to_their_lattice_point() -> None:
    whole = lattice_hash(EVERY, EVERY, 5)
    np.testing.assert_array_equal(lattice_hash(EVERY[20:40], EVERY[7:9], 5), whole[20:40, 7:9])


def test_sensor_noise_has_unit_variance() -> None:
    values = normal(lattice_hash(EVERY, EVERY, 6))
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02


def test_interpolation_meets_the_knots_and_is_smooth_between() -> None:
    knots = Knots.between(np.arange(-10.0, 10.0, 0.5), 2.0)
    values = knots.knot.astype(np.float32)[:, None]
    brought = knots.interpolate(values, 0)[:, 0]
    np.testing.assert_allclose(brought[::4], np.arange(-5.0, 5.0))
    assert (np.diff(brought) >= 0).all()
