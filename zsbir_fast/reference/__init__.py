"""The specification: every kernel once more in plain, readable PyTorch. Imports torch only."""
