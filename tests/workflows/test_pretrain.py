"""Pretraining from a folder of shards to a model: outputs, cuts, and what is refused."""

import csv
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import pixels, write_shards

from geolink.checkpoint import load_model
from geolink.errors import ConfigError, InputError, OutputError
from geolink.models.objectives import ObjectiveConfig
from geolink.training.settings import TrainingSettings
from geolink.workflows.pretrain import PretrainRequest, pretrain

TRAINING = TrainingSettings(
    epochs=2, batch_size=4, workers=0, log_every=1, save_every=99, device="cpu", base_rate=1e-2
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("data") / "shards", 8, side=32)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Thirty bright and thirty dark pictures in a folder each."""
    folder = tmp_path_factory.mktemp("labelled")
    for name, factor in (("bright", 1.0), ("dark", 0.2)):
        (folder / name).mkdir()
        for number in range(30):
            rgb = (pixels(32, 32, seed=number) * factor).astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(rgb).save(folder / name / f"{number}.png")
    return folder


def request(shards, out, **changes):
    usual = {"images": shards, "out": out, "image_size": 32, "training": TRAINING}
    return PretrainRequest(**usual | changes)


@pytest.fixture(scope="module")
def done(shards, labelled, tmp_path_factory):
    """An undisturbed run with everything, and what it told."""
    out = tmp_path_factory.mktemp("runs") / "run"
    told, seen = [], []
    result = pretrain(
        request(shards, out, probe=labelled), lambda *step: told.append(step), seen.append
    )
    return out, result, told, seen


def weights(out):
    return load_model(out).state_dict()


def test_the_run_folder_is_a_model(done):
    out, result, *_ = done
    model = load_model(out)
    assert model.config.pretraining
    assert not model.card.has_head
    assert model.card.name == "run"
    assert "2 epochs of 8 pairs of simulated orthophotos" in model.card.training_data
    assert "made up" in model.card.training_data
    assert model.card.gsd_range[1] == 1.0
    assert (result.step, result.samples, result.simulated) == (4, 8, True)
    assert "SIMULATED" in result.summary
    maps = model.encode(torch.zeros(1, 3, 32, 32))
    assert [tuple(m.shape) for m in maps] == [(1, 192, 2, 2)] * 3 + [(1, 256, 2, 2)]


def test_it_tells_how_it_goes(done):
    _, result, told, seen = done
    assert told[-1] == ("training", 4, 4)
    assert [status.step for status in seen] == [1, 2, 3, 4]
    assert seen[-1].losses == result.losses
    assert set(result.losses) == {"loss", "reconstruction", "contrast", "consistency"}
    assert seen[-1].seconds_left == 0


def test_log_picture_and_probe_are_there(done):
    out, *_ = done
    with (out / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    probes = [float(row["knn_accuracy"]) for row in rows if row["knn_accuracy"]]
    assert len(probes) == 2
    assert probes[-1] > 0.8  # brightness is told by almost any features
    picture = np.asarray(Image.open(out / "pictures" / "epoch-0002.png").convert("RGB"))
    assert picture.std() > 20
    assert list((out / "tensorboard").glob("events*"))


def test_an_interrupted_run_goes_on_to_the_same_weights(shards, done, labelled, tmp_path):
    out = tmp_path / "run"

    def interrupt(status):
        if status.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"after step 2 of 4.*--resume goes on"):
        pretrain(request(shards, out, probe=labelled), watch=interrupt)
    result = pretrain(request(shards, out, probe=labelled, resume=True))
    assert result.step == 4
    expected, found = weights(done[0]), weights(out)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_is_not_overwritten_unasked(done, shards, tmp_path):
    with pytest.raises(OutputError, match="holds a run; go on with --resume"):
        pretrain(request(shards, done[0]))


def test_other_objectives_do_not_go_on(done, shards, labelled):
    changed = ObjectiveConfig(temperature=0.1)
    with pytest.raises(ConfigError, match=r"started with temperature 0\.2, not 0\.1"):
        pretrain(request(shards, done[0], objectives=changed, resume=True))


def test_other_data_do_not_go_on(done, tmp_path):
    other = write_shards(tmp_path / "other", 9, side=32)
    with pytest.raises(ConfigError, match="was started with"):
        pretrain(request(other, done[0], resume=True))


def test_overwriting_starts_anew(shards, tmp_path):
    out = tmp_path / "run"
    short = TrainingSettings(epochs=1, batch_size=8, workers=0, device="cpu")
    pretrain(request(shards, out, training=short))
    again = request(shards, out, training=short, overwrite=True, model_size="tiny")
    assert pretrain(again).step == 1


def test_a_damaged_shard_is_skipped_and_named(tmp_path):
    folder = write_shards(tmp_path / "shards", 8, side=32)
    shard = folder / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:2048])
    result = pretrain(request(folder, tmp_path / "run"))
    assert result.step == 4
    assert sum(result.skipped.values()) > 0
    assert all("shard-000001.tar" in reason for reason in result.skipped)
    assert "replaced" in result.summary


def test_released_profile(tmp_path, shards):
    asked = request(shards, tmp_path, profile="released")
    assert asked.asked.most_masked_nodes == 10
    config = asked.model(384)
    assert (config.type_attention, config.relation_aware) == ("constant", False)
    assert request(shards, tmp_path).asked.most_masked_nodes is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"imagery": "simulated"}, "either a folder of images, or imagery"),
        ({"images": None}, "either a folder of images, or imagery"),
        ({"model_size": "huge"}, "no model size 'huge'"),
        ({"profile": "new"}, "no profile"),
        ({"resume": True, "overwrite": True}, "resumed or overwritten"),
        ({"every": 0}, "1 or more"),
        ({"image_size": 50}, "multiple of 16"),
        ({"training": TrainingSettings(batch_size=99, workers=0)}, "fewer than a batch of 99"),
        ({"training": TrainingSettings(device="tpu")}, "tpu"),
    ],
)
def test_bad_requests_are_refused(shards, tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        pretrain(request(shards, tmp_path / "run", **changes))


def test_missing_data_are_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        pretrain(request(tmp_path / "nowhere", tmp_path / "run"))


def test_a_probe_without_classes_is_refused_before_training(shards, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="folders of pictures"):
        pretrain(request(shards, tmp_path / "run", probe=tmp_path / "empty"))
    with pytest.raises(InputError, match="gone is no folder"):
        pretrain(request(shards, tmp_path / "run", probe=tmp_path / "gone"))
    assert not (tmp_path / "run" / "state.pt").exists()
