"""How one picture might look from another flight: light, air, season, camera, clouds."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

Floats = NDArray[np.float32]

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of red, green and blue
_HAZE = np.array([176, 186, 198], np.float32)
_CLOUD = 240.0
# How often a picture is blurred, hazy and clouded.
_BLURRED, _HAZY, _CLOUDED = 0.35, 0.4, 0.08


def seen_anew(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """(..., 3, H, W) pixels as another season, light, air and camera would show them.

    Colours turn and fade as far as a picture in infrared or in black and white, so that no class
    can be told by its colour alone. All pictures of a sample change alike.
    """
    pixels = rgb.astype(np.float32)
    pixels = np.einsum("ij,...jhw->...ihw", _colours(rng), pixels)
    exposure = np.float32(math.exp(rng.uniform(math.log(0.4), math.log(1.4))))
    contrast = np.float32(rng.uniform(0.5, 1.3))
    middle = pixels.mean()
    pixels = ((pixels - middle) * contrast + middle) * exposure
    if rng.random() < _BLURRED:
        sigma = math.exp(rng.uniform(math.log(0.6), math.log(4.0)))  # pixels
        pixels = gaussian_filter(pixels, (*[0] * (pixels.ndim - 2), sigma, sigma))
    if rng.random() < _HAZY:
        veil = np.float32(rng.uniform(0.05, 0.5))
        pixels = pixels * (1 - veil) + veil * _HAZE[:, None, None]
    if rng.random() < _CLOUDED:
        opaque = _clouds(rgb.shape[-2:], rng)
        pixels = pixels + (np.float32(_CLOUD) - pixels) * opaque
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(0, 8))
    seen: NDArray[np.uint8] = np.rint(pixels + noise).clip(0, 255).astype(np.uint8)
    return seen


def _colours(rng: np.random.Generator) -> Floats:
    """(3, 3) matrix that fades colours, mixes the bands a little and weighs them anew."""
    kept = rng.uniform(0.0, 1.3)  # saturation
    faded = kept * np.eye(3) + (1 - kept) * _GREY
    mixed = np.eye(3) + 0.12 * rng.standard_normal((3, 3))
    mixed /= mixed.sum(axis=1, keepdims=True)  # grey stays grey
    balance = np.exp(0.12 * rng.standard_normal(3))
    return (balance[:, None] * mixed @ faded).astype(np.float32)


def _clouds(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """(H, W) how opaque the air is, 0-1: soft patches over up to half of the picture."""
    coarse = rng.standard_normal((6, 6), np.float32)
    field = zoom(coarse, (shape[0] / 6, shape[1] / 6), order=3)
    threshold = np.quantile(field, rng.uniform(0.5, 0.95))
    opaque: Floats = ((field - threshold) / np.float32(0.6)).clip(0, 1).astype(np.float32)
    return opaque
