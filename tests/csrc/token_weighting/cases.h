// A case of the tests of the room: its sizes, its data, and the results of a forward and a backward
// pass.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "token_weighting/token_weighting.h"

namespace kernels {

using namespace zsbir;
using namespace zsbir::token_weighting;

inline int failures = 0;

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

}  // namespace kernels
