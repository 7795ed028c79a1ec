"""What a model says of n rows: a number each, [n], or the probability of each class, [n, classes].

Labels are float64 [n] all the same: the number, or the place of the class among them.
"""

from __future__ import annotations

import numpy as np

from glowplug_pipelines.rows import Float64s

# A class that is given no chance at all would lose without end where it comes.
_LEAST = 1e-6


def are_of_classes(predicted: Float64s) -> bool:
    return bool(predicted.ndim == 2)


def as_values(predicted: Float64s) -> Float64s:
    """[n]: the numbers, of classes the likeliest one's place. What the drift detector makes of an answer."""
    return predicted.argmax(axis=1).astype(np.float64) if are_of_classes(predicted) else predicted


def calibrated(predicted: Float64s, labels: Float64s) -> tuple[Float64s, Float64s]:
    """(what was said, what came), [n] each, whose means are the same where a model is calibrated.

    Numbers as they are. Of classes the probability of the likeliest, and 1 where it was that one: the confidence of
    Guo et al. 2017, "On calibration of modern neural networks".
    """
    if not are_of_classes(predicted):
        return predicted, labels
    return predicted.max(axis=1), (predicted.argmax(axis=1) == labels).astype(np.float64)


def accuracy(predicted: Float64s, labels: Float64s) -> float | None:
    """The share of rows whose likeliest class came; None for numbers."""
    return float(calibrated(predicted, labels)[1].mean()) if are_of_classes(predicted) else None


def log_losses(predicted: Float64s, labels: Float64s) -> Float64s:
    """[n], in nats: -log of the probability that the class which came had been given; none, where it is a new one."""
    places = labels.astype(np.int64)
    is_known = places < predicted.shape[1]
    given = np.where(is_known, predicted[np.arange(len(predicted)), np.where(is_known, places, 0)], 0.0)
    return np.asarray(-np.log(np.maximum(given, _LEAST)))


def shares(labels: Float64s, classes: int, rows: int) -> Float64s:
    """[rows, classes]: how often each class came among `labels`, each counted once more (Laplace): a naive guess."""
    counts = np.bincount(labels.astype(np.int64), minlength=classes) + 1.0
    return np.tile(counts / counts.sum(), (rows, 1))
