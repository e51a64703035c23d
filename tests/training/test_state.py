import pickle

import pytest
import torch

from geolink.errors import CheckpointError, ConfigError, OutputError
from geolink.training.state import TrainingState, require_same_settings


def state(**changes):
    fields = {
        "step": 3,
        "settings": {"training": {"seed": 1}},
        "model": {"w": torch.ones(2)},
        "optimizer": {"state": {"w": {"step": torch.tensor(3.0)}}},
        "average": {},
        "threads": 1,
    }
    return TrainingState(**fields | changes)


def test_state_comes_back(tmp_path):
    state().save(tmp_path / "state.pt")
    found = TrainingState.load(tmp_path / "state.pt")
    assert (found.step, found.settings) == (3, {"training": {"seed": 1}})
    assert torch.equal(found.model["w"], torch.ones(2))


class Harm:
    def __reduce__(self):
        return print, ("code was run",)


@pytest.mark.parametrize("damage", ["empty", "cut", "code", "format", "other"])
def test_damaged_states_are_refused(tmp_path, damage, capsys):
    path = tmp_path / "state.pt"
    state().save(path)
    whole = path.read_bytes()
    if damage == "format":
        torch.save({"format": 99}, path)
    elif damage == "other":
        torch.save([1, 2], path)
    else:
        code = pickle.dumps(Harm())
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "code": code}[damage])
    with pytest.raises(CheckpointError, match="start anew with --overwrite"):
        TrainingState.load(path)
    assert "code was run" not in capsys.readouterr().out


def test_full_disk_keeps_the_state_before(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    state().save(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OutputError, match="disk is full"):
        state(step=4).save(path)
    monkeypatch.undo()
    assert TrainingState.load(path).step == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"a": 1, "b": {"c": [1, 2], "d": 9}}, "d"),
        ({"a": 2, "b": {"c": [1, 2], "d": 3}}, "a"),
        ({"a": 1, "b": {"c": [1, 2], "d": 3}, "e": 0}, "e"),
        ({"a": 1}, "b"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, asked, name):
    saved = {"a": 1, "b": {"c": [1, 2], "d": 3}}
    require_same_settings(saved, dict(saved), tmp_path)
    with pytest.raises(ConfigError, match=f"was started with {name} "):
        require_same_settings(saved, asked, tmp_path)
