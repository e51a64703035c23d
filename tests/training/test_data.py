import itertools

import numpy as np

from geolink.training.data import Steps
from geolink.training.settings import TrainingSettings


class Numbers:
    """Samples whose order is a rotation by the epoch."""

    def __len__(self):
        return 13

    def order(self, seed, epoch):
        return np.roll(np.arange(13), -epoch - seed)


def draws(start=0, world_size=1, accumulate=1, **settings):
    """Per step, the draws of all processes together, as (epoch, index)."""
    usual = {"epochs": 2, "batch_size": 4, "accumulate": accumulate}
    found = TrainingSettings(**usual | settings)
    parts = [
        list(Steps(Numbers(), found, start=start, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len({len(mine) for mine in parts}) == 1
    together = iter(zip(*parts, strict=True))
    return [
        sorted((d.epoch, d.index) for some in step for mine in some for d in mine)
        for step in iter(lambda: list(itertools.islice(together, accumulate)), [])
    ]


def test_an_epoch_is_whole_batches_in_the_order_of_the_samples():
    found = draws()
    assert len(found) == 6
    assert found[0] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert found[3] == [(1, 1), (1, 2), (1, 3), (1, 4)]


def test_steps_are_the_same_for_any_number_of_processes_and_parts():
    assert (
        draws() == draws(world_size=2) == draws(accumulate=4) == draws(world_size=2, accumulate=2)
    )


def test_a_later_start_does_what_is_left():
    for start in range(7):
        assert draws(start) == draws()[start:]


def test_length_counts_the_parts_that_are_left():
    settings = TrainingSettings(epochs=2, batch_size=4, accumulate=2)
    assert len(Steps(Numbers(), settings, start=1)) == 10


def test_seed_moves_the_order():
    assert draws(seed=1)[0] == [(0, 1), (0, 2), (0, 3), (0, 4)]
