from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import write_model

from geolink.checkpoint import load_model, save_checkpoint
from geolink.config import ModelConfig
from geolink.errors import ConfigError, InputError
from geolink.legend import Legend, new_legend
from geolink.metrics.confusion import ConfusionMatrix
from geolink.models.additions import add_painting
from geolink.models.geolink import GeoLink
from geolink.samples import Sample, normalise
from geolink.splits import random_split, save_split
from geolink.workflows.evaluate import evaluate
from geolink.workflows.evaluate_samples import View
from geolink.workflows.trials import Trial

SIDE = 64
EACH = 24  # pictures per class; 20 of 36 vote in kNN
QUICK = {"device": "cpu", "offline": True, "draws": 20}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def picture(rng, color):
    return np.clip(np.array(color) + rng.integers(-25, 25, (SIDE, SIDE, 3)), 0, 255)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model for pictures of 64 pixels."""
    return write_model(tmp_path_factory.mktemp("small") / "model", image_size=SIDE)


def with_head(folder, target, *, task, classes, **card):
    """The encoders of a model under an untrained head for another task."""
    base = load_model(folder)
    config = replace(base.config, task=task, classes=classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = GeoLink(config)
    save_checkpoint(target, model, replace(base.card, config=config, **card))
    return target


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Pictures of three colours in folders."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    for name, color in (("lake", (20, 60, 160)), ("sand", (210, 180, 120)), ("wood", (30, 90, 30))):
        for i in range(EACH):
            save(folder / name / f"{i:02d}.png", picture(rng, color))
    return folder


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Labelled tiles in the published layout: class numbers, 9 and 255 ignored."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(1)
    for i in range(3):
        save(folder / "img" / f"city_{i}.png", picture(rng, (100, 90, 80)))
        label = rng.integers(0, 9, (8, 8)).repeat(8, axis=0).repeat(8, axis=1)
        label[:8], label[8:16] = 9, 255
        save(folder / "label" / f"city_{i}.png", label)
    return folder


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_probes_tell_colours_apart(scenes, model, protocol):
    report = evaluate(data=scenes, model=model, protocol=protocol, seeds=2, **QUICK).report
    assert report.measures == "classification"
    assert report.legend.names == ("lake", "sand", "wood")
    assert report.main.figures["accuracy"].value > 0.9
    assert len(report.main.figures["accuracy"].runs) == 2
    assert report.main.whole.confusion.counts.sum() == 2 * 30
    assert [c.kind for c in report.conditions] == ["main"]


def test_probes_are_disturbed_too_and_take_fewer_labels(scenes, model):
    settings = {"data": scenes, "model": model, "protocol": "linear", **QUICK}
    report = evaluate(**settings, cloud=(1.0,), fraction=0.2).report
    main, cloudy = (c.figures["accuracy"].value for c in report.conditions)
    assert main > cloudy
    assert report.settings["fraction"] == 0.2


def test_probes_take_a_saved_split(scenes, model, tmp_path):
    keys = [f"{name}/{i:02d}" for name in ("lake", "sand", "wood") for i in range(EACH)]
    save_split(random_split(keys, shares=(0.6, 0.1, 0.3), seed=4), tmp_path / "split.json")
    settings = {"data": scenes, "model": model, "protocol": "knn", **QUICK}
    report = evaluate(**settings, split=tmp_path / "split.json").report
    assert report.main.whole.confusion.counts.sum() == 22
    save_split(random_split(["a", "b", "c", "d"]), tmp_path / "other.json")
    with pytest.raises(InputError, match="which the data does not have"):
        evaluate(**settings, split=tmp_path / "other.json")


def test_an_encoder_without_a_head_can_be_probed(scenes, model, tmp_path):
    bare = load_model(model)
    save_checkpoint(tmp_path, bare, replace(bare.card, legend=Legend("untrained", ())))
    report = evaluate(data=scenes, model=tmp_path, protocol="knn", **QUICK).report
    assert report.main.figures["accuracy"].value > 0.9


def test_labelled_tiles_are_measured_without_what_is_ignored(tiles, model):
    report = evaluate(data=tiles, model=model, **QUICK).report
    assert list(report.main.blocks) == ["city_0", "city_1", "city_2"]
    assert report.main.whole.confusion.pixels == 3 * SIDE * (SIDE - 16)
    assert "3 samples" in report.notes[0]
    assert "1 m per pixel is assumed" in report.notes[1]
    loaded = load_model(model)
    with Image.open(tiles / "img" / "city_0.png") as file:
        rgb = np.asarray(file).transpose(2, 0, 1)
    with Image.open(tiles / "label" / "city_0.png") as file:
        label = np.asarray(file)
    with torch.inference_mode():
        answer = loaded(normalise(rgb)[None])[0].argmax(0).numpy().astype(np.uint8)
    known = np.where(label < 9, label, 255).astype(np.uint8)
    expected = ConfusionMatrix.of(known, answer, classes=9)
    found = report.main.blocks["city_0"].confusion
    np.testing.assert_array_equal(found.counts, expected.counts)


def test_the_scale_can_be_given(tiles, model):
    report = evaluate(data=tiles, model=model, gsd=3.0, **QUICK).report
    assert not any("assumed" in note for note in report.notes)


def test_the_published_tiles_load_with_their_graphs(shared_data, tmp_path):
    """The graphs hold CLIP vectors, which a model of the released profile reads."""
    base = load_model(write_model(tmp_path / "base"))
    config = ModelConfig.released("vit_tiny_patch16_224")
    config = replace(config, pretraining=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        released = GeoLink(config)
    card = replace(base.card, config=config, tag_encoder="clip-openai/clip-vit-base-patch16")
    save_checkpoint(tmp_path / "released", released, card)
    folder = shared_data / "geolink_examples" / "ufz"
    report = evaluate(data=folder, model=tmp_path / "released", **QUICK).report
    assert [c.kind for c in report.conditions] == ["main", "no_osm"]
    with_osm, alone = (c.figures["ece"].value for c in report.conditions)
    assert with_osm != alone
    # Pixels with 9 or 255 are ignored.
    assert report.main.whole.confusion.pixels == 20_614 + 42_487 + 50_176
    assert "no measure of accuracy" in report.notes[0]
    blind = evaluate(data=folder, model=tmp_path / "base", **QUICK).report
    assert blind.main.name == "image alone"
    painting = add_painting(load_model(tmp_path / "released"))
    save_checkpoint(tmp_path / "painting", painting, painting.card)
    with pytest.raises(ConfigError, match="hold no outlines"):
        evaluate(data=folder, model=tmp_path / "painting", **QUICK)


def test_regression(model, tmp_path):
    rng = np.random.default_rng(2)
    values = rng.normal(50, 10, 12)
    lines = ["file,people"] + [f"{i}.png,{value:.3f}" for i, value in enumerate(values)]
    for i in range(12):
        save(tmp_path / "data" / f"{i}.png", picture(rng, (100, 100, 100)))
    (tmp_path / "data" / "values.csv").write_text("\n".join(lines))
    head = {"task": "regress", "classes": 1, "legend": new_legend("people", ["people"])}
    numbers = with_head(model, tmp_path / "model", **head)
    report = evaluate(data=tmp_path / "data", model=numbers, protocol="regress", **QUICK).report
    assert set(report.main.figures) == {"r2", "rmse", "mae"}
    assert report.main.whole.count == 12
    assert report.main.figures["r2"].value < 0.5  # it has learned nothing
    with pytest.raises(ConfigError, match="answers the task segment"):
        evaluate(data=tmp_path / "data", model=model, protocol="regress", **QUICK)


def test_change(model, tmp_path):
    rng = np.random.default_rng(3)
    for i in range(2):
        before = picture(rng, (90, 120, 90))
        after = before.copy()
        after[16:40, 16:40] = 230
        for name, shown in (("A", before), ("B", after)):
            save(tmp_path / "data" / name / f"{i}.png", shown)
        save(tmp_path / "data" / "label" / f"{i}.png", 255 * (np.abs(after - before).sum(2) > 0))
    head = {"task": "change", "classes": 2}
    pairs = with_head(model, tmp_path / "m", **head, legend=new_legend("x", ["same", "changed"]))
    settings = {"data": tmp_path / "data", "model": pairs, "protocol": "change", **QUICK}
    report = evaluate(**settings, blur=(1.0,), gsd=1.0).report
    assert report.main.whole.confusion.referenced.tolist() == [2 * (SIDE**2 - 24**2), 2 * 24**2]
    assert [c.kind for c in report.conditions] == ["main", "blur"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"protocol": "knn", "osm_shift": (3.0,)}, ConfigError, "without OSM"),
        ({"protocol": "knn", "split": "none.json"}, InputError, "not readable"),
        ({"protocol": "knn", "split": "blocks"}, InputError, "no place on the ground"),
        ({"protocol": "segment"}, InputError, "no folder img"),
        ({"protocol": "knn", "fail_under": ("miou=1",)}, ConfigError, "knows accuracy"),
    ],
)
def test_what_pictures_cannot_is_refused(scenes, model, settings, error, message):
    with pytest.raises(error, match=message):
        evaluate(data=scenes, model=model, **settings, **QUICK)


def test_tiles_without_any_label_are_refused(tiles, model, tmp_path):
    for path in (tiles / "img").iterdir():
        save(tmp_path / "img" / path.name, np.zeros((SIDE, SIDE, 3)))
        save(tmp_path / "label" / path.name, np.full((SIDE, SIDE), 255))
    with pytest.raises(InputError, match="no pixel of the samples has a label"):
        evaluate(data=tmp_path, model=model, **QUICK)


def test_a_model_of_other_classes_is_refused(tiles, model, tmp_path):
    few = with_head(model, tmp_path / "few", task="classify", classes=9)
    with pytest.raises(ConfigError, match="answers the task classify"):
        evaluate(data=tiles, model=few, **QUICK)


def test_pictures_are_degraded_by_their_own_cloud():
    rgb = np.full((3, SIDE, SIDE), 60, np.uint8)
    sample = Sample(rgb, None, np.zeros((SIDE, SIDE), np.uint8), {})
    view = View(Trial("x", "cloud", 0.5), 0, 10.0, with_osm=False)
    shown = [view.apply(key, sample).rgb for key in ("a", "b", "a")]
    assert not np.array_equal(shown[0], shown[1])
    np.testing.assert_array_equal(shown[0], shown[2])
    assert np.array_equal(view.apply("a", sample).label, sample.label)
    plain = View(Trial("x"), 0, 10.0, with_osm=False).apply("a", sample)
    np.testing.assert_array_equal(plain.rgb, rgb)


def test_a_blurred_picture_keeps_its_edges():
    rgb = np.full((3, SIDE, SIDE), 60, np.uint8)
    sample = Sample(rgb, None, np.zeros((SIDE, SIDE), np.uint8), {})
    view = View(Trial("x", "blur", 3.0), 0, 1.0, with_osm=False)
    np.testing.assert_array_equal(view.apply("a", sample).rgb, rgb)
