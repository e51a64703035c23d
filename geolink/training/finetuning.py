"""The fine-tuning task: losses of labelled samples, and which weights learn from them."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional

from geolink.config import Task
from geolink.errors import CheckpointError, ConfigError, UnavailableError
from geolink.legend import IGNORE, Legend
from geolink.models.geolink import GeoLink
from geolink.models.heads import SceneHead
from geolink.training.labelled import LabelledBatch

Mode: TypeAlias = Literal["frozen", "full", "lora"]
Weighting: TypeAlias = Literal["none", "sqrt", "inverse"]

_ENCODERS = ("image", "osm", "fusion")
# What the fusion does for encodings of the objects themselves, which no label asks for.
_OBJECT_SIDE = (
    "nodes_from_image",
    "object_norm",
    "object_projection",
    "object_projection_norm",
)
_PAINTING = "fusion.painting"
_RAREST = 1e-3  # share of the labels below which a class gains no more weight
# Linear layers of the image encoder's attention and MLP; nn.MultiheadAttention hides its own.
_ADAPTED = r"image\.vit\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])"


@dataclass(frozen=True)
class FinetuneSettings:
    """What is learned from labels, and how.

    Attributes:
        mode: `frozen` trains the head alone, `full` everything, `lora` the head and low-rank
            changes to the image encoder's linear layers.
        encoder_rate: rate of the encoders in relation to the head's (0.01 in Bai et al. 2025).
        class_weights: weight of a class: 1, or the inverse of its share or of the root of it.
        focal: exponent of the focal loss (Lin et al. 2017); 0 is plain cross-entropy.
        lora_rank: rank of the changes.
        paint_objects: patches also take the encodings of the objects in them, whether or not those
            of the model to start from do. What they take is learned like the head.
    """

    mode: Mode = "full"
    encoder_rate: float = 0.01
    class_weights: Weighting = "none"
    focal: float = 0.0
    lora_rank: int = 8
    paint_objects: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("mode", Mode), ("class_weights", Weighting)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise ConfigError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if not 0 < self.encoder_rate <= 1:
            raise ConfigError(f"encoder_rate is a share in 0..1, got {self.encoder_rate}")
        if not 0 <= self.focal <= 10 or self.lora_rank < 1:
            raise ConfigError("the focal exponent lies in 0..10, and the rank of LoRA is 1 or more")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class FinetuneTask(nn.Module):
    """The loss of a batch.

    Args:
        model: a model whose head answers the task.
        settings: which weights learn, and how.
        weights: (classes,) of the classes; of regression None.
        seed: of what LoRA starts from.
    """

    mean: Tensor
    std: Tensor
    weights: Tensor | None

    def __init__(
        self,
        model: GeoLink,
        settings: FinetuneSettings,
        *,
        weights: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        card = model.card
        for name, values in (("mean", card.mean), ("std", card.std)):
            self.register_buffer(name, 255 * torch.tensor(values).view(-1, 1, 1), persistent=False)
        tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", tensor, persistent=False)
        self._set_learning(seed)

    def forward(self, batch: LabelledBatch) -> dict[str, Tensor]:
        """`loss`, the mean over labelled pixels or samples."""
        answer = self.model((batch.images - self.mean) / self.std, batch.graphs).float()
        head = self.model.decoder
        if isinstance(head, SceneHead) and self.model.config.task == "regress":
            loss = functional.mse_loss(answer / head.spread, batch.labels / head.spread)
        else:
            loss = class_loss(answer, batch.labels, self.weights, focal=self.settings.focal)
        return {"loss": loss + self._no_loss()}

    def _no_loss(self) -> Tensor:
        """Zero, with gradients for all weights that meet objects.

        The weights of a relation that no objects of the batch have get a gradient of zero, not
        none: processes, and the state of the optimiser, must agree on which weights have one.
        """
        parts = (self.model.osm, self.model.fusion)
        weights = [w.sum() for part in parts for w in part.parameters() if w.requires_grad]
        return 0 * torch.stack(weights).sum() if weights else self.mean.new_zeros(())

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of what learns; frozen encoders stay as they are used, without dropout."""
        super().train(mode)
        if self.settings.mode == "frozen":
            for name in _ENCODERS:
                getattr(self.model, name).eval()
        return self

    def rate_scale(self, name: str) -> float:
        """Rate of a weight in relation to the head's."""
        encoders = tuple(f"model.{part}." for part in _ENCODERS)
        new = "lora_" in name or (self.settings.paint_objects and _PAINTING in name)
        return self.settings.encoder_rate if name.startswith(encoders) and not new else 1.0

    def _set_learning(self, seed: int) -> None:
        if self.settings.mode == "full":
            for name in _OBJECT_SIDE:
                getattr(self.model.fusion.block, name).requires_grad_(False)
            return
        for name in _ENCODERS:
            getattr(self.model, name).requires_grad_(False)
        if self.settings.paint_objects:
            self.model.get_submodule(_PAINTING).requires_grad_(True)
        if self.settings.mode == "lora":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                _add_lora(self.model.image, self.settings.lora_rank)


def class_loss(
    scores: Tensor, labels: Tensor, weights: Tensor | None = None, *, focal: float = 0.0
) -> Tensor:
    """Cross-entropy or focal loss, averaged over what is labelled; 0 where nothing is.

    Args:
        scores: (B, classes, ...) before softmax.
        labels: (B, ...) class ids, IGNORE where there is none.
        weights: (classes,) of the classes.
        focal: exponent of the focal loss.
    """
    each = functional.cross_entropy(scores, labels, weights, ignore_index=IGNORE, reduction="none")
    known = labels != IGNORE
    share = known.float()
    if weights is not None:
        share = torch.where(known, weights[labels.where(known, 0)], 0.0)
    if focal:
        chance = scores.log_softmax(dim=1).gather(1, labels.where(known, 0)[:, None])[:, 0].exp()
        each = each * (1 - chance) ** focal
    return each.sum() / _mean_over_processes(share.sum()).clamp_min(torch.finfo(share.dtype).tiny)


def _mean_over_processes(tensor: Tensor) -> Tensor:
    """Makes the mean of the processes' losses that of all pixels, however these are shared."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensor


def class_weights(counts: NDArray[np.int64], kind: Weighting) -> NDArray[np.float64] | None:
    """(classes,) weights with mean 1, from how often each class is labelled."""
    if kind == "none":
        return None
    share = np.maximum(counts / max(counts.sum(), 1), _RAREST)
    weights = 1 / np.sqrt(share) if kind == "sqrt" else 1 / share
    scaled: NDArray[np.float64] = weights / weights.mean()
    return scaled


def model_for(base: GeoLink, task: Task, legend: Legend, *, seed: int) -> GeoLink:
    """A model with the encoders of another and a head for a task.

    The head is the base's where it answers the same task with the same classes, else new; what only
    pretraining needs is left out.

    Args:
        base: a model with its card.
        task: what the head answers.
        legend: its classes or numbers.
        seed: of a new head.
    """
    same = base.config.task == task and base.card.legend == legend
    config = replace(base.config, task=task, classes=len(legend), pretraining=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GeoLink(config)
    kept = {
        name: tensor
        for name, tensor in base.state_dict().items()
        if not name.startswith("pretraining.") and (same or not name.startswith("decoder."))
    }
    missing, unexpected = model.load_state_dict(kept, strict=False)
    if unexpected or any(not name.startswith("decoder.") for name in missing):
        raise CheckpointError(
            f"the model {base.card.name} has no weights for a new head's encoders"
        )
    model.card = replace(base.card, config=config, legend=legend, metrics={}, sha256="")
    return model


def scale_answers(model: GeoLink, labels: NDArray[np.float32]) -> None:
    """Tells a head for regression the mean and deviation of (n, k) numbers in training."""
    head = model.decoder
    assert isinstance(head, SceneHead)
    spread = labels.std(axis=0)
    head.centre.copy_(torch.from_numpy(labels.mean(axis=0)))
    head.spread.copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))


def scale_scores(model: GeoLink, temperature: float) -> None:
    """Divides class scores by a temperature, for good: its last layer takes it up."""
    head = model.decoder
    last = head.layers[-1] if isinstance(head, SceneHead) else head.classify
    with torch.no_grad():
        for weight in last.parameters():
            weight.div_(temperature)


def merge_lora(model: GeoLink) -> None:
    """Adds low-rank changes to the weights that they belong to, so that plain weights are left."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())


def _add_lora(encoder: nn.Module, rank: int) -> None:
    """Low-rank changes to the linear layers of an image encoder (Hu et al. 2022)."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UnavailableError(
            "fine-tuning with LoRA needs the peft library; install it with "
            "`pip install geolink[lora]`"
        ) from None
    adapted = _ADAPTED.removeprefix(r"image\.")
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=adapted), encoder
    )
