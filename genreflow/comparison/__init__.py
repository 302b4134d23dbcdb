"""Comparing model families on one corpus and split: candidates, leaderboard, agreement, report."""

MOST_CANDIDATES = 8
"""In one comparison: what a workflow object of Kubernetes holds of their steps."""
