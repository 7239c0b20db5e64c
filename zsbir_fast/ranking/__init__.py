"""How photos are ranked for a sketch. No model is in here: rankers work on embeddings."""
