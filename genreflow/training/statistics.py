"""Statistics of training rows, by which networks standardise their inputs."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mean_and_deviation(
    batches: "Iterable[torch.Tensor]", over: tuple[int, ...], smallest: float
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Mean and standard deviation of all rows over some dimensions, which stay with length 1; in float64.

    Args:
        batches: (batch, …)
        over: dimensions, the first among them.
        smallest: a lower deviation becomes 1: what never changes is 0 when it is standardised.
    """
    import torch

    count = 0
    total, squares = torch.zeros((2, 1), dtype=torch.float64)
    for batch in batches:
        values = batch.double()
        count += math.prod(values.shape[dimension] for dimension in over)
        total = total + values.sum(dim=over, keepdim=True)
        squares = squares + values.square().sum(dim=over, keepdim=True)
    mean = total / count
    deviation = (squares / count - mean**2).clamp(min=0).sqrt()
    deviation[deviation < smallest] = 1
    return mean, deviation
