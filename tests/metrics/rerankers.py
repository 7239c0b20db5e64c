"""One ranker of every rule, for galleries of 61 photos and more."""

import zsbir_fast as zf

RERANKERS = {
    "expansion": zf.ExpandedRanker(augment=5, expand=7),
    "icfrr": zf.IterativeRanker(gallery_k=5, query_k=5),
    "k-reciprocal": zf.ReciprocalRanker(k1=8, k2=3),
    "diffusion": zf.DiffusionRanker(graph_k=8, start_k=5),
}
