"""The loop on a small task: cuts at any moment, several processes, and what goes wrong."""

import csv
import os
import signal
import threading

import numpy as np
import pytest
import torch

from geolink.errors import ConfigError, InputError, OutputError
from geolink.training.module import DivergedError
from geolink.training.state import STATE, TrainingState


def weights(folder):
    return TrainingState.load(folder / STATE).model


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(folder):
    return values(folder, "loss")


def values(folder, column):
    """Numbers of a log by step."""
    with (folder / "log.csv").open(newline="") as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


# Going on


def test_it_learns(make_run, tmp_path):
    result = make_run(tmp_path, epochs=20, base_rate=1.0)()
    found = losses(tmp_path)
    assert result.finished
    assert list(found) == list(range(1, 101))
    assert np.mean([found[s] for s in range(91, 101)]) < 0.7 * found[1]


@pytest.mark.parametrize("setup", [{}, {"accumulate": 2, "average_decay": 0.9, "save_every": 3}])
def test_killed_at_random_steps_it_ends_with_the_same_bits(make_run, tmp_path, processes, setup):
    whole, cut = (make_run(tmp_path / name, dropout=0.3, **setup) for name in ("whole", "cut"))
    expected = whole()
    steps = sorted(np.random.default_rng(0).choice(range(1, 15), 3, replace=False).tolist())
    for step in steps:
        # SIGKILL once the step is done, saved or not.
        watch = lambda status, at=step: status.step == at and kill()  # noqa: E731
        assert processes(lambda watch=watch: cut(watch=watch)) == [-signal.SIGKILL]
    found = cut()
    assert same(weights(whole.folder), weights(cut.folder))
    assert same(expected.module.state_dict(), found.module.state_dict())
    assert list(losses(cut.folder)) == list(losses(whole.folder))


def test_it_goes_on_with_as_many_threads_as_it_began_with(make_run, tmp_path):
    whole, cut = (make_run(tmp_path / name) for name in ("whole", "cut"))
    torch.set_num_threads(2)
    try:
        whole()
        cut(enough=lambda: (tmp_path / "cut" / STATE).exists())
        torch.set_num_threads(1)
        assert TrainingState.load(tmp_path / "cut" / STATE).step < 15
        cut()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    assert same(weights(whole.folder), weights(cut.folder))


def test_killed_while_the_state_is_written_it_has_the_state_before(
    make_run, tmp_path, processes, monkeypatch
):
    run = make_run(tmp_path / "cut")
    replaced = []

    def replace(source, target, really=os.replace):
        if str(target).endswith(STATE):
            replaced.append(target)
            if len(replaced) == 4:
                kill()
        really(source, target)

    monkeypatch.setattr("os.replace", replace)
    assert processes(run) == [-signal.SIGKILL]
    monkeypatch.undo()
    assert TrainingState.load(run.folder / STATE).step == 3
    run()
    whole = make_run(tmp_path / "whole")
    whole()
    assert same(weights(run.folder), weights(whole.folder))


def test_a_finished_run_is_left_as_it_is(make_run, tmp_path):
    run = make_run(tmp_path)
    run()
    before = (tmp_path / STATE).stat().st_mtime_ns
    assert run().step == 15
    assert (tmp_path / STATE).stat().st_mtime_ns == before


@pytest.mark.parametrize("changed", [{"batch_size": 5}, {"seed": 1}, {"record": {"data": "new"}}])
def test_other_settings_do_not_go_on(make_run, tmp_path, changed):
    make_run(tmp_path)()
    with pytest.raises(ConfigError, match="was started with"):
        make_run(tmp_path, **changed)()


def test_workers_and_cadence_may_change(make_run, tmp_path):
    make_run(tmp_path / "whole")()
    run = make_run(tmp_path / "cut", save_every=4)
    with pytest.raises(RuntimeError, match="on purpose"):
        run(watch=lambda status: status.step == 6 and _fail())
    make_run(tmp_path / "cut", workers=1, log_every=5)()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def _fail():
    raise RuntimeError("on purpose")


def test_accumulated_parts_make_the_same_step(make_run, tmp_path):
    one, four = make_run(tmp_path / "1")(), make_run(tmp_path / "4", accumulate=4)()
    for a, b in zip(one.module.parameters(), four.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_average_lags_behind(make_run, tmp_path):
    plain = make_run(tmp_path / "a")()
    averaged = make_run(tmp_path / "b", average_decay=0.99)()
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(plain.module.state_dict(), averaged.module.state_dict())


def test_random_numbers_of_the_caller_are_left_alone(make_run, tmp_path):
    run = make_run(tmp_path, dropout=0.5)
    run()
    torch.manual_seed(5)
    (tmp_path / STATE).unlink()
    before = torch.get_rng_state()
    run()
    # The task itself is made with a seed by the test; the loop must not add to that.
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_hooks_run_every_second_epoch_and_at_the_end(make_run, tmp_path):
    seen = []

    def hook(task, epoch):
        assert not task.training
        seen.append(epoch)
        return {"score": epoch / 2}

    make_run(tmp_path, epochs=5)(hooks=[hook], every=2)
    assert seen == [2, 4, 5]
    with (tmp_path / "log.csv").open(newline="") as file:
        scores = [(row["step"], row["score"]) for row in csv.DictReader(file) if row["score"]]
    assert scores == [("10", "1"), ("20", "2"), ("25", "2.5")]


# Several processes


@pytest.mark.parametrize("strategy", ["auto", "fsdp"])
def test_two_processes_do_what_one_does(make_run, tmp_path, processes, strategy):
    one = make_run(tmp_path / "one", average_decay=0.9)
    two = make_run(tmp_path / "two", average_decay=0.9, strategy=strategy)
    one(hooks=[corner])
    (tmp_path / "two").mkdir()
    assert processes(lambda: two(hooks=[corner]), 2) == [0, 0]
    expected, found = losses(one.folder), losses(two.folder)
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-4)
    corners = [values(run.folder, "corner") for run in (one, two)]
    assert corners[1] == pytest.approx(corners[0], rel=1e-4)
    for part in ("model", "average"):
        whole, shared = (getattr(TrainingState.load(r.folder / STATE), part) for r in (one, two))
        for name, tensor in whole.items():
            torch.testing.assert_close(shared[name], tensor, rtol=1e-4, atol=1e-5)


def corner(task, epoch):
    """A hook that looks at weights, which process 0 must have."""
    return {"corner": task.layers[0].weight.detach()[:2].double().sum().item()}


def test_one_process_goes_on_with_the_run_of_two(make_run, tmp_path, processes):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    one()
    (tmp_path / "two").mkdir()
    stop = lambda status: status.step == 4 and _fail()  # noqa: E731
    assert processes(lambda: two(watch=stop), 2) != [0, 0]
    assert two().finished
    for name, tensor in weights(one.folder).items():
        torch.testing.assert_close(weights(two.folder)[name], tensor, rtol=1e-4, atol=1e-5)


# What goes wrong


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves_it(make_run, tmp_path, number):
    run = make_run(tmp_path, save_every=100)
    handler = signal.getsignal(number)
    result = run(watch=lambda status: status.step == 7 and os.kill(os.getpid(), number))
    assert (result.finished, result.step) == (False, 7)
    assert TrainingState.load(tmp_path / STATE).step == 7
    assert signal.getsignal(number) == handler
    assert run().finished


def test_it_runs_outside_the_main_thread(make_run, tmp_path):
    run, results = make_run(tmp_path), []
    thread = threading.Thread(target=lambda: results.append(run()))
    thread.start()
    thread.join(60)
    assert results[0].finished


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_no_number_names_its_samples(make_run, tmp_path, accumulate):
    run = make_run(tmp_path, bad=[13], accumulate=accumulate)
    place = run.samples.order(0, 0).tolist().index(13)
    with pytest.raises(DivergedError, match="tile-13") as caught:
        run()
    assert f"the loss of step {place // 4 + 1} " in str(caught.value)
    named = str(caught.value).count("tile-")
    assert named == 4 // accumulate
    if place // 4:
        state = TrainingState.load(tmp_path / STATE)
        assert state.step == place // 4
        assert all(tensor.isfinite().all() for tensor in state.model.values())


def test_a_killed_worker_is_named(make_run, tmp_path):
    run = make_run(tmp_path, deadly=[3], workers=1)
    with pytest.raises(InputError, match="worker that prepares samples was killed at step"):
        run()
    assert make_run(tmp_path)().finished


def test_a_full_disk_keeps_the_last_state(make_run, tmp_path, monkeypatch):
    run = make_run(tmp_path)

    def fill(status):
        if status.step == 6:
            monkeypatch.setattr("pathlib.Path.write_bytes", _full)

    with pytest.raises(OutputError, match="disk is full"):
        run(watch=fill)
    monkeypatch.undo()
    assert TrainingState.load(tmp_path / STATE).step == 5
    assert run().finished


def _full(*_):
    raise OSError(28, "No space left on device")
