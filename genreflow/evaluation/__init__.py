"""Metrics, uncertainty and the report."""
