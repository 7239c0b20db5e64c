"""From images and files to embeddings: what evaluation and search work on."""
