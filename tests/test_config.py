import pytest

from geolink.config import ModelConfig
from geolink.errors import ConfigError


def test_round_trip():
    config = ModelConfig("vit_base_patch16_224", classes=4, feature_blocks=(1, 3, 9), max_nodes=80)
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("encoder", "blocks"),
    [("vit_tiny_patch16_224", (2, 5, 8)), ("vit_large_patch16_224", (7, 11, 15))],
)
def test_feature_blocks_follow_the_depth(encoder, blocks):
    assert ModelConfig(encoder).feature_blocks == blocks


def test_the_released_profile():
    config = ModelConfig.released()
    assert config.image_encoder == "vit_large_patch16_224"
    assert (config.semantic_dim, config.max_nodes) == (512, 50)
    assert (config.relation_aware, config.type_attention) == (False, "constant")
    assert config.grid_size == 14


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_encoder": "resnet50"}, "no image encoder 'resnet50'"),
        ({"image_size": 100}, "multiple of 16 pixels, got 100"),
        ({"classes": 0}, "classes must be a whole number from 1"),
        ({"classes": True}, "classes must be a whole number"),
        ({"bands": 1}, "bands must be a whole number from 3"),
        ({"osm_layers": 10**9}, "osm_layers must be a whole number from 1 to 16"),
        ({"fusion_dim": 250}, "fusion_dim must be a multiple of 4 and of fusion_heads"),
        ({"decoder_width": 12}, "decoder_width must be a multiple of 8"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"dropout": "none"}, "dropout must lie in"),
        ({"max_nodes": 0}, "max_nodes must be a whole number from 1"),
        ({"relation_aware": 1}, "relation_aware must be true or false"),
        ({"type_attention": "mean"}, "type_attention must be one of softmax, constant"),
        ({"position": "centroid"}, "position must be one of keypoints, coverage"),
        ({"osm_norm": "type"}, "osm_norm must be one of node, tile, batch"),
        ({"feature_blocks": [2, 5, 12]}, "three rising block numbers below 12"),
        ({"feature_blocks": [5, 2, 8]}, "three rising block numbers"),
        ({"feature_blocks": [2, 5]}, "three rising block numbers"),
        ({"feature_blocks": "258"}, "feature_blocks must be a list"),
        ({"feature_blocks": [2, 5, "8"]}, "feature_blocks must be a whole number"),
        ({"fusion": 1}, "unknown model setting 'fusion'"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(settings)
