import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from synthetic import write_model
from torch.nn import functional

from geolink.checkpoint import load_model
from geolink.config import ModelConfig
from geolink.datasets.base import Item, LabelledData
from geolink.errors import ConfigError
from geolink.legend import IGNORE, UFZ, new_legend
from geolink.models.additions import add_painting
from geolink.samples import Sample
from geolink.shards import Draw
from geolink.training.finetuning import (
    FinetuneSettings,
    FinetuneTask,
    class_loss,
    class_weights,
    merge_lora,
    model_for,
    scale_answers,
)
from geolink.training.labelled import Collate, LabelledSamples, Variation

SIDE = 32


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_model(write_model(tmp_path_factory.mktemp("base") / "m", image_size=SIDE))


class Squares(LabelledData):
    """Bright squares are one class, dark ones another; their brightness is the number."""

    def __init__(self, task, count=6):
        legend = new_legend("x", ["value"] if task == "regress" else ["dark", "bright"])
        super().__init__(task, legend, [Item(str(i)) for i in range(count)])

    def sample(self, key):
        shape = (2, 3, SIDE, SIDE) if self.task == "change" else (3, SIDE, SIDE)
        rng = np.random.default_rng(int(key))
        rgb = rng.integers(0, 60, shape).astype(np.uint8) + np.uint8(150 * (int(key) % 2))
        return Sample(rgb, None, self.label(key), {})

    def label(self, key):
        number = int(key) % 2
        if self.task == "regress":
            return np.array([100.0 * number + 7], np.float32)
        if self.task == "classify":
            return np.array(number, np.uint8)
        return np.full((SIDE, SIDE), number, np.uint8)


def batch_of(data, model, variation=None):
    samples = LabelledSamples(data, data.keys, variation=variation)
    return Collate(model.config)([samples[Draw(0, i)] for i in range(len(samples))])


class TestModel:
    def test_encoders_are_kept_and_a_new_head_follows_the_seed(self, base):
        legend = new_legend("two", ["a", "b"])
        one, same, other = (model_for(base, "segment", legend, seed=s) for s in (0, 0, 1))
        for name, weight in base.state_dict().items():
            if not name.startswith("decoder."):
                assert torch.equal(one.state_dict()[name], weight)
        head = one.decoder.classify.weight
        assert head.shape[0] == 2
        assert torch.equal(head, same.decoder.classify.weight)
        assert not torch.equal(head, other.decoder.classify.weight)

    def test_the_same_classes_keep_their_head(self, base):
        model = model_for(base, "segment", UFZ, seed=0)
        assert torch.equal(model.decoder.classify.weight, base.decoder.classify.weight)

    def test_pretraining_modules_are_left_out(self, base):
        with_them = model_for(base, "segment", UFZ, seed=0)
        with_them = type(base)(ModelConfig(image_size=SIDE, pretraining=True))
        with_them.card = base.card
        model = model_for(with_them, "classify", new_legend("x", ["a", "b"]), seed=0)
        assert model.pretraining is None


class TestLearning:
    def learning(self, task):
        return {name for name, weight in task.named_parameters() if weight.requires_grad}

    def test_frozen_trains_the_head_alone(self, base):
        task = FinetuneTask(model_for(base, "segment", UFZ, seed=0), FinetuneSettings("frozen"))
        assert all(name.startswith("model.decoder.") for name in self.learning(task))
        task.train()
        assert not task.model.image.training
        assert task.model.decoder.training

    def test_painting_that_is_new_learns_like_the_head(self, base):
        settings = FinetuneSettings("frozen", paint_objects=True)
        painting = model_for(add_painting(base), "segment", UFZ, seed=0)
        task = FinetuneTask(painting, settings)
        encoders = {n for n in self.learning(task) if not n.startswith("model.decoder.")}
        assert encoders == {"model.fusion.painting.mix.weight"}
        assert task.rate_scale("model.fusion.painting.mix.weight") == 1
        known = FinetuneTask(painting, FinetuneSettings("full"))
        assert known.rate_scale("model.fusion.painting.mix.weight") == 0.01

    def test_encoders_learn_slowly(self, base):
        task = FinetuneTask(model_for(base, "segment", UFZ, seed=0), FinetuneSettings("full"))
        left = {name for name, _ in task.named_parameters()} - self.learning(task)
        assert all("object_" in name or "nodes_from_image" in name for name in left)
        assert task.rate_scale("model.image.cls_token") == 0.01
        assert task.rate_scale("model.decoder.classify.weight") == 1

    @pytest.mark.parametrize("mode", ["frozen", "full", "lora"])
    def test_all_that_learns_has_a_gradient_whatever_the_batch(self, base, mode):
        data = Squares("segment")  # without any object
        model = model_for(base, "segment", data.legend, seed=0)
        task = FinetuneTask(model, FinetuneSettings(mode))
        task(batch_of(data, model))["loss"].backward()
        without = {name for name in self.learning(task) if task.get_parameter(name).grad is None}
        assert not without

    def test_lora_starts_from_the_model_and_merges_into_it(self, base):
        model = model_for(base, "classify", new_legend("x", ["dark", "bright"]), seed=0).eval()
        data = Squares("classify")
        images = batch_of(data, model).images.float()
        before = model(images)
        names = set(model.state_dict())
        task = FinetuneTask(model, FinetuneSettings("lora"))
        torch.testing.assert_close(model(images), before)
        learning = self.learning(task)
        assert any("lora_A" in name for name in learning)
        assert all("lora_" in name or "decoder" in name for name in learning)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.02)
        changed = model(images)
        assert not torch.allclose(changed, before)
        merge_lora(model)
        assert set(model.state_dict()) == names
        assert not any(isinstance(module, LoraLayer) for module in model.modules())
        torch.testing.assert_close(model(images), changed, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        "settings",
        [
            {"mode": "half"},
            {"encoder_rate": 0.0},
            {"class_weights": "some"},
            {"focal": -1.0},
            {"lora_rank": 0},
        ],
    )
    def test_bad_settings_are_refused(self, settings):
        with pytest.raises(ConfigError):
            FinetuneSettings(**settings)


class TestLoss:
    scores = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(32).reshape(2, 4, 4) % 3

    def test_it_is_cross_entropy(self):
        labels = self.labels.clone()
        labels[0] = IGNORE
        weights = torch.tensor([1.0, 2.0, 0.5])
        for weight in (None, weights):
            expected = functional.cross_entropy(self.scores, labels, weight, ignore_index=IGNORE)
            torch.testing.assert_close(class_loss(self.scores, labels, weight), expected)

    def test_without_labels_it_is_zero(self):
        labels = torch.full_like(self.labels, IGNORE)
        scores = self.scores.clone().requires_grad_()
        loss = class_loss(scores, labels, torch.ones(3), focal=2.0)
        loss.backward()
        assert loss.item() == 0
        assert (scores.grad == 0).all()

    def test_focal_weighs_by_what_is_missed(self):
        chance = self.scores.softmax(1).gather(1, self.labels[:, None])
        expected = (-((1 - chance) ** 2) * chance.log()).mean()
        torch.testing.assert_close(class_loss(self.scores, self.labels, focal=2.0), expected)

    def test_weights_of_classes(self):
        counts = np.array([900, 100, 0])
        assert class_weights(counts, "none") is None
        inverse, root = (class_weights(counts, kind) for kind in ("inverse", "sqrt"))
        assert inverse.mean() == pytest.approx(1)
        assert inverse[1] / inverse[0] == pytest.approx(9)
        assert root[1] / root[0] == pytest.approx(3)
        assert np.isfinite(inverse).all()

    @pytest.mark.parametrize("task", ["segment", "classify", "regress", "change"])
    def test_every_task_learns(self, base, task):
        data = Squares(task)
        model = model_for(base, task, data.legend, seed=0)
        if task == "regress":
            scale_answers(model, np.stack([data.label(key) for key in data.keys]))
        learner = FinetuneTask(model, FinetuneSettings("frozen"))
        batch = batch_of(data, model)
        optimizer = torch.optim.Adam((p for p in learner.parameters() if p.requires_grad), lr=3e-3)
        losses = []
        for _ in range(12):
            loss = learner(batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if task == "change":  # both dates are noise of one brightness: little to tell them by
            assert losses[-1] < losses[0]
        else:
            assert losses[-1] < 0.5 * losses[0]


def distance_to_scaled(picture, original):
    """Root mean square of what is left of a picture after each band was scaled and shifted."""
    left = []
    for band, before in zip(picture, original.astype(float), strict=True):
        inner = (band > 0) & (band < 255)
        fit = np.polyfit(before[inner], band[inner], 1)
        left.append((np.polyval(fit, before[inner]) - band[inner]) ** 2)
    return np.sqrt(np.concatenate(left).mean())


class TestVariation:
    def test_it_follows_seed_epoch_and_name(self):
        data = Squares("segment")
        samples = LabelledSamples(data, data.keys, seed=3, variation=Variation())
        again = LabelledSamples(data, data.keys[::-1], seed=3, variation=Variation())
        first = samples[Draw(1, 0)].sample.rgb
        np.testing.assert_array_equal(first, again[Draw(1, 5)].sample.rgb)
        assert not np.array_equal(first, samples[Draw(2, 0)].sample.rgb)

    def test_mixed_looks_are_mild_or_strong(self):
        data = Squares("segment", 40)
        seen = {}
        for kind in ("mild", "mixed", "strong"):
            variation = Variation(appearance=kind, symmetries=False)
            samples = LabelledSamples(data, data.keys, variation=variation)
            pictures = [samples[Draw(0, i)].sample.rgb.astype(float) for i in range(40)]
            # Mild changes scale the bands; of strong ones, noise and mixed bands are left.
            seen[kind] = np.array(
                [distance_to_scaled(p, data.sample(str(i)).rgb) for i, p in enumerate(pictures)]
            )
        assert (seen["mild"] < 1).all()
        assert (seen["strong"] > 1).mean() > 0.9
        assert 0.2 < (seen["mixed"] > 1).mean() < 0.8

    def test_the_order_is_a_permutation_of_its_own_each_epoch(self):
        samples = LabelledSamples(Squares("segment", 50), Squares("segment", 50).keys)
        first, second = samples.order(0, 0), samples.order(0, 1)
        assert sorted(first) == sorted(second) == list(range(50))
        assert not np.array_equal(first, second)

    def test_labels_of_images_are_not_turned(self):
        data = Squares("regress")
        samples = LabelledSamples(data, data.keys, variation=Variation())
        assert all(samples[Draw(e, 1)].sample.label.tolist() == [107.0] for e in range(4))
