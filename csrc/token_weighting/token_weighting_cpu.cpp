// token_weighting on the CPU: pairs are spread over threads, and each is worked on by the kernels
// of the best SIMD level (pair_cpu.h).
//
// Determinism  A pair, and a class in class_sums, belongs to one thread: no bit depends on the
//              number of threads.
// Memory       The scratch of a thread holds rows of one pair's words, and attention rows [L, N];
//              nothing has the size [B, L, N].
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/cpu_features.h"
#include "common/parallel.h"
#include "token_weighting/pair_cpu.h"

namespace zsbir::token_weighting {

namespace {

template <class S>
PairKernels<S> pair_kernels() {
#if defined(ZSBIR_X86_LEVELS)
  if constexpr (!std::is_same_v<S, double>) {
    const Simd level = simd_level();
    if (level == Simd::avx512) return avx512_kernels<S>();
    if (level == Simd::avx2) return avx2_kernels<S>();
  }
#endif
  return baseline_kernels<S>();
}

// Scratch memory of every thread; uninitialised.
class Scratch {
 public:
  explicit Scratch(size_t bytes)
      : stride_((bytes + kPage - 1) / kPage * kPage),
        memory_(new char[stride_ * max_threads() + kPage]) {}
  char* of(int thread) const {
    char* first = memory_.get() + kPage - reinterpret_cast<uintptr_t>(memory_.get()) % kPage;
    return first + stride_ * thread;
  }

 private:
  static constexpr size_t kPage = 4096;
  size_t stride_;
  std::unique_ptr<char[]> memory_;
};

}  // namespace

template <class S>
void forward_cpu(const Problem<S>& problem, const Forward<Accumulate<S>>& out) {
  const Scratch scratch(PairScratch<S>(problem, false, nullptr).bytes);
  const PairKernels<S> kernels = pair_kernels<S>();
  parallel_rows(problem.pairs, [&](int64_t pair, int thread) {
    kernels.forward(problem, out, pair, scratch.of(thread));
  });
}

template <class S>
void backward_cpu(const Problem<S>& problem, const Backward<S>& gradients) {
  const Scratch scratch(PairScratch<S>(problem, true, nullptr).bytes);
  const PairKernels<S> kernels = pair_kernels<S>();
  parallel_rows(problem.pairs, [&](int64_t pair, int thread) {
    kernels.backward(problem, gradients, pair, scratch.of(thread));
  });
}

template <class A, class S>
void class_sums_cpu(const ClassSums<A>& sums, S* out) {
  std::vector<std::vector<int64_t>> members(sums.classes);
  for (int64_t pair = 0; pair < sums.pairs; ++pair) {
    const int64_t label = sums.labels[pair];
    if (label >= 0 && label < sums.classes) members[label].push_back(pair);
  }
  const std::unique_ptr<A[]> rows(new A[sums.width * max_threads()]);
  parallel_rows(sums.classes, [&](int64_t label, int thread) {
    A* row = rows.get() + thread * sums.width;
    for (int64_t j = 0; j < sums.words; ++j) {
      std::fill_n(row, sums.width, A(0));
      for (const int64_t pair : members[label]) {
        if (sums.mask[label * sums.words + j] == 0) break;
        const A* add = sums.rows + (pair * sums.words + j) * sums.width;
        for (int64_t d = 0; d < sums.width; ++d) row[d] += add[d];
      }
      S* to = out + (label * sums.words + j) * sums.width;
      for (int64_t d = 0; d < sums.width; ++d) narrow(row[d], to[d]);
    }
  });
}

template <class S>
void pairwise_forward_cpu(const Pairwise<S>& problem, const PairwiseForward<Accumulate<S>>& out) {
  const Scratch scratch(PairwiseScratch<S>(problem, false, nullptr).bytes);
  const PairKernels<S> kernels = pair_kernels<S>();
  for (int32_t side = 0; side < kSides; ++side) {
    parallel_rows(problem.side[side].items, [&](int64_t item, int) {
      kernels.inverse_norms(problem.side[side], problem.width, item, out.inverse_norm[side]);
    });
  }
  parallel_rows(problem.pairs(), [&](int64_t pair, int thread) {
    kernels.best(problem, out, pair, scratch.of(thread));
  });
}

template <class S>
void pairwise_backward_cpu(const Pairwise<S>& problem, const PairwiseBackward<S>& gradients) {
  const int64_t chosen = problem.pairs() * problem.side[kSketch].patches;
  for (int64_t at = 0; at < chosen; ++at) {  // operators may be given any number
    const int64_t token = gradients.best[at], tokens = problem.side[kPhoto].patches;
    if (token >= 0 && token < tokens) continue;
    throw std::invalid_argument("pairwise_token_score_backward: best must be in [0, " +
                                std::to_string(tokens) + "), got " + std::to_string(token));
  }
  const Scratch scratch(PairwiseScratch<S>(problem, true, nullptr).bytes);
  const PairKernels<S> kernels = pair_kernels<S>();
  for (int32_t side = 0; side < kSides; ++side) {
    parallel_rows(problem.side[side].items, [&](int64_t item, int thread) {
      kernels.pairwise_gradient(problem, gradients, side, item, scratch.of(thread));
    });
  }
}

#define ZSBIR_INSTANTIATE(S)                                                           \
  template void forward_cpu<S>(const Problem<S>&, const Forward<Accumulate<S>>&);      \
  template void backward_cpu<S>(const Problem<S>&, const Backward<S>&);                \
  template void class_sums_cpu<Accumulate<S>, S>(const ClassSums<Accumulate<S>>&, S*); \
  template void pairwise_forward_cpu<S>(const Pairwise<S>&,                            \
                                        const PairwiseForward<Accumulate<S>>&);        \
  template void pairwise_backward_cpu<S>(const Pairwise<S>&, const PairwiseBackward<S>&);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
ZSBIR_INSTANTIATE(Half)
ZSBIR_INSTANTIATE(BFloat16)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::token_weighting
