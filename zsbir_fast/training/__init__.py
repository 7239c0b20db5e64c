"""The training loop: Lightning modules, resumable data streams and what happens around steps."""
