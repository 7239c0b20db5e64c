// batched_map: exact ranking metrics of Q queries against G gallery items, without sorting the
// gallery.
//
// This header is the contract of the room: it defines the inputs, the outputs, and the meaning of a
// tie or an empty row. It knows nothing of torch or Python. docs/metrics.md defines every metric.
#pragma once
#include <cstdint>

namespace zsbir::batched_map {

// The numbers are those of zsbir_fast/reference/definitions.py; the order is part of the contract.
enum class ApKind : int32_t { standard = 0, voc = 1 };
enum class Normaliser : int32_t {
  min_relevant_k = 0,
  prefix_positive = 1,
  all_relevant = 2,
  at_k = 3
};
enum class PrecisionDenominator : int32_t { k = 0, min_relevant_k = 1 };
enum class Ties : int32_t { index = 0, optimistic = 1, pessimistic = 2, grouped = 3, expected = 4 };

struct Definition {
  ApKind ap;
  Normaliser normaliser;
  PrecisionDenominator precision;
  Ties ties;  // `expected` is refused in Python where it has no closed form (voc, prefix_positive)
  const int64_t* ks;  // [n_ks] cut-offs, each >= 1; host memory on the CPU, device memory on CUDA
  int32_t n_ks;
};

// Columns of one output row: seven fixed ones, then four for each cut-off. AP@R and R-precision cut
// the ranking behind place R, the query's number of relevant items: kApAtR is the sum of the plain
// precisions within R over R, whatever `ap` and `normaliser` are; kRPrecision the hits over R.
enum Column : int32_t {
  kRelevant = 0,
  kAp = 1,
  kApWorst = 2,
  kApBest = 3,
  kReciprocalRank = 4,
  kApAtR = 5,
  kRPrecision = 6,
  kFixedColumns = 7
};
enum ColumnAtK : int32_t {
  kApAtK = 0,
  kPrecisionAtK = 1,
  kRecallAtK = 2,
  kHitAtK = 3,
  kColumnsPerK = 4
};

// Scores of every (query, gallery column) pair. Items rank ascending by the *key* of their score,
// which is larger_is_closer ? -score : score. Keys are compared as floats, so 0 and -0 tie. A
// column whose score is NaN takes no part in that query's ranking.
template <class T>
struct Scores {
  const T* data;  // [queries, gallery], rows row_stride elements apart, columns contiguous
  int64_t queries, gallery, row_stride;
  bool larger_is_closer;
  const int32_t* query_class;    // [queries]; -1: no gallery item is relevant
  const int32_t* gallery_class;  // [gallery]; an item is relevant if its class equals the query's
  const int32_t* gallery_index;  // [gallery] place of each column in the user's gallery, unique;
                                 // decides ties in `index` mode; nullptr: the column number itself
};

// The relevant items of each query, over all shards of the gallery, ascending by (key, index).
template <class T>
struct Relevant {
  const int64_t* offsets;  // [queries + 1] into the arrays below; offsets[0] == 0
  const T* key;            // [nnz]
  const int32_t* index;    // [nnz]
};

// Counts of *non-relevant* columns against every relevant item, int32 [3, nnz], row by row:
//   closer       key strictly smaller than the relevant item's key
//   tied         key equal
//   tied_before  key equal and gallery_index smaller
// The counts of disjoint gallery shards add up to those of the whole gallery: every function below
// *adds* to `counts`.
enum CountRow : int32_t { kCloser = 0, kTied = 1, kTiedBefore = 2, kCountRows = 3 };

template <class T>
void rank_counts_cpu(const Scores<T>& scores, const Relevant<T>& relevant, int32_t* counts);

// Metrics of each query from the counts: out double [queries, kFixedColumns + kColumnsPerK * n_ks].
// A query without a relevant item gives 0 in kRelevant and NaN elsewhere.
template <class T>
void ranking_metrics_cpu(int64_t queries, const Relevant<T>& relevant, const int32_t* counts,
                         const Definition& definition, double* out);

// Both at once for a whole gallery, nothing stored but the output: gathers and sorts the relevant
// keys of a query, counts, and evaluates, all in the cache of one core.
//   class_offsets int64 [classes + 1], class_columns int32 [gallery]: the columns of each class,
//   ascending by gallery_index.
template <class T>
void batched_map_cpu(const Scores<T>& scores, const int64_t* class_offsets,
                     const int32_t* class_columns, int32_t classes, const Definition& definition,
                     double* out);

// The same on a CUDA device: every pointer is device memory, work is queued on `stream`
// (a cudaStream_t), nothing is allocated and nothing waits. Throws std::runtime_error if a launch
// fails.
template <class T>
void rank_counts_cuda(const Scores<T>& scores, const Relevant<T>& relevant, int32_t* counts,
                      int device, void* stream);
template <class T>
void ranking_metrics_cuda(int64_t queries, const Relevant<T>& relevant, const int32_t* counts,
                          const Definition& definition, double* out, int device, void* stream);

}  // namespace zsbir::batched_map
