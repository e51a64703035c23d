"""Model weights on disk: our format (safetensors and a JSON card) and the released pickles.

Weights and cards are data that nobody vouches for: everything is checked, and nothing in a file is
ever executed.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from geolink.config import ModelConfig
from geolink.errors import CheckpointError, ConfigError, InputError, UnavailableError
from geolink.files import atomic_path, sha256_of
from geolink.graphs.tags import load_key_counts
from geolink.legend import Legend
from geolink.models.card import ModelCard
from geolink.models.geolink import GeoLink
from geolink.models.released import convert_released
from geolink.samples import IMAGE_MEAN, IMAGE_STD
from geolink.sources.cache import Cache, cache_folder
from geolink.sources.model_files import (
    CARD,
    RELEASED_KEY_COUNTS,
    RELEASED_SUFFIXES,
    WEIGHTS,
)
from geolink.sources.models import RELEASED_TEXT_ENCODER, fetch_model, is_remote
from geolink.sources.network import Network

__all__ = ["ModelCard", "bundled_models", "load_model", "save_checkpoint"]

logger = logging.getLogger(__name__)

_BUNDLED = Path(__file__).parent / "assets" / "models"
_MAX_CARD_BYTES = 16 * 2**20
_CONVERTER = 1  # goes up when the same released file converts to something else
_SEED = 0  # of the modules that a released file does not hold


def save_checkpoint(
    folder: str | Path, model: GeoLink, card: ModelCard, *, half: bool = False
) -> ModelCard:
    """Writes `model.safetensors` and `card.json` into a folder, each in one step.

    The card holds the hash of the weights, so a folder whose writing was cut between the two files
    is told from a whole one.

    Args:
        folder: made where missing; an earlier checkpoint in it is replaced.
        model: the model; its config goes into the card.
        card: what the weights are; its `config`, `half` and `sha256` are set here.
        half: store the weights as float16.

    Returns:
        The card as written.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    state = {name: tensor.detach().to("cpu", dtype) for name, tensor in model.state_dict().items()}
    # Not `save_file`, whose files only their owner may read.
    payload = save({name: tensor.contiguous() for name, tensor in state.items()})
    with atomic_path(folder / WEIGHTS, overwrite=True) as path:
        path.write_bytes(payload)
    digest = hashlib.sha256(payload).hexdigest()
    card = replace(card, config=model.config, half=half, sha256=digest)
    text = json.dumps(card.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_path(folder / CARD, overwrite=True) as path:
        path.write_text(text + "\n", encoding="utf-8")
    return card


def load_model(
    spec: str | Path, device: str | torch.device = "cpu", *, offline: bool = False
) -> GeoLink:
    """A model with its card, ready for inference (`model.eval()`).

    Args:
        spec: a bundled name, a run folder, a `.safetensors` file with its card beside it
            (`<name>.json` or `card.json`), a released `.pth`, or one of these elsewhere:
            `hf:owner/repo[@revision][/file]`, an address, `gdrive:ID`. What is elsewhere is fetched
            once and kept in the cache. So is a released file as it is converted; its head is not
            trained.
        device: where the model goes.
        offline: use nothing but what is here.

    Raises:
        CheckpointError: the files are damaged, incomplete, or of another kind.
        ConfigError: the specification cannot be read.
        UnavailableError: there is no such model, or it cannot be fetched.
        OutputError: the cache cannot be written.
    """
    weights = _find(spec, Network(offline=offline))
    if weights.suffix in RELEASED_SUFFIXES:
        weights = _converted(weights)
    card = _read_card(weights)
    model = _build(card, _read_weights(weights, card), weights)
    return model.to(device).eval()


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in _BUNDLED.glob(f"*/{CARD}"))


# Finding


def _find(spec: str | Path, network: Network) -> Path:
    """The weight file that a specification names."""
    name = str(spec)
    if is_remote(name):
        return fetch_model(name, cache=Cache(), network=network)
    if name in bundled_models():
        return _BUNDLED / name / WEIGHTS
    path = Path(spec)
    if path.is_dir():
        path = path / WEIGHTS
    if not path.is_file():
        known = ", ".join(bundled_models()) or "none"
        raise UnavailableError(
            f"there is no model {name}: name a file, a run folder, or a bundled model ({known})"
        )
    if path.suffix not in (".safetensors", *RELEASED_SUFFIXES):
        raise CheckpointError(f"{path} is no model file; name a .safetensors or a released .pth")
    return path


# Our format


def _read_card(weights: Path) -> ModelCard:
    path = weights.with_suffix(".json")
    path = path if path.is_file() else weights.with_name(CARD)
    try:
        if path.stat().st_size > _MAX_CARD_BYTES:
            raise CheckpointError(f"the card {path} is too large to be one")
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise CheckpointError(f"{weights} has no card; put its {CARD} beside it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the card {path} is not readable as JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"the card {path} holds no JSON object; copy it again")
    try:
        return ModelCard.from_dict(data)
    except ConfigError as error:
        raise CheckpointError(f"the card {path} cannot be used: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _read_weights(path: Path, card: ModelCard) -> dict[str, Tensor]:
    """Tensors of a weight file in float32."""
    try:
        if sha256_of(path) != card.sha256:
            raise CheckpointError(f"{path} is damaged or not the card's; copy both files again")
        # Copies are aligned; sums over the file's own memory could round differently.
        state = {n: t.to(torch.float32, copy=True) for n, t in load_file(path).items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error})") from None
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path} holds {name!r} with numbers that are not finite")
    return state


def _build(card: ModelCard, state: Mapping[str, Tensor], path: Path) -> GeoLink:
    """The model of a card with the weights of a file, whose names and shapes must agree.

    It is made without memory of its own, and takes over the tensors of the file: a card cannot ask
    for more memory than its weights have.
    """
    with torch.device("meta"):
        model = GeoLink(card.config)
    _require_same(model.state_dict(), state, path)
    model.load_state_dict(state, assign=True)
    model.card = card
    return model


def _require_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file with other names or shapes than the model's.

    Raises:
        CheckpointError: in one sentence, with the first name that differs.
    """
    for problem, names in (
        ("lacks", sorted(expected.keys() - found.keys())),
        ("has unknown", sorted(found.keys() - expected.keys())),
    ):
        if names:
            raise CheckpointError(
                f"{path} {problem} {len(names)} tensors, such as {names[0]!r}; "
                "it belongs to another architecture"
            )
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise CheckpointError(
                f"{path} holds {name!r} with shape {tuple(found[name].shape)}, its model needs "
                f"{tuple(tensor.shape)}; it belongs to another architecture or number of classes"
            )


# The released format


def _converted(path: Path) -> Path:
    """Weight file in our format of a released one, made on the first call and then kept."""
    counts = path.with_name(RELEASED_KEY_COUNTS)
    sources = [_identity(file) for file in (path, counts) if file.is_file()]
    key = hashlib.sha256(json.dumps([_CONVERTER, *sources]).encode()).hexdigest()[:16]
    folder = cache_folder() / "converted" / f"{path.stem}-{key}"
    if not (folder / CARD).is_file():
        model = _from_released(path)
        save_checkpoint(folder, model, _released_card(path, counts, model.config))
    return folder / WEIGHTS


def _identity(path: Path) -> list[str | int]:
    """What changes when a file is replaced."""
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def _from_released(path: Path) -> GeoLink:
    """The model of a released file; modules that it does not hold start from a fixed seed."""
    try:
        conversion = convert_released(_read_pickle(path))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    for name, reason in conversion.left_out.items():
        logger.info("%s is left out: %s", name, reason)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = GeoLink(conversion.config)
    rest = {n: t for n, t in model.state_dict().items() if _is_optional(n, conversion.state)}
    state = rest | conversion.state
    _require_same(model.state_dict(), state, path)
    model.load_state_dict(state)
    return model


def _is_optional(name: str, found: Mapping[str, Tensor]) -> bool:
    """True for weights that a released file need not hold.

    None holds a decoder, and the image-only file has the image encoder alone.
    """
    image_only = not any(other.startswith("osm.") for other in found)
    return name.startswith("decoder.") or (image_only and not name.startswith("image."))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """State dict of a released file, read without running what it may hold."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(
            f"it is damaged or holds more than weights, which is not run ({type(error).__name__})"
        ) from None
    state = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError("it is no released GeoLink file: it has no 'model_state_dict'")
    for name, tensor in state.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise CheckpointError(f"{name!r} in its 'model_state_dict' is no tensor")
    return {name: tensor.detach().float() for name, tensor in state.items()}


def _released_card(path: Path, counts: Path, config: ModelConfig) -> ModelCard:
    try:
        key_counts = load_key_counts(counts) if counts.is_file() else {}
    except InputError as error:
        raise CheckpointError(str(error)) from None
    if not key_counts:
        logger.warning("%s is not beside %s; all tags of an object weigh the same", counts, path)
    return ModelCard(
        name=path.stem,
        config=config,
        legend=Legend("untrained", ()),
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        gsd_range=(0.1, 30.0),
        tag_encoder=f"clip-{RELEASED_TEXT_ENCODER}",
        key_counts=key_counts,
        training_data="SkyScript-top30: 1,271,431 pairs of an RGB image and its OSM objects",
        licence="MIT",
    )
