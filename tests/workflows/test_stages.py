import pytest

from geolink.workflows.stages import GRAPHS, MODEL, READING, StageClock


def test_shares_are_of_the_time_of_all_threads_of_a_stage(monkeypatch):
    now = iter([0.0, 1.0, 9.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = StageClock(workers=2)
    with clock.running():
        clock.add({READING: 6.0})
        clock.add({READING: 2.0, GRAPHS: 4.0})
        with clock.working(MODEL):
            pass
    report = clock.report()
    assert report.busy == pytest.approx({READING: 0.4, GRAPHS: 0.2, MODEL: 0.8})
    assert report.bottleneck == pytest.approx(0.8)
    assert str(report) == (
        "busy in 10 s of tiles: reading 40 %, graphs 20 %, model 80 % (2 threads prepare)"
    )


def test_without_threads_everything_is_done_in_turn(monkeypatch):
    now = iter([0.0, 5.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = StageClock(workers=0)
    with clock.running():
        clock.add({READING: 1.0, GRAPHS: 1.0, MODEL: 3.0})
    assert clock.report().busy == pytest.approx({READING: 0.2, GRAPHS: 0.2, MODEL: 0.6})


def test_what_never_ran_was_never_busy():
    assert StageClock(workers=1).report().bottleneck == 0
