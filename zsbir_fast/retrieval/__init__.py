"""From images and files to embeddings, which evaluation and search work on."""
