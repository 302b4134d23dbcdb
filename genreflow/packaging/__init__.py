"""Packaging: a trained model in the forms that it is served in, with parity and latency of each."""

from genreflow.packaging.package import package

__all__ = ["package"]
