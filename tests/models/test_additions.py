import pytest
import torch
from synthetic import write_model

from geolink.checkpoint import load_model
from geolink.config import ModelConfig
from geolink.errors import ConfigError
from geolink.models.additions import add_bands, add_painting
from geolink.models.geolink import GeoLink


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GeoLink(ModelConfig(image_size=32, pretraining=True)).eval()


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return load_model(write_model(tmp_path_factory.mktemp("known") / "m", image_size=32))


@torch.no_grad()
def test_new_bands_change_nothing_at_first(model, make_graph):
    images, graph = torch.randn(1, 5, 32, 32), make_graph(2, 2, 2)
    wider = add_bands(model, 5)
    assert wider.config.bands == 5
    assert torch.equal(wider(images, graph), wider(images * RGB_ONLY, graph))
    torch.testing.assert_close(wider(images, graph), model(images[:, :3], graph))


RGB_ONLY = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]).view(5, 1, 1)


def test_new_bands_learn(model):
    wider = add_bands(model, 4).train()
    wider(torch.randn(1, 4, 32, 32)).square().mean().backward()
    assert wider.image.vit.patch_embed.proj.weight.grad[:, 3].abs().sum() > 0
    assert model.image.vit.patch_embed.proj.weight.grad is None


@torch.no_grad()
def test_the_pixels_of_known_bands_are_still_predicted(model):
    tokens, visible = torch.randn(1, 3, 192), torch.tensor([[0, 3]])
    old = model.pretraining.patch_decoder(tokens, visible, (2, 2))
    new = add_bands(model, 4).pretraining.patch_decoder(tokens, visible, (2, 2))
    assert new.shape == (1, 4, 16 * 16 * 4)
    torch.testing.assert_close(new.view(1, 4, 256, 4)[..., :3], old.view(1, 4, 256, 3))


@torch.no_grad()
def test_painting_changes_nothing_at_first(known, covered_graph):
    graph = covered_graph(2, 2, 2, side=2)
    painting = add_painting(known)
    assert painting.config.paint_objects
    assert painting.card.config == painting.config
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(painting(images, graph), known(images, graph))
    assert not known.config.paint_objects
    assert add_painting(painting) is painting


def test_painting_learns(known, covered_graph):
    painting = add_painting(known).train()
    graph = covered_graph(2, 2, 2, side=2)
    painting(torch.randn(1, 3, 32, 32), graph).square().mean().backward()
    assert painting.fusion.painting.mix.weight.grad.abs().sum() > 0


def test_fewer_bands_are_refused(model):
    with pytest.raises(ConfigError, match="already has 3 bands"):
        add_bands(model, 3)
