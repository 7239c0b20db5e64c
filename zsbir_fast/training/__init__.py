"""The training loop: a Lightning module, resumable streams of batches, and callbacks."""
