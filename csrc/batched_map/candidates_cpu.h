// The first, vectorised stage of the counting loop: which columns of a block can count, and where.
#pragma once
#include <cstdint>

namespace zsbir::batched_map {

// Columns are handled in blocks whose intermediate results stay in the first-level cache.
constexpr int32_t kBlock = 512;

// The columns of a block that are neither relevant themselves nor behind the last relevant key.
template <class T>
struct Candidates {
  alignas(64) T key[kBlock + 16];
  alignas(64) int32_t bucket[kBlock + 16];
  alignas(64) int32_t column[kBlock + 16];  // offset in the block
  int32_t size = 0;
};

// The facts of a query that this stage needs (slot_table.h explains the map from keys to buckets).
template <class T>
struct Filter {
  T lowest, highest, scale;
  int32_t buckets;
  bool negate;          // the key is the negated score
  int32_t query_class;  // skip columns of this class; not looked at if `classes` is nullptr
};

// One function for each level of SIMD; `columns` <= kBlock. Chosen once per call of the kernel.
template <class T>
using SelectCandidates = void (*)(const T* scores, const int32_t* classes, int32_t columns,
                                  const Filter<T>& filter, Candidates<T>& out);

template <class T>
SelectCandidates<T> select_candidates();

}  // namespace zsbir::batched_map
