// The emulated CUDA kernels of token_weighting against the CPU kernels (which Python compares with
// the reference), and their memory, races and barriers under the sanitizers.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#if defined(__CUDACC__)
#include "device.h"
#else
#include "emulated.h"
#endif

using namespace zsbir;
using namespace zsbir::token_weighting;

namespace {

int failures = 0;

struct Case {
  std::string name;
  int64_t pairs = 2, classes = 2, words = 3, width = 5, value_width = 7;
  int64_t sketch_patches = 4, photo_patches = 6;
  int32_t sides = 2;
  bool few = false;        // the variant for little shared memory
  double padding = 0.3;    // share of words that are none
  bool zero_rows = false;  // the first pair's values are zero
  bool only_pooled = false;
  Keep keep = Keep::all;
  double scale = 0.5;
  double gradient = 1;  // factor of all that comes from above
};

template <class V>
struct Vector {
  std::vector<V> data;  // exactly as long as it must be: ASan sees its end
  explicit Vector(int64_t size) : data(size) {}
  V* get() { return data.data(); }
};

template <class S>
Vector<S> random(int64_t size, std::mt19937_64& generator) {
  Vector<S> out(size);
  for (S& x : out.data) {
    const double value = std::normal_distribution<>()(generator);
    narrow(Accumulate<S>(value), x);
  }
  return out;
}

template <class S>
void compare(const Case& c, const char* what, const Vector<S>& a, const Vector<S>& b,
             double tolerance = sizeof(S) == 8   ? 1e-11
                                : sizeof(S) == 4 ? 2e-5
                                                 : 2e-2,
             double unit = 1) {
  for (size_t i = 0; i < a.data.size(); ++i) {
    const double x = widen(a.data[i]), y = widen(b.data[i]);
    if (std::abs(x - y) <= tolerance * (unit + std::abs(y))) continue;
    ++failures;
    std::printf("FAILED  %s: %s[%zu] is %g, on the CPU %g\n", c.name.c_str(), what, i, x, y);
    return;
  }
}

// Everything of one case, in host memory.
template <class S>
struct Data {
  using A = Accumulate<S>;
  Problem<S> problem;
  std::vector<Vector<S>> inputs;
  std::vector<uint8_t> mask;
  std::vector<int64_t> labels;
  Vector<A> weights{0}, grad_scores{0};
  std::vector<Vector<A>> grad_pooled;

  explicit Data(const Case& c) {
    std::mt19937_64 generator(std::hash<std::string>()(c.name));
    const int64_t patches[] = {c.sketch_patches, c.photo_patches};
    inputs.push_back(random<S>(c.classes * c.words * c.width, generator));
    for (int64_t n : patches) {
      inputs.push_back(random<S>(c.pairs * n * c.width, generator));
      inputs.push_back(random<S>(c.pairs * n * c.value_width, generator));
      if (c.zero_rows) std::fill_n(inputs.back().get(), n * c.value_width, S{});
    }
    for (int64_t i = 0; i < c.classes * c.words; ++i) {
      mask.push_back(std::uniform_real_distribution<>()(generator) >= c.padding);
    }
    // The last label is none: those words are all padding.
    for (int64_t b = 0; b < c.pairs; ++b) labels.push_back(b == 3 ? c.classes : b % c.classes);
    weights = random<A>(c.classes * c.words, generator);
    grad_scores = random<A>(c.pairs, generator);
    for (A& x : grad_scores.data) x *= A(c.gradient);
    for (int i = 0; i < 2; ++i) {
      grad_pooled.push_back(random<A>(c.pairs * c.words * c.value_width, generator));
      for (A& x : grad_pooled.back().data) x *= A(c.gradient);
    }
    problem = {c.pairs,
               c.classes,
               c.words,
               c.width,
               c.value_width,
               c.sides,
               A(c.scale),
               inputs[0].get(),
               mask.data(),
               labels.data(),
               {{inputs[1].get(), inputs[2].get(), c.sketch_patches},
                {inputs[3].get(), inputs[4].get(), c.photo_patches}}};
  }
};

template <class S>
struct Results {
  using A = Accumulate<S>;
  Vector<A> scores, sketch_pooled, photo_pooled, stats, text_rows;
  Vector<S> text;
  std::vector<Vector<S>> patches;

  explicit Results(const Case& c)
      : scores(c.sides == 2 ? c.pairs : 0),
        sketch_pooled(c.pairs * c.words * c.value_width),
        photo_pooled(c.sides == 2 ? c.pairs * c.words * c.value_width : 0),
        stats(kStats * c.pairs * c.words),
        text_rows(c.pairs * c.words * c.width),
        text(c.classes * c.words * c.width) {
    for (int64_t n : {c.sketch_patches, c.sides == 2 ? c.photo_patches : 0}) {
      patches.emplace_back(c.pairs * n * c.width);
      patches.emplace_back(c.pairs * n * c.value_width);
    }
  }

  template <class RunForward, class RunBackward, class RunSums>
  void compute(const Case& c, Data<S>& d, RunForward forward, RunBackward backward, RunSums sums) {
    const bool none = c.keep == Keep::scores;
    forward(d.problem,
            Forward<A>{d.weights.get(),
                       scores.get(),
                       {none ? nullptr : sketch_pooled.get(), none ? nullptr : photo_pooled.get()},
                       stats.get(),
                       c.keep});
    if (none) return;  // nothing to go back from
    const bool pooled = c.only_pooled || c.sides == 1;
    backward(d.problem,
             Backward<S>{d.weights.get(),
                         {sketch_pooled.get(), photo_pooled.get()},
                         stats.get(),
                         pooled ? nullptr : d.grad_scores.get(),
                         {d.grad_pooled[0].get(), pooled ? d.grad_pooled[1].get() : nullptr},
                         text_rows.get(),
                         {patches[0].get(), patches[2].get()},
                         {patches[1].get(), patches[3].get()}});
    sums(ClassSums<A>{c.pairs, c.classes, c.words, c.width, text_rows.get(), d.mask.data(),
                      d.labels.data()},
         text.get());
  }
};

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

// On tensor cores, or in the emulation of them. Halves: what is rounded on the way are weights and
// gradients, so an error is measured by the largest element, however small that is.
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
       .width = 88,
       .value_width = 136,
       .sketch_patches = 50,
       .photo_patches = 18,
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
       .sketch_patches = 40,
       .gradient = 1e-9},
      {.name = "large gradients",
       .words = 20,
       .width = 16,
       .value_width = 32,
       .sketch_patches = 40,
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
  const std::vector<Case> all = cases();
  for (const Case& c : all) {
    run_words<float>(c);
    if (c.sides == 2) run_pairwise<float>(c, c.words % 2 == 0);
  }
  const Case& small = all[4];
  run_words<double>(small);
  run_words<Half>(small);
  run_words<BFloat16>(small);
  run_product<Half>();
  run_product<BFloat16>();
  for (const Case& c : mma_cases()) {
    run_mma<Half>(c);
    run_mma<BFloat16>(c);
  }
  run_pairwise<double>(small, true);
  run_pairwise<BFloat16>(small, false);
  std::printf("%zu cases, %d failures\n", all.size() + mma_cases().size(), failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
