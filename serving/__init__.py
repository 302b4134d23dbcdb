"""The BentoML service over a packaged model."""
