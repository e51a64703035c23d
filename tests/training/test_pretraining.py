"""The pretraining task: masks that follow from a sample's name, and batches over processes."""

import numpy as np
import pytest
import torch
from synthetic import StubEncoder, write_shards

from geolink.augment import Augmentation
from geolink.config import ModelConfig
from geolink.graphs.schema import NODE_TYPES
from geolink.models.geolink import GeoLink
from geolink.models.objectives import ObjectiveConfig
from geolink.shards import Draw, ShardDataset
from geolink.training.distributed import gather
from geolink.training.pretraining import MaskedSamples, PretrainTask

CONFIG = ModelConfig(image_size=32, semantic_dim=StubEncoder.dim, pretraining=True, dropout=0.0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = write_shards(tmp_path_factory.mktemp("shards"), 6, side=32)
    data = ShardDataset(folder, encoder=StubEncoder(), augmentation=Augmentation(), side=32)
    return MaskedSamples(data, CONFIG, objectives=ObjectiveConfig(), seed=0)


def make_task(objectives=None):
    torch.manual_seed(0)
    return PretrainTask(GeoLink(CONFIG), objectives or ObjectiveConfig())


def batch(samples, indices, epoch=0):
    return samples.join([samples[Draw(epoch, index)] for index in indices])


def test_masks_follow_from_epoch_and_name(samples):
    first, again, later = (samples[Draw(epoch, 2)].mask for epoch in (0, 0, 1))
    for kind in NODE_TYPES:
        assert np.array_equal(first.nodes[kind], again.nodes[kind])
    assert np.array_equal(first.visible, again.visible)
    other = [samples[Draw(epoch, 2)].mask.visible.tolist() for epoch in range(8)]
    assert len({tuple(places) for places in other}) > 1
    assert len(later.visible) == len(first.visible) == 1


def test_batch_joins_samples_in_their_order(samples):
    joined = batch(samples, [3, 0])
    assert joined.images.shape == (2, 3, 32, 32)
    assert joined.keys == ("made-up_00003", "made-up_00000")
    for kind in NODE_TYPES:
        assert len(joined.masks.nodes[kind]) == len(joined.graphs.x[kind])


def test_images_are_normalised_on_the_device(samples):
    from geolink.samples import normalise

    joined = batch(samples, [1])
    expected = normalise(joined.images.numpy())
    torch.testing.assert_close(make_task().normalise(joined.images), expected)


@pytest.mark.parametrize("off", ["reconstruction", "contrast", "consistency"])
def test_every_weight_that_is_trained_has_a_gradient(samples, off):
    task = make_task(ObjectiveConfig(**{off: 0.0}))
    task(batch(samples, [0, 1]))["loss"].backward()
    trained = [name for name, weight in task.named_parameters() if weight.requires_grad]
    without = [name for name, w in task.named_parameters() if w.requires_grad and w.grad is None]
    assert trained
    assert without == []
    assert not any(w.requires_grad for w in task.objectives.model.decoder.parameters())


def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(samples, processes, tmp_path):
    whole = make_task()
    losses = whole(batch(samples, [0, 1, 2, 3]))
    losses["loss"].backward()

    def half():
        rank = int(torch.distributed.get_rank())
        task = make_task()
        parallel = torch.nn.parallel.DistributedDataParallel(task)
        found = parallel(batch(samples, [2 * rank, 2 * rank + 1]))
        found["loss"].backward()
        gradients = {n: w.grad for n, w in task.named_parameters() if w.grad is not None}
        values = {name: loss.detach() for name, loss in found.items()}
        torch.save((values, gradients), tmp_path / f"{rank}.pt")

    def work():
        torch.distributed.init_process_group("gloo")
        half()
        torch.distributed.destroy_process_group()

    assert processes(work, 2) == [0, 0]
    (values, gradients), (others, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, loss in losses.items():
        torch.testing.assert_close((values[name] + others[name]) / 2, loss, rtol=1e-5, atol=1e-6)
    assert values["contrast"] == others["contrast"]
    for name, weight in whole.named_parameters():
        if weight.requires_grad:
            torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-3, atol=1e-6)


def test_gather_alone_is_nothing():
    tensor = torch.ones(2, 3)
    assert gather(tensor) is tensor
