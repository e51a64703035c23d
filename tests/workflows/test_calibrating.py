"""The temperature of scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from shapely import box
from synthetic import write_model

from geolink.checkpoint import load_model
from geolink.datasets.base import Item, LabelledData
from geolink.graphs.build import graph_from_arrays
from geolink.graphs.schema import NODE_TYPES
from geolink.legend import IGNORE, UFZ
from geolink.samples import Sample
from geolink.training.finetuning import scale_scores
from geolink.workflows.answers import answers
from geolink.workflows.calibrating import fit_temperature

CPU = torch.device("cpu")
SIDE = 32


class Drawn(LabelledData):
    """Noise whose labels are drawn from what a model says, so that it is calibrated."""

    def __init__(self, model, count=6):
        super().__init__("segment", UFZ, [Item(str(i)) for i in range(count)])
        self.labels = {key: np.full((SIDE, SIDE), IGNORE, np.uint8) for key in self.keys}
        for answer in answers(model, self, self.keys, device=CPU):
            rng = np.random.default_rng([5, int(answer.key)])
            passed = answer.values.cumsum(axis=0) < rng.random((SIDE, SIDE))
            self.labels[answer.key] = passed.sum(axis=0).clip(max=8).astype(np.uint8)

    def sample(self, key):
        rgb = np.random.default_rng(int(key)).integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8)
        return Sample(rgb, None, self.label(key), {})

    def label(self, key):
        return self.labels[key]


@pytest.fixture
def model(tmp_path):
    model = load_model(write_model(tmp_path / "m", image_size=SIDE))
    scale_scores(model, 0.3)  # an untrained model says nothing clearly
    return model


def test_a_calibrated_model_stays_as_it_is_and_a_boastful_one_is_dampened(model):
    data = Drawn(model)
    assert fit_temperature(model, data, data.keys, CPU) == pytest.approx(1, rel=0.15)
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(pixels)
    scale_scores(model, 1 / 3)
    with torch.inference_mode():
        torch.testing.assert_close(model(pixels), 3 * before, rtol=1e-4, atol=1e-4)
    assert fit_temperature(model, data, data.keys, CPU) == pytest.approx(3, rel=0.15)


def test_without_labels_nothing_is_changed(model):
    data = Drawn(model, count=1)
    data.labels["0"][:] = IGNORE
    assert fit_temperature(model, data, data.keys, CPU) == 1


def graph_of_a_square(dim):
    shapes = {kind: np.array([], object) for kind in NODE_TYPES}
    shapes["polygon"] = np.array([box(4, 4, 20, 20)])
    semantics = {kind: np.ones((len(shapes[kind]), dim), np.float32) for kind in NODE_TYPES}
    graph = graph_from_arrays(shapes, semantics, (0, 0, SIDE, SIDE))
    for kind in NODE_TYPES:
        graph[kind].object = graph[kind].source
    return graph


def test_samples_count_with_what_gave_their_labels_and_without(model):
    graph, asked = graph_of_a_square(model.config.semantic_dim), []

    class Mapped(Drawn):
        """The first sample has an object that gave its label, the second one that did not."""

        def sample(self, key):
            asked.append(key)
            givers = {kind: np.full(len(graph[kind].x), key == "0") for kind in NODE_TYPES}
            return replace(super().sample(key), graph=graph, givers=givers)

    data = Mapped(model, count=2)
    asked.clear()
    fit_temperature(model, data, data.keys, CPU)
    assert asked == ["0", "1", "0"]
