"""SpecAugment (Park et al. 2019): stretches of time and bands of frequency hidden in training."""

import torch


def hidden_stretch(batch: int, steps: int, longest: int, device: torch.device) -> torch.Tensor:
    """A random stretch of up to `longest` of `steps` steps for each row: (batch, steps), True inside."""
    length = torch.randint(0, min(longest, steps) + 1, (batch, 1), device=device)
    start = (torch.rand(batch, 1, device=device) * (steps - length + 1)).long()
    step = torch.arange(steps, device=device)
    return (step >= start) & (step < start + length)


def spec_augment(spectrograms: torch.Tensor, masks: int, time_mask: float, band_mask: float) -> torch.Tensor:
    """Spectrograms (batch, channels, frames, bands) with hidden parts set to 0, drawn anew for each of them.

    Args:
        masks: stretches of time, and as many of frequency.
        time_mask: share of all frames that a stretch of time takes at most.
        band_mask: share of all bands that a stretch of frequency takes at most.
    """
    batch, _, frames, bands = spectrograms.shape
    for _ in range(masks):
        time = hidden_stretch(batch, frames, round(time_mask * frames), spectrograms.device)
        frequency = hidden_stretch(batch, bands, round(band_mask * bands), spectrograms.device)
        spectrograms = spectrograms.masked_fill(time[:, None, :, None], 0.0)
        spectrograms = spectrograms.masked_fill(frequency[:, None, None, :], 0.0)
    return spectrograms
