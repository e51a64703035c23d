"""What a trained model is given besides: further raster bands, and objects laid onto patches."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from geolink.config import ModelConfig
from geolink.errors import ConfigError
from geolink.models.geolink import GeoLink


def add_bands(model: GeoLink, bands: int) -> GeoLink:
    """A model for images with more bands, such as near infrared or height after RGB.

    The weights of the known bands are kept and those of the new ones start at zero, so that before
    any training the new model says what the old one says.

    Args:
        model: the model to start from; it is not changed.
        bands: bands of the new model's images; the first are the old model's.

    Raises:
        ConfigError: the model already has as many bands.
    """
    known = model.config.bands
    if bands <= known:
        raise ConfigError(f"the model already has {known} bands; ask for more than that")

    def widened(name: str, shape: torch.Size) -> Tensor:
        return _widened(model.get_parameter(name), shape, known, bands)

    return _changed(model, replace(model.config, bands=bands), widened)


def add_painting(model: GeoLink) -> GeoLink:
    """A model whose patches also take the encodings of the objects that lie in them.

    The new weights start at zero, so that before any training the new model says what the old one
    says; but one that fuses no more than its largest nodes tells these by their coverage from then
    on. A model that has the weights already is returned as it is.

    Args:
        model: the model to start from, with its card; it is not changed.
    """
    if model.config.paint_objects:
        return model
    config, some = replace(model.config, paint_objects=True), next(model.parameters())
    painting = _changed(model, config, lambda name, shape: some.new_zeros(shape))
    painting.card = replace(model.card, config=config)
    return painting


def _changed(
    model: GeoLink, config: ModelConfig, weights: Callable[[str, torch.Size], Tensor]
) -> GeoLink:
    """A model of another config: `weights` makes those that are new or of another shape."""
    with torch.device("meta"):
        changed = GeoLink(config)
    known = model.state_dict()
    state = {
        name: known[name].clone()
        if name in known and known[name].shape == tensor.shape
        else weights(name, tensor.shape)
        for name, tensor in changed.state_dict().items()
    }
    changed.load_state_dict(state, assign=True)
    return changed.train(model.training)


def _widened(weights: Tensor, shape: torch.Size, known: int, bands: int) -> Tensor:
    """Weights with room for more bands, by the axis that holds them.

    Patch embedding (C, bands, p, p) has an axis of its own; the pixels of the pretraining decoder
    (p * p * bands, ...) hold the bands innermost.
    """
    wide = weights.new_zeros(shape)
    if weights.ndim == 4:
        wide[:, :known] = weights
    else:
        pixels = wide.view(len(wide) // bands, bands, *shape[1:])
        pixels[:, :known] = weights.view(len(weights) // known, known, *shape[1:])
    return wide
