"""Training: Lightning modules, resumable data streams, checkpoints, and the YAML configs.

What belongs here runs models on data. Losses and networks live in ``losses`` and ``models``;
ranking metrics in ``metrics``.
"""
