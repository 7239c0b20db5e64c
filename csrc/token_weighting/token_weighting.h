// token_weighting: words attend over the patches of a sketch and of a photo, and the cosines of the
// rows that they pool there score the pair. Without text, every sketch patch is compared with its
// best photo patch.
//
// This header is the contract of the room: it defines the inputs, the outputs, and the meaning of
// an empty text or a zero row. It knows nothing of torch or Python. docs/methods.md has the
// equations.
//
// S is the type of storage (float, double, Half, BFloat16), A = Accumulate<S> that of all sums and
// results. Every array is contiguous in the order of its shape. C++ names: pairs B, classes C,
// words L, patches N (each side its own), width D of keys and text, value_width V of values.
#pragma once
#include <cstdint>

#include "common/half.h"

namespace zsbir::token_weighting {

// A row whose largest absolute entry is below this counts as the zero vector: cosine 0, gradient 0.
// The number is that of zsbir_fast/reference/token_weighting.py.
constexpr double kZeroRow = 1e-30;

constexpr int32_t kSketch = 0, kPhoto = 1, kSides = 2;

template <class S>
struct Side {
  const S* keys;    // [pairs, patches, width]
  const S* values;  // [pairs, patches, value_width]
  int64_t patches;  // >= 1
};

template <class S>
struct Problem {
  using A = Accumulate<S>;
  int64_t pairs, classes, words, width, value_width;
  int32_t sides;          // 2; or 1: only side[kSketch], pooled rows and no cosines
  A scale;                // logit = scale * <word, key>
  const S* text;          // [classes, words, width]
  const uint8_t* mask;    // [classes, words]; 0: the word is padding, skipped
  const int64_t* labels;  // [pairs]; outside [0, classes): a text without words
  Side<S> side[kSides];
};

// Per word of a pair, [kStats, pairs, words]; 0 where the word is padding.
constexpr int32_t kLogSum = 0;       // + side: log of the sum of exp(logit) over the patches
constexpr int32_t kInverseNorm = 2;  // + side: 1 / |pooled row|; 0 of a zero row
constexpr int32_t kCosine = 4;       // of the two pooled rows
constexpr int32_t kStats = 5;

enum class Keep : int32_t {
  scores = 0,  // pooled rows are not stored
  valid = 1,   // pooled rows of valid words, all that the backward pass reads
  all = 2      // and zeros in the rows of padding
};

template <class A>
struct Forward {
  const A* weights;   // [classes, words], how much a word counts; nullptr with one side
  A* scores;          // [pairs] weighted sum of cosines; nullptr with one side
  A* pooled[kSides];  // [pairs, words, value_width]; unused for Keep::scores
  A* stats;           // [kStats, pairs, words]
  Keep keep;
};

template <class S>
struct Backward {
  using A = Accumulate<S>;
  // The results of the forward pass, and their gradients.
  const A* weights;
  const A* pooled[kSides];
  const A* stats;
  const A* grad_scores;          // [pairs]; nullptr: zero
  const A* grad_pooled[kSides];  // [pairs, words, value_width]; nullptr: zero
  // Out. Text gradients stay apart by pair: class_sums adds them up. Rows of padding are not
  // written.
  A* text_rows;  // [pairs, words, width]
  S* keys[kSides];
  S* values[kSides];
};

template <class S>
void forward_cpu(const Problem<S>& problem, const Forward<Accumulate<S>>& out);
template <class S>
void backward_cpu(const Problem<S>& problem, const Backward<S>& gradients);

// Sums over the pairs of each class, in the order of the pairs:
//   rows [pairs, words, width] -> out [classes, words, width], 0 where the word is padding.
template <class A>
struct ClassSums {
  int64_t pairs, classes, words, width;
  const A* rows;
  const uint8_t* mask;
  const int64_t* labels;
};
template <class A, class S>
void class_sums_cpu(const ClassSums<A>& sums, S* out);

// Pairwise scores: the mean over sketch tokens of the largest cosine with a photo token. Among
// equal cosines the one of the lowest index is taken.
template <class S>
struct Tokens {
  const S* data;  // [items, patches, width]
  int64_t items;
  int64_t patches;  // >= 1
};
template <class S>
struct Pairwise {
  Tokens<S> side[kSides];
  int64_t width;
  bool all_pairs;  // pair p is (p / photos, p % photos); else (p, p)

  ZSBIR_HD int64_t pairs() const {
    return all_pairs ? side[kSketch].items * side[kPhoto].items : side[kSketch].items;
  }
};
template <class A>
struct PairwiseForward {
  A* scores;                // [pairs]
  A* inverse_norm[kSides];  // [items, patches]; 0 of a zero row
  A* cosine;                // [pairs, sketch patches] the largest
  int32_t* best;            // [pairs, sketch patches] its photo token
};
template <class S>
struct PairwiseBackward {
  using A = Accumulate<S>;
  const A* grad_scores;  // [pairs]
  const A* inverse_norm[kSides];
  const A* cosine;
  const int32_t* best;
  S* tokens[kSides];  // out, the gradients
};

template <class S>
void pairwise_forward_cpu(const Pairwise<S>& problem, const PairwiseForward<Accumulate<S>>& out);
template <class S>
void pairwise_backward_cpu(const Pairwise<S>& problem, const PairwiseBackward<S>& gradients);

// The same on a CUDA device: every pointer is device memory, work is queued on `stream` (a
// cudaStream_t), nothing is allocated and nothing waits. A launch that fails throws
// std::runtime_error.
//
// Products     best takes tensor cores for float16 and bfloat16 where the device has them and the
//              shape allows it (mma_launch.h); a test may ask for the plain products instead.
enum class Products : int32_t { best = 0, plain = 1 };
template <class S>
void forward_cuda(const Problem<S>& problem, const Forward<Accumulate<S>>& out, int device,
                  void* stream, Products products = Products::best);
template <class S>
void backward_cuda(const Problem<S>& problem, const Backward<S>& gradients, int device,
                   void* stream, Products products = Products::best);
template <class A, class S>
void class_sums_cuda(const ClassSums<A>& sums, S* out, int device, void* stream);
template <class S>
void pairwise_forward_cuda(const Pairwise<S>& problem, const PairwiseForward<Accumulate<S>>& out,
                           int device, void* stream);
template <class S>
void pairwise_backward_cuda(const Pairwise<S>& problem, const PairwiseBackward<S>& gradients,
                            int device, void* stream);

}  // namespace zsbir::token_weighting
