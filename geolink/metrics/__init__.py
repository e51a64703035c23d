"""How well a map, a class or a number agrees with a reference. NumPy, no model, no files."""

from geolink.metrics.confusion import ConfusionMatrix

__all__ = ["ConfusionMatrix"]
