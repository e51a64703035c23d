"""What pretraining does at the end of epochs: weights, a picture, and a probe of the features."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import shapely
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from geolink.checkpoint import save_checkpoint
from geolink.datasets.dividing import RANDOM, split_data
from geolink.datasets.folders import PictureClasses
from geolink.files import atomic_path
from geolink.metrics.probes import knn_votes
from geolink.models.card import ModelCard
from geolink.models.geolink import GeoLink
from geolink.models.objectives import unpatchify
from geolink.samples import normalise
from geolink.shards import Draw
from geolink.training.callbacks import EpochHook
from geolink.training.pretraining import MaskedSamples, PretrainTask

PICTURES = "pictures"
_ROWS = 4
_INCHES, _DPI = 2.6, 120
_GREY = 128
# Colours of points, lines and polygons over a photograph.
_POINT, _LINE, _POLYGON = "#ff2d2d", "#ffd000", "#00e5ff"
_PROBE_BATCH = 64


def weights_hook(folder: Path, card: Callable[[int], ModelCard]) -> EpochHook:
    """Writes the model's weights and card into the run folder.

    Args:
        folder: the run folder.
        card: the model's card, given the epochs that are done.
    """

    def write(task: nn.Module, epoch: int) -> Mapping[str, float]:
        save_checkpoint(folder, model_of(task), card(epoch))
        return {}

    return write


def picture_hook(folder: Path, samples: MaskedSamples, *, simulated: bool) -> EpochHook:
    """Draws the first samples: original with its OSM, masked, and reconstruction.

    Args:
        folder: the run folder.
        samples: samples whole and as they are, with their masks.
        simulated: the images are rendered, which the picture says.
    """

    def draw(task: nn.Module, epoch: int) -> Mapping[str, float]:
        assert isinstance(task, PretrainTask)
        indices = range(min(_ROWS, len(samples)))
        batch = samples.join([samples[Draw(0, index)] for index in indices])
        device = task.get_buffer("mean").device
        with torch.inference_mode():
            images = task.normalise(batch.images.to(device))
            rebuilt = task.objectives.reconstruct(images, batch.masks.to(device))
            pixels = (rebuilt * task.get_buffer("std") + task.get_buffer("mean")).clamp(0, 255)
        hidden = _hidden_pixels(batch.masks.hidden, samples.model.grid_size)
        shapes = [samples.samples.stored(index).objects.geometry for index in indices]
        figure = _sheet(
            batch.images.numpy(), hidden, pixels.byte().cpu().numpy(), shapes, epoch, simulated
        )
        (folder / PICTURES).mkdir(exist_ok=True)
        with atomic_path(folder / PICTURES / f"epoch-{epoch:04d}.png", overwrite=True) as path:
            figure.savefig(path)
        return {}

    return draw


def probe_hook(folder: Path, *, side: int, seed: int) -> EpochHook:
    """Measures by 20 nearest neighbours how well image features tell the classes of a folder.

    Half of the pictures vote, 40 % are asked (Bai et al. 2025, section 4).

    Args:
        folder: pictures in one folder per class.
        side: height and width that the model takes, pixels.
        seed: of the split.

    Raises:
        InputError: there are no such folders.
    """
    data = PictureClasses(folder, side=side)
    split = split_data(data, RANDOM, seed=seed)

    def features(model: GeoLink, keys: tuple[str, ...]) -> NDArray[np.float32]:
        device = next(model.parameters()).device
        found = []
        for start in range(0, len(keys), _PROBE_BATCH):
            rgb = [data.sample(key).rgb for key in keys[start : start + _PROBE_BATCH]]
            tokens: Tensor = model.image(normalise(np.stack(rgb)).to(device)).tokens
            found.append(tokens[:, 1:].mean(dim=1).float().cpu().numpy())
        return np.concatenate(found)

    def probe(task: nn.Module, epoch: int) -> Mapping[str, float]:
        model = model_of(task)
        train_labels, test_labels = (
            np.array([int(data.label(key)) for key in keys]) for keys in (split.train, split.test)
        )
        with torch.inference_mode():
            train, test = features(model, split.train), features(model, split.test)
        votes = knn_votes(train, train_labels, test)
        found = np.unique(train_labels)[votes.argmax(axis=1)]
        return {"knn_accuracy": float((found == test_labels).mean())}

    return probe


def model_of(task: nn.Module) -> GeoLink:
    """The model that a task trains."""
    assert isinstance(task, PretrainTask)
    return task.objectives.model


def _hidden_pixels(hidden: Tensor, side: int, patch: int = 16) -> NDArray[np.bool_]:
    """(B, H, W) True for pixels of (B, M) hidden patches among side * side."""
    flags = torch.zeros(len(hidden), side * side, 1).scatter(1, hidden[..., None], 1.0)
    pixels = unpatchify(flags.expand(-1, -1, patch * patch), (side, side), patch)
    shown: NDArray[np.bool_] = pixels[:, 0].bool().numpy()
    return shown


def _sheet(
    images: NDArray[np.uint8],
    hidden: NDArray[np.bool_],
    rebuilt: NDArray[np.uint8],
    shapes: list[NDArray[np.object_]],
    epoch: int,
    simulated: bool,
) -> Figure:
    """A row per sample: original with OSM, masked, reconstruction with OSM."""
    rows, note = len(images), " (simulated images)" if simulated else ""
    figure = Figure(figsize=(3 * _INCHES, rows * _INCHES + 0.5), dpi=_DPI, layout="constrained")
    figure.suptitle(
        f"epoch {epoch}{note}; rebuilt patches have their true mean and contrast", fontsize=9
    )
    panels = figure.subplots(rows, 3, squeeze=False)
    for row in range(rows):
        masked = np.where(hidden[row], np.uint8(_GREY), images[row])
        for panel, rgb in zip(panels[row], (images[row], masked, rebuilt[row]), strict=True):
            panel.imshow(rgb.transpose(1, 2, 0), extent=(0, 1, 1, 0))
            panel.set_axis_off()
        for panel in (panels[row][0], panels[row][2]):
            _draw_objects(panel, shapes[row])
    titles = ("image and OSM", "what the encoder sees", "reconstruction and OSM")
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=8)
    return figure


def _draw_objects(panel: Axes, shapes: NDArray[np.object_]) -> None:
    """Outlines of (N,) geometries in tile units, y down."""
    parts = shapely.get_parts(shapes)
    kinds = shapely.get_dimensions(parts)
    rings = [shapely.get_coordinates(polygon.exterior) for polygon in parts[kinds == 2]]
    lines = [shapely.get_coordinates(line) for line in parts[kinds == 1]]
    points = shapely.get_coordinates(parts[kinds == 0])
    panel.add_collection(PolyCollection(rings, facecolors="none", edgecolors=_POLYGON, lw=0.5))
    panel.add_collection(LineCollection(lines, colors=_LINE, lw=0.5))
    panel.scatter(points[:, 0], points[:, 1], s=3, c=_POINT, linewidths=0)
    panel.set_xlim(0, 1)
    panel.set_ylim(1, 0)
