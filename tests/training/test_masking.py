"""SpecAugment: what is hidden of spectrograms in training."""

import torch

from genreflow.training.masking import random_span, spec_augment


def test_a_hidden_span_is_contiguous_no_longer_than_allowed_and_drawn_for_every_row() -> None:
    torch.manual_seed(0)
    hidden = random_span(200, 50, 12, torch.device("cpu"))
    lengths = hidden.sum(dim=1)
    assert int(lengths.max()) == 12
    assert len(set(lengths.tolist())) > 8
    edges = hidden.int().diff(dim=1).abs().sum(dim=1)
    assert int(edges.max()) <= 2
    assert hidden.any(dim=0).all()


def test_a_span_longer_than_the_window_hides_all_of_it() -> None:
    torch.manual_seed(0)
    hidden = random_span(50, 5, 40, torch.device("cpu"))
    assert int(hidden.sum(dim=1).max()) == 5


def test_whole_frames_and_whole_bands_are_hidden_of_each_spectrogram_by_itself() -> None:
    torch.manual_seed(0)
    found = spec_augment(torch.ones(20, 1, 40, 30), masks=2, time_mask=0.25, band_mask=0.2)[:, 0]
    frames = (found == 0).all(dim=2).sum(dim=1)
    bands = (found == 0).all(dim=1).sum(dim=1)
    assert 10 < int(frames.max()) <= 20
    assert 6 < int(bands.max()) <= 12
    assert len(set(frames.tolist())) > 4
    kept = (found == 1).sum(dim=(1, 2))
    assert torch.equal(kept, (40 - frames) * (30 - bands))


def test_no_masks_change_nothing() -> None:
    rows = torch.rand(2, 1, 8, 8)
    assert torch.equal(spec_augment(rows, masks=0, time_mask=0.5, band_mask=0.5), rows)
    assert torch.equal(spec_augment(rows, masks=3, time_mask=0, band_mask=0), rows)
