import math

import pytest

from geolink.errors import ConfigError
from geolink.training.settings import TrainingSettings


def rates(steps=100, per_epoch=10, **settings):
    found = TrainingSettings(**settings)
    return [found.rate(step, steps=steps, steps_per_epoch=per_epoch) for step in range(steps)]


def test_rate_rises_then_falls_along_a_cosine():
    found = rates(warmup_epochs=2, base_rate=1e-3, batch_size=256)
    assert found[:20] == pytest.approx([1e-3 * (i + 1) / 20 for i in range(20)])
    assert found[60] == pytest.approx(0.5e-3)
    assert found[20:] == sorted(found[20:], reverse=True)
    assert 0 < found[-1] < 1e-6


def test_rate_grows_with_the_batch():
    assert max(rates(batch_size=512)) == pytest.approx(2 * max(rates(batch_size=256)))


def test_short_runs_rise_for_half_their_steps_at_most():
    found = rates(steps=10, per_epoch=10, warmup_epochs=5, base_rate=1e-3)
    assert found.index(max(found)) in (4, 5)


def test_batch_is_shared_by_processes_and_parts():
    assert TrainingSettings(batch_size=24, accumulate=3).share_of(4) == 2


@pytest.mark.parametrize(("processes", "accumulate"), [(5, 1), (4, 16), (100, 1)])
def test_batch_that_cannot_be_split_is_refused(processes, accumulate):
    with pytest.raises(ConfigError, match="multiple of"):
        TrainingSettings(batch_size=32, accumulate=accumulate).share_of(processes)


def test_too_few_samples_are_refused():
    with pytest.raises(ConfigError, match="fewer than a batch of 256"):
        TrainingSettings().steps_per_epoch(255)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"seed": -1},
        {"base_rate": 0.0},
        {"base_rate": math.nan},
        {"warmup_epochs": -1.0},
        {"clip": math.inf},
        {"betas": (0.9, 1.0)},
        {"average_decay": 1.0},
        {"strategy": "magic"},
    ],
)
def test_contradictory_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        TrainingSettings(**settings)
