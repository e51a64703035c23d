import pytest
import torch

from geolink.config import ModelConfig
from geolink.errors import CheckpointError
from geolink.graphs.schema import NODE_TYPES
from geolink.models.geolink import GeoLink
from geolink.models.graph_batch import collate
from geolink.models.released import convert_released

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model(tiny_state):
    """The model as the released code runs it in a batch."""
    model = GeoLink(ModelConfig.released("vit_tiny_patch16_224", osm_norm="batch"))
    result = model.load_state_dict(convert_released(tiny_state).state, strict=False)
    assert all(name.startswith("decoder.") for name in result.missing_keys)
    assert not result.unexpected_keys
    return model.eval()


def relative_error(found, expected):
    expected = torch.as_tensor(expected)
    return float((found - expected).abs().max() / expected.abs().max())


def test_features_are_the_released_ones(model, oracle, oracle_images, oracle_graphs):
    with torch.inference_mode():
        maps = model.encode(oracle_images, oracle_graphs)
    for i in range(3):
        assert relative_error(maps[i][:, :, ::3, ::3], oracle[f"out{i}"]) < TOLERANCE
    assert relative_error(maps[3], oracle["out3"]) < TOLERANCE


def test_node_and_region_encodings_are_the_released_ones(model, oracle, oracle_graphs):
    graphs = collate(oracle_graphs, 2, semantic_dim=512)
    with torch.inference_mode():
        nodes = model.osm(graphs)
        regions = model.pretraining.readout(nodes, graphs)
    for kind in NODE_TYPES:
        assert relative_error(nodes[kind], oracle[f"node.{kind}"]) < TOLERANCE
    for found, expected in zip(regions, oracle["region"], strict=True):
        assert relative_error(found, expected) < TOLERANCE


def test_norm_by_tile_is_the_released_norm_of_each_tile_alone(
    model, tiny_state, oracle_images, oracle_graphs
):
    alone = GeoLink(ModelConfig.released("vit_tiny_patch16_224"))
    alone.load_state_dict(model.state_dict())
    alone.eval()
    with torch.inference_mode():
        together = alone.encode(oracle_images, oracle_graphs)[3]
        for i in range(2):
            released = model.encode(oracle_images[i : i + 1], [oracle_graphs[i]])[3]
            assert relative_error(together[i : i + 1], released) < TOLERANCE


def test_every_released_name_is_accounted_for(official_shapes):
    state = {name: torch.empty(shape, device="meta") for name, shape in official_shapes.items()}
    for name in ("img_pos_embed", "rec_img_pos_embed", "fusion_img_pos_embed"):
        state[name] = mae_like(name, state[name].shape)
    conversion = convert_released(state)
    assert conversion.config == ModelConfig.released("vit_large_patch16_224")
    assert conversion.used.keys() | conversion.left_out.keys() == official_shapes.keys()
    assert not conversion.used.keys() & conversion.left_out.keys()
    with torch.device("meta"):
        expected = GeoLink(conversion.config).state_dict()
    ours = {name: tensor for name, tensor in expected.items() if not name.startswith("decoder.")}
    assert {n: t.shape for n, t in conversion.state.items()} == {
        n: t.shape for n, t in ours.items()
    }
    assert set(conversion.left_out) == {
        "img_pos_embed",
        "rec_img_pos_embed",
        "fusion_img_pos_embed",
        "img_encoder.cls_token",
        "img_encoder.pos_embed",
        "img_encoder.norm.weight",
        "img_encoder.norm.bias",
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
    }


def mae_like(name, shape):
    from geolink.models.positions import embed_grid

    return embed_grid((14, 14), shape[2], grid_size=14, device=torch.device("cpu"))[None]


def test_other_position_tables_are_refused(tiny_state):
    state = {**tiny_state, "img_pos_embed": tiny_state["img_pos_embed"] + 0.1}
    with pytest.raises(CheckpointError, match="img_pos_embed is not the sine-cosine table"):
        convert_released(state)


def test_foreign_names_are_refused(tiny_state):
    with pytest.raises(CheckpointError, match=r"'decode_head\.bias' is not part of it"):
        convert_released({**tiny_state, "decode_head.bias": torch.zeros(3)})


@pytest.mark.parametrize("state", [{}, {"cls_token": torch.tensor(0.0)}])
def test_weights_of_another_kind_are_refused(state):
    with pytest.raises(CheckpointError, match="no released GeoLink model"):
        convert_released(state)
