// The emulated kernels as a C library for Python's ctypes: test_batched_map_emulation.py.
#include "emulated.h"

using namespace zsbir::batched_map;

namespace {

template <class T>
void rank_counts(const void* scores, int64_t queries, int64_t gallery, int64_t row_stride,
                 bool larger_is_closer, const int32_t* query_class, const int32_t* gallery_class,
                 const int32_t* gallery_index, const int64_t* offsets, const void* key,
                 const int32_t* index, int32_t* counts, const kernels::LaunchShape& shape) {
  kernels::rank_counts<T>({static_cast<const T*>(scores), queries, gallery, row_stride,
                           larger_is_closer, query_class, gallery_class, gallery_index},
                          {offsets, static_cast<const T*>(key), index}, counts, shape);
}

}  // namespace

extern "C" {

void emulated_rank_counts(bool float64, const void* scores, int64_t queries, int64_t gallery,
                          int64_t row_stride, bool larger_is_closer, const int32_t* query_class,
                          const int32_t* gallery_class, const int32_t* gallery_index,
                          const int64_t* offsets, const void* key, const int32_t* index,
                          int32_t* counts, int32_t threads, int32_t columns_per_slice,
                          int32_t capacity) {
  const auto run = float64 ? rank_counts<double> : rank_counts<float>;
  run(scores, queries, gallery, row_stride, larger_is_closer, query_class, gallery_class,
      gallery_index, offsets, key, index, counts, {threads, columns_per_slice, capacity});
}

void emulated_ranking_metrics(bool float64, int64_t queries, const int64_t* offsets,
                              const void* key, const int32_t* counts, const int32_t* codes,
                              const int64_t* ks, int32_t n_ks, double* out) {
  const Definition definition{ApKind(codes[0]),
                              Normaliser(codes[1]),
                              PrecisionDenominator(codes[2]),
                              Ties(codes[3]),
                              ks,
                              n_ks};
  if (float64) {
    kernels::ranking_metrics<double>(queries, {offsets, static_cast<const double*>(key), nullptr},
                                     counts, definition, out);
  } else {
    kernels::ranking_metrics<float>(queries, {offsets, static_cast<const float*>(key), nullptr},
                                    counts, definition, out);
  }
}

}  // extern "C"
