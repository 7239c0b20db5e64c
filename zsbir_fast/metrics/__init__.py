"""Ranking metrics by name: protocols, results, evaluators in memory, streaming and distributed."""
