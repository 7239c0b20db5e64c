"""Image encoders from any model zoo, and reading their weights from files of strangers."""
