// quadruplet_mining: hard mining across modalities, the hinges of mined quadruplets, and batch-all
// losses.
//
// This header is the contract of the room: it defines the inputs, the outputs, and the meaning of a
// tie or an empty set. It knows nothing of torch or Python. README.md has the maths;
// docs/methods.md says which equation is whose.
//
// Everything is deterministic. A distance is one chain of fused multiply-adds over the width, the
// same for every pair, so equal pairs have equal distances; choices are by (distance, index); sums
// have a fixed order.
#pragma once
#include <cstdint>

namespace zsbir::quadruplet_mining {

// The numbers are those of zsbir_fast/ops; the order is part of the contract.
enum class Distance : int32_t {
  euclidean = 0,
  squared_euclidean = 1,
  one_minus_dot = 2  // the cosine distance of rows that have length 1 (or 0)
};

// A contiguous matrix, row by row.
template <class T>
struct Rows {
  const T* data;  // [count, width]
  int64_t count, width;
};

// --- distances ----------------------------------------------------------------------------------

// out [a.count, b.count].
template <class T>
void pair_distances_cpu(Rows<T> a, Rows<T> b, Distance distance, T* out);

// The factors of the gradient by pairs of rows: that of row i of `a` is sum_j W[i, j] (a_i - b_j),
// that of row j of `b` is sum_i W[i, j] (b_j - a_i). weights W [rows, columns] = slope of the
// distance times grad, row_sums [rows] and column_sums [columns] of W. A Euclidean distance below
// 1e-6 passes none. With column_sums == nullptr rows and columns are the same set: W + W^T and its
// row sums.
template <class T>
void distance_weights_cpu(const T* grad, const T* distances, int64_t rows, int64_t columns,
                          Distance distance, T* weights, T* row_sums, T* column_sums);

// --- mining -------------------------------------------------------------------------------------

// The four choices that are sought among the references of an anchor. Same: of the anchor's class.
enum Choice : int32_t {
  kNearestSame = 0,
  kFarthestSame = 1,
  kNearestOther = 2,
  kFarthestOther = 3,
  kChoices = 4
};

template <class T>
struct SelectFilter {
  const int64_t* anchor_labels;     // [anchors]
  const int64_t* reference_labels;  // [references]
  int64_t same_limit;               // only references before it count as Same; others as neither
  const int64_t* forbidden;         // [anchors] a label that counts as neither; nullptr: none
  const T* low;                     // [anchors] only distances above it count; nullptr: all
  const T* high;                    // [anchors] only distances below it count; nullptr: all
};

// Bounds of distances by products of rows. Rows may be shifted by a common vector before they are
// multiplied, and the products may be rounded in any way, provided that the raw distance (the sum
// of a chain over the given rows, before its square root) is
// within  product_error |a| |b| + norm_error (|a|^2 + |b|^2) + tiny
// of      |a|^2 + |b|^2 - 2 product,  or of  1 - product  for one_minus_dot.
template <class T>
struct Estimates {
  const T* products;           // [rows, references], of the anchors from `first` on
  int64_t first, rows;         // a part of the anchors, whose products are there at a time
  const T* anchor_lengths;     // [anchors] of the rows that were multiplied
  const T* reference_lengths;  // [references]
  T product_error, norm_error, tiny;
};

// The choices of anchors `first` to `first + rows`: index [kChoices, anchors] and distance
// [kChoices, anchors]. The index is -1, and the distance 0, where there is no such reference; the
// index is -1, too, where bit `choice` of `wanted` is not set. Among equal distances the lowest
// index is chosen. Products only tell which pairs are worth a look: distances, and so choices, are
// those of the given rows, in all bits. references.count < 2^31. Returns how many distances were
// summed.
template <class T>
int64_t select_pairs_cpu(Rows<T> anchors, Rows<T> references, const SelectFilter<T>& filter,
                         const Estimates<T>& estimates, Distance distance, int32_t wanted,
                         int64_t* index, T* chosen);

// --- hinges of given quadruplets ----------------------------------------------------------------

constexpr int32_t kHinges = 5;

// Hinge k of an anchor: coefficient[k] * max(0, d(sketch, positive) - d_k + margin[k]), where d_k
// is the distance of (sketch, photo-), (sketch, sketch-), (positive, sketch-), (positive, photo-),
// (sketch-, photo-). With cross_modal_share >= 0 there is one hinge instead, against
// (1 - share) d(sketch, sketch-) + share d(sketch, photo-), with margin[0].
struct HingeForm {
  double coefficient[kHinges];
  double margin[kHinges];
  double cross_modal_share;  // negative: five hinges
};

template <class T>
struct MinedRows {
  Rows<T> sketches, photos, references;  // references: where negative sketches are found
  const int64_t* positive;               // [sketches.count] row of photos
  const int64_t* photo_negative;         // [sketches.count] row of photos
  const int64_t* sketch_negative;        // [sketches.count] row of references
  const bool* valid;                     // [sketches.count]; rows of others are not looked at
};

// The distances of a quadruplet, in the order of d_k, after that of (sketch, positive).
constexpr int32_t kEdges = 6;

// hinges [anchors] is 0 where an anchor is not valid. slopes [anchors, kEdges] is what the backward
// pass needs: the derivative of an anchor's hinges by each of its six distances, divided by the
// distance for `euclidean` (0 where a distance is below 1e-6).
template <class T>
void quadruplet_hinges_cpu(const MinedRows<T>& rows, const HingeForm& form, Distance distance,
                           T* hinges, T* slopes);

// Gradients of sum(upstream * hinges): [sketches.count, D], [photos.count, D] and
// [references.count, D]. A nullptr says that a gradient is not wanted. Every row gathers its own
// terms in the order of the anchors.
template <class T>
int64_t rows_with_gradient(const MinedRows<T>& rows, const T* sketches_grad, const T* photos_grad,
                           const T* references_grad) {
  return (sketches_grad ? rows.sketches.count : 0) + (photos_grad ? rows.photos.count : 0) +
         (references_grad ? rows.references.count : 0);
}
template <class T>
void quadruplet_hinges_backward_cpu(const MinedRows<T>& rows, Distance distance, const T* slopes,
                                    const T* upstream, T* sketches_grad, T* photos_grad,
                                    T* references_grad);

// --- batch-all ----------------------------------------------------------------------------------

// For every row r: sum over own columns p of `thresholds` and other columns v of `values` of
// weight(r, v) * max(0, thresholds[r, p] + margin - values[r, v]). Own: of the row's class (and not
// column r itself, with exclude_self); other: of another class.
template <class T>
struct HingeRows {
  const T* thresholds;  // [rows, threshold_columns]
  const T* values;      // [rows, value_columns]; may be the same matrix
  int64_t rows, threshold_columns, value_columns;
  const int64_t* row_labels;        // [rows]
  const int64_t* threshold_labels;  // [threshold_columns]
  const int64_t* value_labels;      // [value_columns]
  const int32_t* row_weights;       // [rows], [value_columns]: weight(r, v) = row_weights[r] -
  const int32_t* value_weights;     //   value_weights[v]; nullptr: 1. Not negative.
  double margin;
  bool exclude_self;
};

// sums [rows]; active [rows], the weights of the non-zero terms; by_threshold [rows,
// threshold_columns], the derivative of a row's sum by its thresholds, which (for weights of 1) is
// the number of non-zero terms; by_value [rows, value_columns], never positive. With values ==
// thresholds and by_value == nullptr both derivatives go to by_threshold.
template <class T>
void hinge_rows_cpu(const HingeRows<T>& problem, double* sums, double* active, T* by_threshold,
                    T* by_value);

// h5 of all quadruplets: sum over sorted thresholds t of class c and over pairs (q, n) of two
// classes, both other than c, of max(0, t - values[q, n]). A class number indexes class_offsets.
template <class T>
struct Probes {
  const T* values;  // [rows, columns]
  int64_t rows, columns;
  const int32_t* row_class;      // [rows]
  const int32_t* column_class;   // [columns]
  const T* thresholds;           // [count] ascending
  const double* threshold_sums;  // [count + 1] sum of thresholds[i:]
  const T* by_class;             // [count] grouped by class, ascending within
  const double* by_class_sums;   // [count] sum of by_class[i:end of its class]
  const int64_t* class_offsets;  // [classes + 1] into by_class
  const int64_t* count;          // number of thresholds; device memory on CUDA
  int64_t capacity;              // entries of the arrays; those behind the thresholds are +inf
};

// sums [rows]; by_value [rows, columns], never positive; hits and class_hits [capacity + 1], both
// added to: how many pairs have exactly the thresholds from i on above them, among all pairs and
// among those of a class that the pair touches. The derivatives by thresholds follow from them.
template <class T>
void probe_pairs_cpu(const Probes<T>& problem, double* sums, T* by_value, int64_t* hits,
                     int64_t* class_hits);

// How many values lie below at least one of two thresholds: out[r, c] is the number of values v of
// another class than row r with
//   first[r, v] < pairs[r, c] + first_margin  or  second[c, v] < pairs[r, c] + second_margin,
// for columns c of the row's class, and 0 for the others.
template <class T>
struct UnionRows {
  const T *pairs, *first, *second;  // [rows, columns], [rows, values], [columns, values]
  int64_t rows, columns, values;
  const int64_t *row_labels, *column_labels, *value_labels;
  double first_margin, second_margin;
};
template <class T>
void union_counts_cpu(const UnionRows<T>& problem, T* out);

// Non-zero quadruplets where h5 takes part, and h1 and h4 may. The thresholds of h5 as in Probes,
// in the order of `by_class`; entry i is that of sketch anchor[i] and photo positive[i].
template <class T>
struct ProbeUnion {
  const T* values;  // [photos, sketches] distances of every photo to every sketch
  const T* photos;  // [photos, photos] distances, symmetric; nullptr: h4 takes no part
  int64_t sketch_count, photo_count;
  const int32_t *sketch_class, *photo_class;
  const T* thresholds;                      // [count] ascending
  const T* by_class;                        // [count] grouped by class, ascending within
  const int32_t *anchor, *positive, *rank;  // [count]; rank: place of the entry in `thresholds`
  const T *h1_threshold, *h4_threshold;     // [count]; h1_threshold nullptr: h1 takes no part
  const int64_t* class_offsets;             // [classes + 1] into by_class
  int32_t classes;
  int64_t count;  // entries; on CUDA those that are +inf stand for none
  // CUDA only: `values` with every row sorted and sketches of the photo's class as +inf; the
  // sketches by class; and the begin of each class among them.
  const T* sorted;                // [photos, sketches]
  const int64_t* members;         // [sketch_count]
  const int64_t* member_offsets;  // [classes + 1]
};
// Returns the number of quadruplets with h5 > 0, or h1 > 0, or h4 > 0.
template <class T>
int64_t probe_union_cpu(const ProbeUnion<T>& problem);

// The same on a CUDA device: every pointer is device memory, work is queued on `stream` (a
// cudaStream_t), nothing is allocated and nothing waits. Throws std::runtime_error if a launch
// fails.
template <class T>
void pair_distances_cuda(Rows<T> a, Rows<T> b, Distance distance, T* out, int device, void* stream);
template <class T>
void select_pairs_cuda(Rows<T> anchors, Rows<T> references, const SelectFilter<T>& filter,
                       const Estimates<T>& estimates, Distance distance, int32_t wanted,
                       int64_t* index, T* chosen, int device, void* stream);
template <class T>
void quadruplet_hinges_cuda(const MinedRows<T>& rows, const HingeForm& form, Distance distance,
                            T* hinges, T* slopes, int device, void* stream);
template <class T>
void quadruplet_hinges_backward_cuda(const MinedRows<T>& rows, Distance distance, const T* slopes,
                                     const T* upstream, T* sketches_grad, T* photos_grad,
                                     T* references_grad, int device, void* stream);
template <class T>
void hinge_rows_cuda(const HingeRows<T>& problem, double* sums, double* active, T* by_threshold,
                     T* by_value, int device, void* stream);
template <class T>
void probe_pairs_cuda(const Probes<T>& problem, double* sums, T* by_value, int64_t* hits,
                      int64_t* class_hits, int device, void* stream);
template <class T>
void union_counts_cuda(const UnionRows<T>& problem, T* out, int device, void* stream);
// totals [count]: of every entry.
template <class T>
void probe_union_cuda(const ProbeUnion<T>& problem, int64_t* totals, int device, void* stream);

}  // namespace zsbir::quadruplet_mining
