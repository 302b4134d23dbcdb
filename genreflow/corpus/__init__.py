"""Labelled clips: sources, validation, duplicates, protocols, store."""
