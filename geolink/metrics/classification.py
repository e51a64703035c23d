"""What is measured of predicted classes of whole samples, and its named figures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geolink.legend import Legend
from geolink.metrics.calibration import Reliability
from geolink.metrics.confusion import ConfusionMatrix
from geolink.metrics.tally import Measured


@dataclass(frozen=True)
class ClassificationTally(Measured):
    """What is counted of classified samples.

    Attributes:
        confusion: samples by true and predicted class.
        samples: confidence and correctness of samples.
    """

    confusion: ConfusionMatrix
    samples: Reliability

    def figures(self, legend: Legend) -> dict[str, float]:
        """Accuracy, macro F1, kappa and ECE, and F1 per class (see `Measured`)."""
        confusion = self.confusion
        overall = {
            "accuracy": confusion.accuracy,
            "mean_f1": confusion.mean_f1,
            "kappa": confusion.kappa,
            "ece": self.samples.ece,
        }
        classes = zip(legend.names, confusion.f1, strict=True)
        return overall | {f"f1.{name}": float(value) for name, value in classes}


def tally_classes(
    truth: NDArray[np.uint8],
    probabilities: NDArray[np.float64],
    blocks: NDArray[np.integer],
    *,
    count: int,
) -> list[ClassificationTally]:
    """One tally for each of `count` blocks.

    Args:
        truth: (n,) class ids.
        probabilities: (n, classes); of equal ones, the lowest class is predicted.
        blocks: (n,) block of each sample, from 0.
        count: number of blocks.
    """
    predicted = probabilities.argmax(axis=1).astype(np.uint8)
    classes = probabilities.shape[1]
    confusion = ConfusionMatrix.by_block(truth, predicted, blocks, classes=classes, count=count)
    confidence = probabilities.max(axis=1)
    samples = Reliability.by_block(confidence, predicted == truth, blocks, count=count)
    return [ClassificationTally(*parts) for parts in zip(confusion, samples, strict=True)]
