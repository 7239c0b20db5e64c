// The CUDA kernels on a GPU, with host memory in and out, as emulated.h runs them on CPU threads.
#pragma once
#include "mma_product.h"
#include "on_device.h"
#include "token_weighting/token_weighting.h"

namespace kernels {

using namespace zsbir;
using namespace zsbir::token_weighting;

template <class S>
struct ProblemOnDevice {
  OnDevice<S> text, sketch_keys, sketch_values, photo_keys, photo_values;
  OnDevice<uint8_t> mask;
  OnDevice<int64_t> labels;
  Problem<S> problem;

  explicit ProblemOnDevice(const Problem<S>& p)
      : text(p.text, p.classes * p.words * p.width),
        sketch_keys(p.side[0].keys, p.pairs * p.side[0].patches * p.width),
        sketch_values(p.side[0].values, p.pairs * p.side[0].patches * p.value_width),
        photo_keys(p.side[1].keys, p.pairs * p.side[1].patches * p.width),
        photo_values(p.side[1].values, p.pairs * p.side[1].patches * p.value_width),
        mask(p.mask, p.classes * p.words),
        labels(p.labels, p.pairs),
        problem(p) {
    problem.text = text.get();
    problem.mask = mask.get();
    problem.labels = labels.get();
    problem.side[0] = {sketch_keys.get(), sketch_values.get(), p.side[0].patches};
    problem.side[1] = {photo_keys.get(), photo_values.get(), p.side[1].patches};
  }
};

// The launcher chooses the variant of the kernels, whichever one the test asks for, except for the
// products. Which products ran only the launcher knows.
inline bool ran_best() { return true; }

template <class S>
void forward(const Problem<S>& p, const Forward<Accumulate<S>>& host, bool,
             Products products = Products::best) {
  using A = Accumulate<S>;
  const ProblemOnDevice<S> device(p);
  const int64_t rows = p.pairs * p.words * p.value_width;
  const OnDevice<A> weights(host.weights, p.classes * p.words);
  const OnDevice<A> scores(host.scores, p.sides == kSides ? p.pairs : 0);
  const OnDevice<A> sketch(host.pooled[0], rows);
  const OnDevice<A> photo(host.pooled[1], p.sides == kSides ? rows : 0);
  const OnDevice<A> stats(host.stats, kStats * p.pairs * p.words);
  forward_cuda<S>(
      device.problem,
      {weights.get(), scores.get(), {sketch.get(), photo.get()}, stats.get(), host.keep}, 0,
      nullptr, products);
  scores.copy_to(host.scores);
  sketch.copy_to(host.pooled[0]);
  photo.copy_to(host.pooled[1]);
  stats.copy_to(host.stats);
}

template <class S>
void backward(const Problem<S>& p, const Backward<S>& host, bool,
              Products products = Products::best) {
  using A = Accumulate<S>;
  const ProblemOnDevice<S> device(p);
  const int64_t rows = p.pairs * p.words * p.value_width;
  const int64_t photo_rows = p.sides == kSides ? rows : 0;
  const int64_t photos = p.sides == kSides ? p.pairs * p.side[1].patches : 0;
  const int64_t sketches = p.pairs * p.side[0].patches;
  const OnDevice<A> weights(host.weights, p.classes * p.words);
  const OnDevice<A> pooled[] = {{host.pooled[0], rows}, {host.pooled[1], photo_rows}};
  const OnDevice<A> stats(host.stats, kStats * p.pairs * p.words);
  const OnDevice<A> grad_scores(host.grad_scores, p.pairs);
  const OnDevice<A> grad[] = {{host.grad_pooled[0], rows}, {host.grad_pooled[1], photo_rows}};
  const OnDevice<A> text_rows(host.text_rows, p.pairs * p.words * p.width);
  const OnDevice<S> keys[] = {{host.keys[0], sketches * p.width}, {host.keys[1], photos * p.width}};
  const OnDevice<S> values[] = {{host.values[0], sketches * p.value_width},
                                {host.values[1], photos * p.value_width}};
  backward_cuda<S>(device.problem,
                   {weights.get(),
                    {pooled[0].get(), pooled[1].get()},
                    stats.get(),
                    grad_scores.get(),
                    {grad[0].get(), grad[1].get()},
                    text_rows.get(),
                    {keys[0].get(), keys[1].get()},
                    {values[0].get(), values[1].get()}},
                   0, nullptr, products);
  text_rows.copy_to(host.text_rows);
  for (int side = 0; side < kSides; ++side) {
    keys[side].copy_to(host.keys[side]);
    values[side].copy_to(host.values[side]);
  }
}

// The products of mma_product.h; false where there are no tensor cores.
template <class S>
bool mma_product(const S* host_a, const S* host_b, float* host_sum) {
  const DeviceGuard guard(0);
  if (guard.attribute(cudaDevAttrComputeCapabilityMajor) < kMmaCapability) return false;
  constexpr int64_t m = 16 * kProductM, n = 8 * kProductN, k = 16 * kProductK;
  const OnDevice<S> a(host_a, m * k), b(host_b, k * n);
  const OnDevice<float> sum(host_sum, m * n);
  launch(guard, "mma_product_kernel", mma_product_kernel<S>, dim3(1), 32, 0, nullptr,
         static_cast<const S*>(a.get()), static_cast<const S*>(b.get()), sum.get());
  sum.copy_to(host_sum);
  return true;
}

template <class A, class S>
void class_sums(const ClassSums<A>& host, S* host_out) {
  const OnDevice<A> rows(host.rows, host.pairs * host.words * host.width);
  const OnDevice<uint8_t> mask(host.mask, host.classes * host.words);
  const OnDevice<int64_t> labels(host.labels, host.pairs);
  const OnDevice<S> out(host_out, host.classes * host.words * host.width);
  ClassSums<A> sums = host;
  sums.rows = rows.get();
  sums.mask = mask.get();
  sums.labels = labels.get();
  class_sums_cuda<A, S>(sums, out.get(), 0, nullptr);
  out.copy_to(host_out);
}

template <class S>
struct PairwiseOnDevice {
  OnDevice<S> sketch, photo;
  Pairwise<S> problem;
  explicit PairwiseOnDevice(const Pairwise<S>& p)
      : sketch(p.side[0].data, p.side[0].items * p.side[0].patches * p.width),
        photo(p.side[1].data, p.side[1].items * p.side[1].patches * p.width),
        problem(p) {
    problem.side[0].data = sketch.get();
    problem.side[1].data = photo.get();
  }
};

template <class S>
void pairwise_forward(const Pairwise<S>& p, const PairwiseForward<Accumulate<S>>& host, bool) {
  using A = Accumulate<S>;
  const PairwiseOnDevice<S> device(p);
  const int64_t chosen = p.pairs() * p.side[0].patches;
  const OnDevice<A> scores(host.scores, p.pairs());
  const OnDevice<A> sketch(host.inverse_norm[0], p.side[0].items * p.side[0].patches);
  const OnDevice<A> photo(host.inverse_norm[1], p.side[1].items * p.side[1].patches);
  const OnDevice<A> cosine(host.cosine, chosen);
  const OnDevice<int32_t> best(host.best, chosen);
  pairwise_forward_cuda<S>(device.problem,
                           {scores.get(), {sketch.get(), photo.get()}, cosine.get(), best.get()}, 0,
                           nullptr);
  scores.copy_to(host.scores);
  sketch.copy_to(host.inverse_norm[0]);
  photo.copy_to(host.inverse_norm[1]);
  cosine.copy_to(host.cosine);
  best.copy_to(host.best);
}

template <class S>
void pairwise_backward(const Pairwise<S>& p, const PairwiseBackward<S>& host) {
  using A = Accumulate<S>;
  const PairwiseOnDevice<S> device(p);
  const int64_t chosen = p.pairs() * p.side[0].patches;
  const OnDevice<A> grad(host.grad_scores, p.pairs());
  const OnDevice<A> sketch(host.inverse_norm[0], p.side[0].items * p.side[0].patches);
  const OnDevice<A> photo(host.inverse_norm[1], p.side[1].items * p.side[1].patches);
  const OnDevice<A> cosine(host.cosine, chosen);
  const OnDevice<int32_t> best(host.best, chosen);
  const OnDevice<S> sketch_grad(host.tokens[0], p.side[0].items * p.side[0].patches * p.width);
  const OnDevice<S> photo_grad(host.tokens[1], p.side[1].items * p.side[1].patches * p.width);
  pairwise_backward_cuda<S>(device.problem,
                            {grad.get(),
                             {sketch.get(), photo.get()},
                             cosine.get(),
                             best.get(),
                             {sketch_grad.get(), photo_grad.get()}},
                            0, nullptr);
  sketch_grad.copy_to(host.tokens[0]);
  photo_grad.copy_to(host.tokens[1]);
}

}  // namespace kernels
