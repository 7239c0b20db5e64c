// The work that the driver (token_weighting_cpu.cpp) asks of a SIMD level: one pair in one thread.
// Each level is a file of its own; all of them share pair_cpu_body.h.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "token_weighting/token_weighting.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ZSBIR_X86_LEVELS 1  // `#pragma GCC target`, which clang does not know
#endif

namespace zsbir::token_weighting {

template <class S>
struct PairKernels {
  using A = Accumulate<S>;
  void (*forward)(const Problem<S>&, const Forward<A>&, int64_t pair, char* scratch);
  void (*backward)(const Problem<S>&, const Backward<S>&, int64_t pair, char* scratch);
  void (*inverse_norms)(const Tokens<S>&, int64_t width, int64_t item, A* out);
  void (*best)(const Pairwise<S>&, const PairwiseForward<A>&, int64_t pair, char* scratch);
  void (*pairwise_gradient)(const Pairwise<S>&, const PairwiseBackward<S>&, int32_t, int64_t item,
                            char* scratch);
};

template <class S>
PairKernels<S> baseline_kernels();
template <class S>
PairKernels<S> avx2_kernels();  // not of double
template <class S>
PairKernels<S> avx512_kernels();

// Arrays one after another in the scratch memory of a thread, each at the start of a cache line.
// Without memory it only counts bytes.
class Carver {
 public:
  explicit Carver(char* memory) : memory_(memory) {}
  template <class X>
  X* take(int64_t elements) {
    X* array = memory_ == nullptr ? nullptr : reinterpret_cast<X*>(memory_ + bytes_);
    bytes_ += (size_t(elements) * sizeof(X) + kLine - 1) / kLine * kLine;
    return array;
  }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kLine = 64;
  char* memory_;
  size_t bytes_ = 0;
};

inline int64_t padded(int64_t patches) { return (patches + 15) / 16 * 16; }

// Rows of valid words lie packed in scratch, so padding costs nothing.
template <class S>
struct PairScratch {
  using A = Accumulate<S>;
  static constexpr bool kWiden = !std::is_same_v<A, S>;

  int64_t stride;       // of the rows of `attention` and `slope`
  int32_t* rows;        // [words] which words are valid
  A* query;             // [words, width] scale * text
  A* pooled[kSides];    // [words, value_width]
  A* attention;         // [words, stride]
  A* grad[kSides];      // [words, value_width] gradient of the pooled rows
  A* slope;             // [words, stride] gradient of the logits
  A* query_grad;        // [words, width]
  A* mean;              // [words] <gradient of the pooled row, pooled row>
  A* wide[kSides + 1];  // float16 and bfloat16: keys, values, a gradient, as float
  size_t bytes;

  PairScratch(const Problem<S>& p, bool backward, char* memory) {
    Carver carver(memory);
    const int64_t most = std::max(p.side[kSketch].patches, p.side[kPhoto].patches);
    stride = padded(most);
    rows = carver.take<int32_t>(p.words);
    query = carver.take<A>(p.words * p.width);
    attention = carver.take<A>(p.words * stride);
    for (A*& array : pooled) array = carver.take<A>(p.words * p.value_width);
    for (A*& array : grad) array = carver.take<A>(backward ? p.words * p.value_width : 0);
    slope = carver.take<A>(backward ? p.words * stride : 0);
    query_grad = carver.take<A>(backward ? p.words * p.width : 0);
    mean = carver.take<A>(backward ? p.words : 0);
    const int64_t wider = std::max(p.width, p.value_width);
    for (A*& array : wide) array = carver.take<A>(kWiden ? most * wider : 0);
    bytes = carver.bytes();
  }
};

template <class S>
struct PairwiseScratch {
  using A = Accumulate<S>;
  static constexpr int64_t kRows = 24;  // sketch tokens that go past the photo's at a time

  int64_t stride;
  A* unit[kSides];  // [kRows or patches of the photo, width] unit rows
  A* cosines;       // [kRows, stride]
  A* grad;          // [patches, width]
  size_t bytes;

  PairwiseScratch(const Pairwise<S>& p, bool backward, char* memory) {
    Carver carver(memory);
    const int64_t photo = p.side[kPhoto].patches;
    stride = padded(photo);
    unit[kSketch] = carver.take<A>(kRows * p.width);
    unit[kPhoto] = carver.take<A>(backward ? p.width : photo * p.width);
    cosines = carver.take<A>(backward ? 0 : kRows * stride);
    grad = carver.take<A>(backward ? std::max(photo, p.side[kSketch].patches) * p.width : 0);
    bytes = carver.bytes();
  }
};

}  // namespace zsbir::token_weighting
