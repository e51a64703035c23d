"""Figures in words: one name and one way of writing numbers, for pages, tables and lines."""

import math

_LABELS = {
    "miou": "mean IoU",
    "mean_f1": "mean F1",
    "accuracy": "overall accuracy",
    "kappa": "kappa",
    "ece": "calibration error (ECE)",
    "zone_ece": "calibration error of zones",
    "zones_right": "zones right",
    "zones_right_by_area": "zones right, by area",
    "misallocated_area": "misallocated area",
    "area_error": "area error",
    "iou": "IoU",
    "f1": "F1",
    "r2": "r²",
    "rmse": "RMSE",
    "mae": "MAE",
}
UNKNOWN = "-"


def label(figure: str, unit: str = "") -> str:
    """The name of a figure for people; `unit` belongs to errors of a quantity."""
    stem, _, of_class = figure.partition(".")
    words = _LABELS.get(stem)
    if words is None and stem.startswith("boundary_f1_"):
        words = f"outline F1 within {stem.removeprefix('boundary_f1_').removesuffix('m')} m"
    words = words or stem.replace("_", " ")
    if unit and stem in ("rmse", "mae"):
        words = f"{words} ({unit})"
    return f"{words}, {of_class}" if of_class else words


def number(value: float) -> str:
    """Three digits after the point, four in all for large numbers; a dash where not known."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.4g}"


def spread(interval: tuple[float, float]) -> str:
    """Both ends of an interval; a dash where not known."""
    low, high = interval
    return f"{number(low)} to {number(high)}" if math.isfinite(low) else UNKNOWN
