"""One story for a run: its settings, training, the test on unseen classes, and its results."""
