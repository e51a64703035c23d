"""The losses and masks of pretraining, against plain code that says the same."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from geolink.config import ModelConfig
from geolink.errors import ConfigError
from geolink.graphs.schema import NODE_TYPES
from geolink.models.geolink import GeoLink
from geolink.models.graph_batch import collate
from geolink.models.objectives import (
    Masks,
    ObjectiveConfig,
    Objectives,
    SampleMask,
    hide_nodes,
    info_nce,
    patchify,
    unpatchify,
)

SIDE, PATCHES, DIM = 64, 16, 8
COUNTS = ((2, 5, 9), (0, 3, 1), (0, 0, 0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ModelConfig(image_size=SIDE, semantic_dim=DIM, pretraining=True, dropout=0.0)
    return GeoLink(config)


@pytest.fixture(scope="module")
def graphs(make_graph):
    return [make_graph(*counts, seed=i, dim=DIM) for i, counts in enumerate(COUNTS)]


def draw(seed=0, config=None, counts=COUNTS[0]):
    nodes = dict(zip(NODE_TYPES, counts, strict=True))
    rng = np.random.default_rng(seed)
    return SampleMask.draw(rng, config or ObjectiveConfig(), patches=PATCHES, nodes=nodes)


def images(count=3):
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def masks_of(counts=COUNTS):
    return Masks.join([draw(i, counts=c) for i, c in enumerate(counts)])


def batch_of(graphs):
    return collate(graphs, len(graphs), semantic_dim=DIM)


# Masks


def test_mask_splits_the_patches():
    mask = draw()
    assert len(mask.visible) == PATCHES // 4
    assert sorted([*mask.visible, *mask.hidden]) == list(range(PATCHES))
    assert list(mask.visible) == sorted(mask.visible)


def test_mask_hides_a_share_of_all_nodes_and_one_of_each_type():
    for seed in range(20):
        mask = draw(seed, counts=(1, 4, 45))
        assert all(mask.nodes[kind].any() for kind in NODE_TYPES)
        assert sum(mask.nodes[kind].sum() for kind in NODE_TYPES) == 10


def test_mask_keeps_to_the_released_limit():
    mask = draw(config=ObjectiveConfig(most_masked_nodes=10), counts=(100, 100, 100))
    assert sum(mask.nodes[kind].sum() for kind in NODE_TYPES) == 10
    assert all(mask.nodes[kind].any() for kind in NODE_TYPES)


def test_mask_of_a_tile_without_osm_is_empty():
    assert [len(nodes) for nodes in draw(counts=(0, 0, 0)).nodes.values()] == [0, 0, 0]


def test_mask_follows_from_its_generator():
    first, again, other = draw(3), draw(3), draw(4)
    assert np.array_equal(first.visible, again.visible)
    assert not np.array_equal(first.visible, other.visible)


def test_hidden_nodes_lose_their_meaning_only(graphs):
    batch, masks = batch_of(graphs), masks_of()
    tokens = {kind: torch.full((1, DIM), 7.0) for kind in NODE_TYPES}
    masked = hide_nodes(batch, masks.nodes, tokens)
    for kind in NODE_TYPES:
        hidden = masks.nodes[kind]
        assert (masked.x[kind][hidden] == 7).all()
        assert torch.equal(masked.x[kind][~hidden], batch.x[kind][~hidden])
        assert torch.equal(masked.keypoints[kind], batch.keypoints[kind])
    assert masked.edge_index is batch.edge_index


# Losses


def test_patches_come_back():
    pixels = images()
    patches = patchify(pixels, 16)
    assert patches.shape == (3, PATCHES, 16 * 16 * 3)
    # The second patch of the first row, its second pixel, green.
    assert patches[0, 1, 1 * 3 + 1] == pixels[0, 1, 0, 17]
    assert torch.equal(unpatchify(patches, (4, 4), 16), pixels)


def test_reconstruction_is_measured_on_normalised_hidden_patches(model, graphs):
    pixels, masks = images(), masks_of()
    config = ObjectiveConfig(contrast=0, consistency=0)
    loss = Objectives(model, config)(pixels, batch_of(graphs), masks)["reconstruction"]
    features = model.image(pixels, masks.visible)
    predicted = model.pretraining.patch_decoder(features.tokens, masks.visible, (4, 4))
    errors = []
    for tile in range(3):
        for patch in masks.hidden[tile].tolist():
            row, col = divmod(patch, 4)
            target = pixels[tile, :, row * 16 : row * 16 + 16, col * 16 : col * 16 + 16]
            target = target.permute(1, 2, 0).flatten()
            target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            errors.append((predicted[tile, patch] - target).square().mean())
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_hidden_patches_never_reach_the_encoder(model, graphs):
    pixels, masks = images(), masks_of()
    seen = []
    hook = model.image.vit.blocks[0].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[1])
    )
    first = model.image(pixels, masks.visible).tokens
    hook.remove()
    changed = patchify(pixels, 16)
    for tile in range(3):
        changed[tile, masks.hidden[tile]] = 9.0
    second = model.image(unpatchify(changed, (4, 4), 16), masks.visible).tokens
    assert seen == [1 + PATCHES // 4]
    assert torch.equal(first, second)


def test_all_patches_visible_is_the_whole_image(model):
    everything = torch.arange(PATCHES).expand(3, -1)
    whole, kept = model.image(images()), model.image(images(), everything)
    torch.testing.assert_close(whole.tokens, kept.tokens)


def test_contrast_is_cross_entropy_both_ways():
    a, b = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    scores = functional.cosine_similarity(a[:, None], b[None], dim=2) / 0.2
    rows = -scores.log_softmax(1).diagonal().mean()
    columns = -scores.log_softmax(0).diagonal().mean()
    torch.testing.assert_close(info_nce(a, b, temperature=0.2), (rows + columns) / 2)


@pytest.mark.parametrize("pairs", [0, 1])
def test_contrast_of_too_few_pairs_is_nothing(pairs):
    a = torch.randn(pairs, 4, requires_grad=True)
    loss = info_nce(a, torch.randn(pairs, 4), temperature=0.2)
    loss.backward()
    assert loss == 0


def test_tiles_without_osm_take_no_part_in_the_contrast(model, graphs):
    task = Objectives(model, ObjectiveConfig(reconstruction=0, consistency=0))
    three = task(images(3), batch_of(graphs), masks_of())["contrast"]
    two = task(images(3)[:2], batch_of(graphs[:2]), masks_of(COUNTS[:2]))["contrast"]
    torch.testing.assert_close(three, two)


def test_consistency_compares_masked_nodes_with_their_true_meaning(model, graphs):
    config = ObjectiveConfig(reconstruction=0, contrast=0)
    pixels, batch, masks = images(), batch_of(graphs), masks_of()
    loss = Objectives(model, config)(pixels, batch, masks)["consistency"]
    masked = hide_nodes(batch, masks.nodes, dict(model.pretraining.node_mask))
    features = model.image(pixels, masks.visible)
    objects = model.fusion.objects(features, model.osm(masked), masked)
    per_tile = [[], [], []]
    for kind in NODE_TYPES:
        for row in masks.nodes[kind].nonzero()[:, 0].tolist():
            error = model.pretraining.node_decoder(objects[kind][row]) - batch.x[kind][row]
            per_tile[batch.tile[kind][row]].append(error.square().mean())
    means = [torch.stack(errors).mean() for errors in per_tile if errors]
    torch.testing.assert_close(loss, sum(means) / 3)


@pytest.mark.parametrize("name", ["reconstruction", "consistency"])
def test_loss_of_a_tile_does_not_depend_on_its_batch(model, graphs, name):
    weights = dict.fromkeys(("reconstruction", "contrast", "consistency"), 0.0)
    task = Objectives(model, ObjectiveConfig(**weights | {name: 1.0}))
    pixels, masks = images(), [draw(i, counts=c) for i, c in enumerate(COUNTS)]
    together = task(pixels, batch_of(graphs), Masks.join(masks))[name]
    alone = [
        task(pixels[i : i + 1], batch_of([graphs[i]]), Masks.join([masks[i]]))[name]
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_objectives_without_weight_are_not_worked_out(model, graphs):
    config = ObjectiveConfig(contrast=0, consistency=0)
    task = Objectives(model, config)
    assert task(images(), batch_of(graphs), masks_of()).keys() == {"reconstruction"}
    assert model.osm not in task.parts_in_use()


def test_total_is_weighted():
    losses = {"reconstruction": torch.tensor(2.0), "contrast": torch.tensor(3.0)}
    assert ObjectiveConfig(contrast=0.1).total(losses).item() == pytest.approx(2.3)


def test_reconstructed_picture_keeps_what_was_seen(model):
    pixels, masks = images(), masks_of()
    with torch.no_grad():
        picture = Objectives(model, ObjectiveConfig()).reconstruct(pixels, masks)
    before, after = patchify(pixels, 16), patchify(picture, 16)
    for tile in range(3):
        assert torch.equal(before[tile, masks.visible[tile]], after[tile, masks.visible[tile]])
        assert not torch.equal(before[tile, masks.hidden[tile]], after[tile, masks.hidden[tile]])


@pytest.mark.parametrize(
    "settings",
    [
        {"reconstruction": -1},
        {"reconstruction": 0, "contrast": 0, "consistency": 0},
        {"patch_share": 1.0},
        {"node_share": 0.0},
        {"most_masked_nodes": 2},
        {"temperature": 0.0},
        {"contrast": float("nan")},
    ],
)
def test_contradictory_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        ObjectiveConfig(**settings)


def test_a_model_without_pretraining_modules_is_refused():
    with torch.device("meta"):
        model = GeoLink(ModelConfig(image_size=32))
    with pytest.raises(ConfigError, match="pretraining=True"):
        Objectives(model, ObjectiveConfig())
