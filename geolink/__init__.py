"""Urban functional zones from imagery and OpenStreetMap, after GeoLink (Bai et al. 2025)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geolink._version import __version__

if TYPE_CHECKING:
    from geolink.checkpoint import load_model
    from geolink.graphs.build import build_graph
    from geolink.workflows.evaluate import evaluate
    from geolink.workflows.evaluation_request import EvaluateRequest
    from geolink.workflows.fetch import fetch
    from geolink.workflows.finetune import finetune
    from geolink.workflows.finetune_request import FinetuneRequest
    from geolink.workflows.object_encodings import encode_objects
    from geolink.workflows.predict import predict
    from geolink.workflows.pretrain import PretrainRequest, pretrain
    from geolink.workflows.request import FetchRequest, PredictRequest

__all__ = [
    "EvaluateRequest",
    "FetchRequest",
    "FinetuneRequest",
    "PredictRequest",
    "PretrainRequest",
    "__version__",
    "build_graph",
    "encode_objects",
    "evaluate",
    "fetch",
    "finetune",
    "load_model",
    "predict",
    "pretrain",
]

# Imported when first used, so that `import geolink` and `geolink --help` stay quick.
_HOMES = {
    "EvaluateRequest": "geolink.workflows.evaluation_request",
    "FetchRequest": "geolink.workflows.request",
    "FinetuneRequest": "geolink.workflows.finetune_request",
    "PredictRequest": "geolink.workflows.request",
    "PretrainRequest": "geolink.workflows.pretrain",
    "build_graph": "geolink.graphs.build",
    "encode_objects": "geolink.workflows.object_encodings",
    "evaluate": "geolink.workflows.evaluate",
    "fetch": "geolink.workflows.fetch",
    "finetune": "geolink.workflows.finetune",
    "load_model": "geolink.checkpoint",
    "predict": "geolink.workflows.predict",
    "pretrain": "geolink.workflows.pretrain",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """The public names, from where they live."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
