// The emulated CUDA kernels of token_weighting against the CPU kernels (which Python compares with
// the reference), and their memory, races and barriers under the sanitizers.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#if defined(__CUDACC__)
#include "device.h"
#else
#include "emulated.h"
#endif
// After the kernels, or their emulation:
#include "cases.h"

using namespace zsbir;
using namespace zsbir::token_weighting;
using namespace kernels;

namespace {

template <class S>
void run_words(const Case& c) {
  using A = Accumulate<S>;
  Data<S> data(c);
  Results<S> cpu(c), cuda(c);
  cpu.compute(c, data, forward_cpu<S>, backward_cpu<S>, class_sums_cpu<A, S>);
  cuda.compute(
      c, data,
      [&](const Problem<S>& p, const Forward<A>& out) {
        kernels::forward<S>(p, out, c.few, Products::plain);
      },
      [&](const Problem<S>& p, const Backward<S>& g) {
        kernels::backward<S>(p, g, c.few, Products::plain);
      },
      [&](const ClassSums<A>& sums, S* out) { kernels::class_sums<A, S>(sums, out); });
  compare(c, "scores", cuda.scores, cpu.scores);
  compare(c, "sketch_pooled", cuda.sketch_pooled, cpu.sketch_pooled);
  compare(c, "photo_pooled", cuda.photo_pooled, cpu.photo_pooled);
  compare(c, "stats", cuda.stats, cpu.stats);
  compare(c, "text", cuda.text, cpu.text);
  const char* names[] = {"sketch_keys", "sketch_values", "photo_keys", "photo_values"};
  for (int i = 0; i < 4; ++i) compare(c, names[i], cuda.patches[i], cpu.patches[i]);
}

// On tensor cores, or in their emulation. With halves, weights and gradients are rounded on the
// way, so an error is measured by the largest element, however small that is.
template <class S>
void run_mma(const Case& c) {
  Data<S> data(c);
  Results<S> cpu(c), cuda(c);
  cpu.compute(c, data, forward_cpu<S>, backward_cpu<S>, class_sums_cpu<float, S>);
  const auto best = [&](const char* what) {
    if (c.pairs == 0 || kernels::ran_best()) return;
    ++failures;
    std::printf("FAILED  %s: %s without tensor cores\n", c.name.c_str(), what);
  };
  cuda.compute(
      c, data,
      [&](const Problem<S>& p, const Forward<float>& out) {
        kernels::forward<S>(p, out, c.few);
        best("forward");
      },
      [&](const Problem<S>& p, const Backward<S>& g) {
        kernels::backward<S>(p, g, c.few);
        best("backward");
      },
      [&](const ClassSums<float>& sums, S* out) { kernels::class_sums<float, S>(sums, out); });
  const double none = 1e-3 * c.gradient;  // where the exact result is 0
  const auto near = [&](const char* what, const auto& a, const auto& b, double unit) {
    for (const auto& y : b.data) unit = std::max(unit, double(std::abs(widen(y))));
    compare(c, what, a, b, std::is_same_v<S, Half> ? 2e-3 : 1e-2, unit);
  };
  near("scores", cuda.scores, cpu.scores, 0);
  near("sketch_pooled", cuda.sketch_pooled, cpu.sketch_pooled, 0);
  near("photo_pooled", cuda.photo_pooled, cpu.photo_pooled, 0);
  near("stats", cuda.stats, cpu.stats, 0);
  near("text_rows", cuda.text_rows, cpu.text_rows, none);
  const double least = std::is_same_v<S, Half> ? 1e-4 : none;  // below, a Half itself rounds
  near("text", cuda.text, cpu.text, least);
  const char* names[] = {"sketch_keys", "sketch_values", "photo_keys", "photo_values"};
  for (int i = 0; i < 4; ++i) near(names[i], cuda.patches[i], cpu.patches[i], least);
}

template <class S>
void run_product() {
  std::mt19937_64 generator(1);
  constexpr int64_t m = 16 * kernels::kProductM, n = 8 * kernels::kProductN,
                    k = 16 * kernels::kProductK;
  Vector<S> a = random<S>(m * k, generator), b = random<S>(k * n, generator);
  Vector<float> sum = random<float>(m * n, generator), want = sum;
  for (int64_t i = 0; i < m * n; ++i) {
    double x = sum.data[i];
    for (int64_t d = 0; d < k; ++d) {
      x += double(widen(a.data[i / n * k + d])) * widen(b.data[d * n + i % n]);
    }
    want.data[i] = float(x);
  }
  if (!kernels::mma_product<S>(a.get(), b.get(), sum.get())) return;
  compare({.name = "one product"}, "sum", sum, want, 1e-5);
}

#if !defined(__CUDACC__)
void expect(bool holds, const char* what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED  launch: %s\n", what);
}

// Which shapes go to tensor cores, and how (mma_launch.h).
void run_launches() {
  const Case c{.name = "launch",
               .words = 77,
               .width = 512,
               .value_width = 512,
               .sketch_patches = 196,
               .photo_patches = 197};
  const Data<Half> data(c);
  const Problem<Half>& p = data.problem;
  constexpr size_t kLarge = 227 * 1024, kSmall = 99 * 1024;
  const auto with = [&](auto change) {
    Problem<Half> other = p;
    change(other);
    return other;
  };
  Forward<float> out{}, scores{};
  out.keep = Keep::valid;
  scores.keep = Keep::scores;
  const Backward<Half> g{};
  expect(forward_mma_launch(p, out, kLarge).words == 48, "77 words are two tiles");
  expect(forward_mma_launch(p, out, kSmall).words == 16, "little shared memory, few words");
  expect(forward_mma_launch(p, scores, kLarge).words == 16, "pooled rows need room");
  expect(words_mma_launch(p, g, kLarge).words == 48, "the gradient of 77 words in two tiles");
  expect(words_mma_launch(p, g, kSmall).words == 16, "their gradient, little shared memory");
  const MmaLaunch all = patches_mma_launch(p, g, kLarge), few = patches_mma_launch(p, g, kSmall);
  expect(all.words == 48 && all.threads == 13 * 32, "a warp for each 16 patches");
  expect(few.words == 16 && few.threads < all.threads, "fewer warps in little shared memory");
  const auto odd = with([](auto& q) { q.width = 516; });
  const auto shifted = with([](auto& q) { ++q.side[kPhoto].values; });
  const auto long_text = with([](auto& q) { q.words = 100000; });
  const auto many = with([](auto& q) { q.side[kSketch].patches = 5000; });
  for (const auto* q : {&odd, &shifted}) {
    expect(forward_mma_launch(*q, out, kLarge).words == 0, "rows must begin on 16 bytes");
    expect(words_mma_launch(*q, g, kLarge).words == 0, "rows must begin on 16 bytes");
    expect(patches_mma_launch(*q, g, kLarge).words == 0, "rows must begin on 16 bytes");
  }
  expect(patches_mma_launch(long_text, g, kLarge).words == 0, "halves of all words must fit");
  expect(forward_mma_launch(many, out, kLarge).words == 0, "logits of all patches must fit");
}
#endif

template <class S>
void run_pairwise(const Case& c, bool all_pairs) {
  using A = Accumulate<S>;
  std::mt19937_64 generator(std::hash<std::string>()(c.name));
  const int64_t sketches = c.pairs, photos = all_pairs ? c.classes : c.pairs;
  Vector<S> sketch = random<S>(sketches * c.sketch_patches * c.width, generator);
  Vector<S> photo = random<S>(photos * c.photo_patches * c.width, generator);
  for (int64_t i = 0; photos > 0 && c.photo_patches > 1 && i < c.width; ++i) {
    photo.data[i + c.width] = photo.data[i];  // a tie
  }
  if (c.zero_rows) std::fill_n(sketch.get(), c.width, S{});
  const Pairwise<S> p{
      {{sketch.get(), sketches, c.sketch_patches}, {photo.get(), photos, c.photo_patches}},
      c.width,
      all_pairs};
  Vector<A> grad = random<A>(p.pairs(), generator);
  struct Out {
    Vector<A> scores, sketch_norm, photo_norm, cosine;
    Vector<int32_t> best;
    Vector<S> sketch, photo;
  };
  const auto outputs = [&] {
    return Out{Vector<A>(p.pairs()),
               Vector<A>(sketches * c.sketch_patches),
               Vector<A>(photos * c.photo_patches),
               Vector<A>(p.pairs() * c.sketch_patches),
               Vector<int32_t>(p.pairs() * c.sketch_patches),
               Vector<S>(sketches * c.sketch_patches * c.width),
               Vector<S>(photos * c.photo_patches * c.width)};
  };
  Out cpu = outputs(), cuda = outputs();
  const auto forward = [](Out& o) {
    return PairwiseForward<A>{
        o.scores.get(), {o.sketch_norm.get(), o.photo_norm.get()}, o.cosine.get(), o.best.get()};
  };
  const auto backward = [&](Out& o) {
    return PairwiseBackward<S>{grad.get(),
                               {o.sketch_norm.get(), o.photo_norm.get()},
                               o.cosine.get(),
                               o.best.get(),
                               {o.sketch.get(), o.photo.get()}};
  };
  pairwise_forward_cpu<S>(p, forward(cpu));
  pairwise_backward_cpu<S>(p, backward(cpu));
  kernels::pairwise_forward<S>(p, forward(cuda), c.few);
  kernels::pairwise_backward<S>(p, backward(cuda));
  compare(c, "pairwise scores", cuda.scores, cpu.scores);
  compare(c, "pairwise sketch gradient", cuda.sketch, cpu.sketch);
  compare(c, "pairwise photo gradient", cuda.photo, cpu.photo);
  for (size_t i = 0; i < cpu.best.data.size(); ++i) {
    if (cpu.best.data[i] == cuda.best.data[i]) continue;
    ++failures;
    std::printf("FAILED  %s: best photo tokens differ\n", c.name.c_str());
    return;
  }
}

std::vector<Case> cases() {
  return {
      {.name = "nothing", .pairs = 0},
      {.name = "one of each", .pairs = 1, .classes = 1, .words = 1, .padding = 0},
      {.name = "no words", .words = 0},
      {.name = "all padding", .padding = 1},
      {.name = "small", .pairs = 4},
      {.name = "zero rows", .pairs = 3, .zero_rows = true},
      {.name = "more words than a tile", .words = 19, .padding = 0.2},
      {.name = "more patches than a tile", .sketch_patches = 37, .photo_patches = 65},
      {.name = "wide", .pairs = 1, .width = 70, .value_width = 67, .photo_patches = 17},
      {.name = "few", .words = 5, .sketch_patches = 33, .few = true, .padding = 0},
      {.name = "words by the mask", .classes = 1, .words = 70, .few = true, .padding = 0.9},
      {.name = "pooling alone", .pairs = 3, .words = 9, .sides = 1},
      {.name = "gradient of pooled rows", .words = 4, .only_pooled = true},
  };
}

// Widths are multiples of 8, so that tensor cores take them.
std::vector<Case> mma_cases() {
  std::vector<Case> all = {
      {.name = "nothing", .pairs = 0, .width = 8, .value_width = 8},
      {.name = "one of each",
       .pairs = 1,
       .classes = 1,
       .words = 1,
       .width = 8,
       .value_width = 16,
       .sketch_patches = 1,
       .photo_patches = 1,
       .padding = 0},
      {.name = "no words", .words = 0, .width = 8, .value_width = 8},
      {.name = "all padding", .width = 8, .value_width = 8, .padding = 1},
      {.name = "small",
       .pairs = 4,
       .words = 5,
       .width = 40,
       .value_width = 72,
       .sketch_patches = 17,
       .photo_patches = 35},
      {.name = "zero rows",
       .pairs = 3,
       .words = 4,
       .width = 16,
       .value_width = 24,
       .zero_rows = true},
      {.name = "scores alone",
       .words = 5,
       .width = 24,
       .value_width = 72,
       .photo_patches = 20,
       .keep = Keep::scores},
      {.name = "few",
       .pairs = 1,
       .words = 36,
       .width = 72,
       .value_width = 40,
       .sketch_patches = 33,
       .few = true,
       .padding = 0.1,
       .keep = Keep::valid},
      {.name = "words by the mask",
       .classes = 1,
       .words = 70,
       .width = 24,
       .value_width = 8,
       .padding = 0.9},
      {.name = "more words than a tile",
       .pairs = 1,
       .classes = 1,
       .words = 77,
       .width = 40,
       .value_width = 72,
       .sketch_patches = 34,
       .photo_patches = 3,
       .padding = 0},
      {.name = "pooling alone",
       .pairs = 3,
       .words = 17,
       .width = 32,
       .value_width = 40,
       .sides = 1},
      {.name = "gradient of pooled rows",
       .words = 4,
       .width = 8,
       .value_width = 48,
       .only_pooled = true},
      {.name = "small gradients",
       .words = 7,
       .width = 16,
       .value_width = 32,
       .sketch_patches = 20,
       .gradient = 1e-9},
      {.name = "large gradients",
       .words = 20,
       .width = 16,
       .value_width = 32,
       .sketch_patches = 20,
       .few = true,
       .gradient = 300},
  };
  for (Case& c : all) {
    c.name = "tensor cores, " + c.name;
    c.scale = 1 / std::sqrt(double(c.width));
  }
  return all;
}

}  // namespace

int main() {
  const std::vector<Case> all = cases(), mma = mma_cases();
  for (const Case& c : all) {
    run_words<float>(c);
    if (c.sides == 2) run_pairwise<float>(c, c.words % 2 == 0);
  }
  const Case& small = all[4];
  run_words<double>(small);
  run_words<Half>(small);
  run_words<BFloat16>(small);
#if !defined(__CUDACC__)
  run_launches();
#endif
  run_product<Half>();
  run_product<BFloat16>();
  for (size_t i = 0; i < mma.size(); ++i) {
    run_mma<Half>(mma[i]);
    if (i % 2 == 1) run_mma<BFloat16>(mma[i]);
  }
  run_pairwise<double>(small, true);
  run_pairwise<BFloat16>(small, false);
  std::printf("%zu cases, %d failures\n", all.size() + mma.size(), failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
