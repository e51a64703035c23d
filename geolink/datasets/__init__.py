"""Labelled data of every task, as samples with names and places."""

from geolink.datasets.base import Item, LabelledData, join

__all__ = ["Item", "LabelledData", "join"]
