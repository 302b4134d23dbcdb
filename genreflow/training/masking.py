"""SpecAugment (Park et al. 2019): time masks and frequency masks in training."""

import torch


def random_span(batch: int, steps: int, longest: int, device: torch.device) -> torch.Tensor:
    """A random span of up to `longest` of `steps` steps for each row: (batch, steps), True inside."""
    length = torch.randint(0, min(longest, steps) + 1, (batch, 1), device=device)
    start = (torch.rand(batch, 1, device=device) * (steps - length + 1)).long()
    step = torch.arange(steps, device=device)
    return (step >= start) & (step < start + length)


def spec_augment(spectrograms: torch.Tensor, masks: int, time_mask: float, band_mask: float) -> torch.Tensor:
    """Spectrograms (batch, channels, frames, bands) with hidden parts set to 0, drawn anew for each of them.

    Args:
        masks: time masks, and as many frequency masks.
        time_mask: share of all frames that a time mask covers at most.
        band_mask: share of all bands that a frequency mask covers at most.
    """
    batch, _, frames, bands = spectrograms.shape
    for _ in range(masks):
        time = random_span(batch, frames, round(time_mask * frames), spectrograms.device)
        frequency = random_span(batch, bands, round(band_mask * bands), spectrograms.device)
        spectrograms = spectrograms.masked_fill(time[:, None, :, None], 0.0)
        spectrograms = spectrograms.masked_fill(frequency[:, None, None, :], 0.0)
    return spectrograms
