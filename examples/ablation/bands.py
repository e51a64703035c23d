"""Height and near infrared beside RGB: bands drawn from OSM, and a short run with them.

Both bands are SIMULATED, from the same land cover that the picture is drawn from: metres above
ground of roofs (OSM's `height` and `building:levels`, else by size) and of tree crowns, and how far
plants cover the ground, which is what near infrared tells.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from segmentation import schedule
from tiles import batches, hidden, read_sample
from torch import Tensor
from torch.nn import functional

from geolink.checkpoint import load_model
from geolink.files import atomic_path
from geolink.grid import WGS84, GridSpec, reproject_bounds, utm_crs
from geolink.legend import IGNORE, UFZ
from geolink.metrics import ConfusionMatrix
from geolink.models.additions import add_bands
from geolink.models.geolink import GeoLink
from geolink.samples import Sample, hide_givers, normalise
from geolink.sources.entities import OsmEntities
from geolink.sources.landcover.canvas import Canvas
from geolink.sources.landcover.cover import LOOKS, Cover
from geolink.sources.landcover.shapes import Density, mapped_trees, prepare_shapes
from geolink.sources.landcover.surfaces import greenness
from geolink.sources.landcover.trees import crown_heights
from geolink.sources.osm import extract_bounds, read_osm
from geolink.sources.sea import sea_polygons

BATCH = 4
RATE = 3e-4
HEIGHT_SCALE = 10.0  # metres per unit of the model's input
SAMPLES = 160  # training tiles, spread over the folder


class Surface:
    """What stands and grows on the ground of a scene, by OSM."""

    def __init__(self, entities: OsmEntities, sea: shapely.Geometry | None) -> None:
        self.crs = entities.crs
        self._shapes = prepare_shapes(entities, sea=sea)
        self._index = shapely.STRtree(self._shapes.geometry)
        self._trees = mapped_trees(entities)
        self._density = Density.of(self._shapes, entities)

    @classmethod
    def of_extract(cls, path: Path) -> "Surface":
        """The surface of a whole extract, in its UTM zone."""
        degrees = extract_bounds(path)
        crs = utm_crs((degrees.west + degrees.east) / 2, (degrees.south + degrees.north) / 2)
        bounds = reproject_bounds(degrees, WGS84, crs)
        entities = read_osm(path, bounds, crs=crs)
        return cls(entities, sea_polygons(entities, bounds))

    def bands(self, grid: GridSpec) -> NDArray[np.float32]:
        """(2, height, width): metres above ground, and share of plants, 0-1."""
        canvas = Canvas.of(grid)
        drawn = np.sort(self._index.query(shapely.box(*canvas.bounds)))
        shapes = self._shapes.take(drawn)
        top = canvas.burn(shapes.geometry)
        cover = np.append(shapes.cover, np.uint8(Cover.GROUND)).take(top - 1)  # -1 is the ground
        green = greenness(canvas, self._density)
        crowns = crown_heights(cover, green, canvas, self._trees)
        height = np.append(shapes.height, np.float32(0)).take(top - 1)
        plants = np.array([LOOKS[each].season for each in Cover], dtype=np.float32)[cover]
        plants = np.where(cover == Cover.GROUND, green, plants)
        plants = np.where(crowns > height, 1, plants)
        return _pixels(np.stack([np.maximum(height, crowns), plants]), canvas, grid)


def _pixels(fine: NDArray[np.float32], canvas: Canvas, grid: GridSpec) -> NDArray[np.float32]:
    inner = fine[:, canvas.margin : -canvas.margin, canvas.margin : -canvas.margin]
    cells = inner.reshape(len(fine), grid.height, canvas.split, grid.width, canvas.split)
    pixels: NDArray[np.float32] = cells.mean(axis=(2, 4), dtype=np.float32)
    return pixels


def add_band_files(samples: Path, osm: Path) -> list[Path]:
    """Samples with a file of bands beside each, `.bands.npy`, made where missing.

    Args:
        samples: folder of samples, a folder per extract.
        osm: folder of the extracts, or the one extract that all samples are of.
    """
    files = sorted(samples.glob("*/*.npz"))
    files = files[:: max(len(files) // SAMPLES, 1)]
    for folder in sorted({file.parent for file in files}):
        missing = [f for f in files if f.parent == folder and not bands_file(f).exists()]
        if not missing:
            continue
        surface = Surface.of_extract(osm if osm.is_file() else osm / f"{folder.name}.osm.pbf")
        for file in missing:
            sample = read_sample(file)
            assert sample.graph is not None
            west, south, _, north = sample.graph.bounds.tolist()
            side = sample.label.shape[0]
            grid = GridSpec(surface.crs, west, north, (north - south) / side, side, side)
            with atomic_path(bands_file(file), overwrite=True) as temporary:
                np.save(temporary, surface.bands(grid).astype(np.float16))
    return files


def bands_file(sample: Path) -> Path:
    """Where the bands of a sample are kept."""
    return sample.with_suffix(".bands.npy")


def load(files: Sequence[Path]) -> list[tuple[Sample, Tensor]]:
    """Samples, and their (5, H, W) pixels as the model takes them."""
    return list(_loaded(files))


def _loaded(files: Sequence[Path]) -> Iterator[tuple[Sample, Tensor]]:
    for file in files:
        sample = read_sample(file)
        height, plants = np.load(bands_file(file), allow_pickle=False).astype(np.float32)
        more = torch.from_numpy(np.stack([height / HEIGHT_SCALE - 0.5, 2 * plants - 1]))
        yield sample, torch.cat([normalise(sample.rgb), more])


def run(
    bands: int,
    seed: int,
    train: Sequence[tuple[Sample, Tensor]],
    test: Sequence[tuple[Sample, Tensor]],
    steps: int,
) -> dict[str, Any]:
    """Trains the bundled model on with some bands, and measures it."""
    torch.manual_seed(seed)
    model = load_model("geolink-tiny")
    model = (add_bands(model, bands) if bands > 3 else model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    rng = np.random.default_rng([seed, 2])
    for step, indices in enumerate(batches(len(train), BATCH, steps, seed)):
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule(step, steps)
        graphs = [hidden(train[i][0], rng).graph for i in indices]
        images = torch.stack([train[i][1][:bands] for i in indices])
        truth = torch.from_numpy(np.stack([train[i][0].label for i in indices])).long()
        loss = functional.cross_entropy(model(images, graphs), truth, ignore_index=IGNORE)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return evaluate(model.eval(), bands, test)


@torch.inference_mode()
def evaluate(model: GeoLink, bands: int, test: Sequence[tuple[Sample, Tensor]]) -> dict[str, Any]:
    """Mean IoU and accuracy, every label-giving object hidden."""
    rng = np.random.default_rng(0)
    total = ConfusionMatrix(np.zeros((len(UFZ), len(UFZ)), np.int64))
    for sample, pixels in test:
        logits = model(pixels[None, :bands], [hide_givers(sample, 1.0, rng).graph])
        classes = logits[0].argmax(0).numpy().astype(np.uint8)
        total += ConfusionMatrix.of(sample.label, classes, classes=len(UFZ))
    return {"miou": total.mean_iou, "accuracy": total.accuracy}
