"""Inference: from a packaged model and audio to genres; torch-free unless the PyTorch backend is chosen."""
