// The CUDA kernels of quadruplet_mining, emulated or on a GPU, against the CPU kernels: distances
// and choices bit for bit, counts exactly, sums to rounding.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#if defined(__CUDACC__)
#include "device.h"
#else
#include "emulated.h"
#endif

using namespace zsbir::quadruplet_mining;

namespace {

int cases = 0, failures = 0;

void check(bool ok, const std::string& what) {
  ++cases;
  if (ok) return;
  ++failures;
  std::printf("FAILED  %s\n", what.c_str());
}

template <class T>
bool close(const std::vector<T>& a, const std::vector<T>& b) {
  const double tolerance = sizeof(T) == 4 ? 1e-4 : 1e-10;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::fabs(double(a[i]) - double(b[i])) <= tolerance * (1 + std::fabs(double(b[i]))))) {
      return false;
    }
  }
  return true;
}

// Sketches, photos and labels; `steps` rounds to multiples of 1/2, which makes ties. Vectors have
// no spare room, so that AddressSanitizer sees their ends.
template <class T>
struct Batch {
  int64_t sketches, photos, width;
  int32_t classes;
  std::vector<T> s, p;
  std::vector<int64_t> s_labels, p_labels;

  Batch(int64_t n_s, int64_t n_p, int64_t width, int32_t classes, bool steps)
      : sketches(n_s), photos(n_p), width(width), classes(classes) {
    std::mt19937_64 random(n_s * 1000 + n_p * 10 + width);
    std::normal_distribution<double> normal;
    for (auto [rows, count] : {std::pair(&s, n_s), std::pair(&p, n_p)}) {
      for (int64_t i = 0; i < count * width; ++i) {
        const double x = normal(random);
        rows->push_back(T(steps ? std::round(2 * x) / 2 : x));
      }
    }
    for (int64_t i = 0; i < n_s; ++i) s_labels.push_back(int64_t(random() % classes) * 7 - 3);
    for (int64_t i = 0; i < n_p; ++i) p_labels.push_back(int64_t(random() % classes) * 7 - 3);
  }
  Rows<T> sketch_rows() const { return {s.data(), sketches, width}; }
  Rows<T> photo_rows() const { return {p.data(), photos, width}; }
};

constexpr Distance kDistances[] = {Distance::euclidean, Distance::squared_euclidean,
                                   Distance::one_minus_dot};

template <class T>
void check_distances(const Batch<T>& b, const std::string& name) {
  for (const Distance distance : kDistances) {
    std::vector<T> found(b.sketches * b.photos, T(-1)), expected = found;
    kernels::pair_distances(b.sketch_rows(), b.photo_rows(), distance, found.data());
    pair_distances_cpu(b.sketch_rows(), b.photo_rows(), distance, expected.data());
    // The CPU without fused multiply-adds rounds otherwise; ZSBIR_SIMD=baseline asks for that.
    check(found == expected || (std::getenv("ZSBIR_SIMD") && close(found, expected)),
          name + " distances");
  }
}

// Products of a part of the anchors with all photos, as wrong as `error` lets them be.
template <class T>
struct Products {
  std::vector<T> products, anchor_lengths, reference_lengths;
  Estimates<T> get(int64_t first, int64_t rows, double error) const {
    return {products.data(),          first,    rows,    anchor_lengths.data(),
            reference_lengths.data(), T(error), T(1e-6), T(1e-30)};
  }

  Products(const Batch<T>& b, int64_t first, int64_t rows, double error, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> wrong(-0.9 * error, 0.9 * error);
    const auto product = [&](const std::vector<T>& x, int64_t i, const std::vector<T>& y,
                             int64_t j) {
      double sum = 0;
      for (int64_t d = 0; d < b.width; ++d) sum += double(x[i * b.width + d]) * y[j * b.width + d];
      return sum;
    };
    for (int64_t i = 0; i < b.sketches; ++i)
      anchor_lengths.push_back(T(std::sqrt(product(b.s, i, b.s, i))));
    for (int64_t j = 0; j < b.photos; ++j)
      reference_lengths.push_back(T(std::sqrt(product(b.p, j, b.p, j))));
    for (int64_t i = first; i < first + rows; ++i) {
      for (int64_t j = 0; j < b.photos; ++j) {  // twice the product counts, so half the error
        const double lengths = double(anchor_lengths[i]) * double(reference_lengths[j]);
        products.push_back(T(product(b.s, i, b.p, j) + 0.5 * wrong(random) * lengths));
      }
    }
  }
};

// All distances are computed first, then looked at one by one: select_pairs must find the same
// without them.
template <class T>
void plain_selection(const Batch<T>& b, const SelectFilter<T>& f, Distance distance, int32_t wanted,
                     std::vector<int64_t>& index, std::vector<T>& chosen) {
  std::vector<T> d(b.sketches * b.photos);
  pair_distances_cpu(b.sketch_rows(), b.photo_rows(), distance, d.data());
  for (int32_t c = 0; c < kChoices; ++c) {
    const bool same = c == kNearestSame || c == kFarthestSame;
    const T sign = c == kNearestSame || c == kNearestOther ? T(1) : T(-1);
    for (int64_t a = 0; a < b.sketches; ++a) {
      int64_t best = -1;
      for (int64_t r = 0; r < b.photos && (wanted >> c & 1); ++r) {
        const T x = d[a * b.photos + r];
        const bool own = b.p_labels[r] == b.s_labels[a];
        if (own != same || (own && r >= f.same_limit)) continue;
        if (!own && f.forbidden && b.p_labels[r] == f.forbidden[a]) continue;
        if ((f.low && !(x > f.low[a])) || (f.high && !(x < f.high[a]))) continue;
        if (best < 0 || sign * x < sign * d[a * b.photos + best]) best = r;
      }
      index[c * b.sketches + a] = best;
      chosen[c * b.sketches + a] = best < 0 ? T(0) : d[a * b.photos + best];
    }
  }
}

template <class T>
void check_selection(const Batch<T>& b, const std::string& name) {
  std::vector<int64_t> forbidden(b.sketches);
  std::vector<T> low(b.sketches), high(b.sketches);
  for (int64_t a = 0; a < b.sketches; ++a) {
    forbidden[a] = b.p_labels.empty() ? 0 : b.p_labels[a % b.photos];
    low[a] = T(0.5) * T(a % 4 - 1);
    high[a] = low[a] + T(2);
  }
  for (int32_t k = 0; k < 6; ++k) {
    const Distance distance = kDistances[k % 3];
    const bool filtered = k % 2 == 1;
    const SelectFilter<T> filter{b.s_labels.data(),
                                 b.p_labels.data(),
                                 filtered ? b.photos / 2 : b.photos,
                                 filtered ? forbidden.data() : nullptr,
                                 filtered ? low.data() : nullptr,
                                 filtered ? high.data() : nullptr};
    const int32_t wanted = k < 3 ? 15 : 6;
    std::vector<int64_t> index(kChoices * b.sketches, -7), expected_index = index,
                                                           cpu_index = index;
    std::vector<T> chosen(kChoices * b.sketches, T(-7)), expected = chosen, cpu = chosen;
    plain_selection(b, filter, distance, wanted, expected_index, expected);
    const int64_t half = b.sketches / 2;
    for (const auto& [first, rows] : {std::pair(int64_t(0), half), {half, b.sketches - half}}) {
      const double error = k % 3 == 0 ? 1e-2 : 1e-4;
      const Products<T> one(b, first, rows, error, 1), other(b, first, rows, error, 2);
      kernels::select_pairs(b.sketch_rows(), b.photo_rows(), filter, one.get(first, rows, error),
                            distance, wanted, index.data(), chosen.data());
      select_pairs_cpu(b.sketch_rows(), b.photo_rows(), filter, other.get(first, rows, error),
                       distance, wanted, cpu_index.data(), cpu.data());
    }
    check(cpu_index == expected_index && cpu == expected, name + " selection on the CPU");
    check((index == expected_index && chosen == expected) ||
              (std::getenv("ZSBIR_SIMD") && close(chosen, expected)),
          name + " selection");
  }
}

template <class T>
void check_hinges(const Batch<T>& b, const std::string& name) {
  if (b.photos == 0) return;
  std::vector<int64_t> positive, negative, sketch;
  std::vector<char> valid;
  std::vector<T> upstream;
  for (int64_t a = 0; a < b.sketches; ++a) {
    valid.push_back(a % 5 != 4);  // the rows of the others do not exist
    positive.push_back(valid.back() ? a % b.photos : -1);
    negative.push_back(valid.back() ? (3 * a + 1) % b.photos : b.photos);
    sketch.push_back(valid.back() ? (a * a) % b.sketches : -5);
    upstream.push_back(T(1) / T(a + 1));
  }
  const MinedRows<T> rows{b.sketch_rows(),
                          b.photo_rows(),
                          b.sketch_rows(),
                          positive.data(),
                          negative.data(),
                          sketch.data(),
                          reinterpret_cast<const bool*>(valid.data())};
  const HingeForm forms[] = {{{1, .5, 2, 1, .25}, {.3, .2, .5, 1, .7}, -1},
                             {{0, 0, 0, 0, 0}, {.4, 0, 0, 0, 0}, .25}};
  for (const Distance distance : kDistances) {
    const HingeForm& form = forms[distance == Distance::squared_euclidean];
    std::vector<T> hinges(b.sketches, T(-7)), slopes(kEdges * b.sketches, T(-7));
    auto expected = hinges, expected_slopes = slopes;
    kernels::quadruplet_hinges(rows, form, distance, hinges.data(), slopes.data());
    quadruplet_hinges_cpu(rows, form, distance, expected.data(), expected_slopes.data());
    check(close(hinges, expected) && close(slopes, expected_slopes), name + " hinges");
    std::array<std::vector<T>, 3> grads[2];
    for (auto& side : grads) {
      side[0].assign(b.s.size(), T(-7));
      side[1].assign(b.p.size(), T(-7));
      side[2].assign(b.s.size(), T(-7));
    }
    kernels::quadruplet_hinges_backward(rows, distance, expected_slopes.data(), upstream.data(),
                                        grads[0][0].data(), grads[0][1].data(), grads[0][2].data());
    quadruplet_hinges_backward_cpu(rows, distance, expected_slopes.data(), upstream.data(),
                                   grads[1][0].data(), grads[1][1].data(), grads[1][2].data());
    for (int i = 0; i < 3; ++i) check(close(grads[0][i], grads[1][i]), name + " gradients");
    for (int unwanted = 0; unwanted < 3; ++unwanted) {
      auto some = grads[0];
      T* to[3];
      for (int i = 0; i < 3; ++i) {
        std::fill(some[i].begin(), some[i].end(), T(-7));
        to[i] = i == unwanted ? nullptr : some[i].data();
      }
      kernels::quadruplet_hinges_backward(rows, distance, expected_slopes.data(), upstream.data(),
                                          to[0], to[1], to[2]);
      for (int i = 0; i < 3; ++i) {
        if (i != unwanted) check(some[i] == grads[0][i], name + " gradients of some");
      }
    }
  }
}

template <class T>
void check_hinge_rows(const Batch<T>& b, const std::string& name) {
  std::vector<T> cross(b.sketches * b.photos), within(b.sketches * b.sketches);
  pair_distances_cpu(b.sketch_rows(), b.photo_rows(), Distance::euclidean, cross.data());
  pair_distances_cpu(b.sketch_rows(), b.sketch_rows(), Distance::euclidean, within.data());
  std::vector<int32_t> row_weights(b.sketches, 50), value_weights(b.sketches);
  for (int64_t i = 0; i < b.sketches; ++i) value_weights[i] = int32_t(i % 7);
  for (const bool separate : {false, true}) {
    for (const bool weighted : {false, true}) {
      if (weighted && !separate) continue;  // the weights are as many as the sketches
      const int64_t values = separate ? b.sketches : b.photos;
      const HingeRows<T> problem{cross.data(),
                                 separate ? within.data() : cross.data(),
                                 b.sketches,
                                 b.photos,
                                 values,
                                 b.s_labels.data(),
                                 b.p_labels.data(),
                                 separate ? b.s_labels.data() : b.p_labels.data(),
                                 weighted ? row_weights.data() : nullptr,
                                 weighted ? value_weights.data() : nullptr,
                                 0.5,
                                 !separate};
      std::vector<double> sums[2], active[2];
      std::vector<T> by_threshold[2], by_value[2];
      for (int side = 0; side < 2; ++side) {
        sums[side].assign(b.sketches, -7);
        active[side].assign(b.sketches, -7);
        by_threshold[side].assign(cross.size(), T(-7));
        by_value[side].assign(separate ? within.size() : 0, T(-7));
        const auto run = side ? hinge_rows_cpu<T> : kernels::hinge_rows<T>;
        run(problem, sums[side].data(), active[side].data(), by_threshold[side].data(),
            separate ? by_value[side].data() : nullptr);
      }
      check(close(sums[0], sums[1]) && active[0] == active[1], name + " sums of rows");
      check(by_threshold[0] == by_threshold[1] && by_value[0] == by_value[1], name + " counts");
    }
  }
  std::vector<T> counts(cross.size(), T(-7)), expected = counts;
  std::vector<T> transposed(cross.size());
  for (int64_t i = 0; i < b.sketches; ++i) {
    for (int64_t j = 0; j < b.photos; ++j) transposed[j * b.sketches + i] = cross[i * b.photos + j];
  }
  const UnionRows<T> problem{
      cross.data(),      within.data(),     transposed.data(), b.sketches, b.photos, b.sketches,
      b.s_labels.data(), b.p_labels.data(), b.s_labels.data(), 0.25,       0.5};
  kernels::union_counts(problem, counts.data());
  union_counts_cpu(problem, expected.data());
  check(counts == expected, name + " union");
}

// Thresholds as zsbir_fast/ops/quadruplet_mining/probes.py sorts them.
template <class T>
struct SortedThresholds {
  std::vector<int32_t> s_class, p_class;
  std::vector<T> all, by_class;
  std::vector<double> sums, class_sums;
  std::vector<int64_t> offsets;
  int64_t count;

  SortedThresholds(const Batch<T>& b, const std::vector<T>& cross, T margin) {
    for (const int64_t label : b.s_labels) s_class.push_back(int32_t((label + 3) / 7));
    for (const int64_t label : b.p_labels) p_class.push_back(int32_t((label + 3) / 7));
    offsets.push_back(0);
    for (int32_t c = 0; c < b.classes; ++c) {
      std::vector<T> own;
      for (int64_t i = 0; i < b.sketches; ++i) {
        for (int64_t j = 0; j < b.photos; ++j) {
          if (s_class[i] == c && p_class[j] == c) own.push_back(cross[i * b.photos + j] + margin);
        }
      }
      std::sort(own.begin(), own.end());
      std::vector<double> suffix(own.size());
      double sum = 0;
      for (size_t i = own.size(); i-- > 0;) suffix[i] = sum += double(own[i]);
      by_class.insert(by_class.end(), own.begin(), own.end());
      class_sums.insert(class_sums.end(), suffix.begin(), suffix.end());
      offsets.push_back(int64_t(by_class.size()));
    }
    all = by_class;
    std::sort(all.begin(), all.end());
    count = int64_t(all.size());
    sums.assign(count + 1, 0);
    for (int64_t i = count; i-- > 0;) sums[i] = sums[i + 1] + double(all[i]);
  }
};

template <class T>
void check_probes(const Batch<T>& b, const std::string& name) {
  std::vector<T> cross(b.sketches * b.photos);
  pair_distances_cpu(b.sketch_rows(), b.photo_rows(), Distance::euclidean, cross.data());
  const SortedThresholds<T> t(b, cross, T(0.25));
  const Probes<T> problem{cross.data(),        b.sketches,       b.photos,      t.s_class.data(),
                          t.p_class.data(),    t.all.data(),     t.sums.data(), t.by_class.data(),
                          t.class_sums.data(), t.offsets.data(), &t.count,      t.count};
  std::vector<double> sums[2];
  std::vector<T> by_value[2];
  std::vector<int64_t> hits[2], class_hits[2];
  for (int side = 0; side < 2; ++side) {
    sums[side].assign(b.sketches, -7);
    by_value[side].assign(cross.size(), T(-7));
    hits[side].assign(t.count + 1, 0);
    class_hits[side].assign(t.count + 1, 0);
    const auto run = side ? probe_pairs_cpu<T> : kernels::probe_pairs<T>;
    run(problem, sums[side].data(), by_value[side].data(), hits[side].data(),
        class_hits[side].data());
  }
  check(close(sums[0], sums[1]) && by_value[0] == by_value[1], name + " probes");
  check(hits[0] == hits[1] && class_hits[0] == class_hits[1], name + " hits of probes");
}

template <class T>
void check_all(const std::string& type) {
  struct Shape {
    int64_t sketches, photos, width;
    int32_t classes;
    bool steps;
  };
  std::vector<Shape> shapes = {
      {1, 1, 1, 1, true}, {5, 0, 3, 2, false}, {66, 12, 17, 3, true}, {5, 150, 5, 1, false}};
#if defined(__CUDACC__)
  shapes.push_back({3, 2300, 2, 2, false});  // more thresholds of a row than fit at a time
#endif
  for (const Shape& x : shapes) {
    const Batch<T> batch(x.sketches, x.photos, x.width, x.classes, x.steps);
    const std::string name = type + " " + std::to_string(x.sketches) + " x " +
                             std::to_string(x.photos) + " x " + std::to_string(x.width);
    check_distances(batch, name);
    check_selection(batch, name);
    check_hinges(batch, name);
    check_hinge_rows(batch, name);
    check_probes(batch, name);
  }
}

}  // namespace

int main() {
  check_all<float>("float");
  check_all<double>("double");
  std::printf("%d checks, %d failures\n", cases, failures);
  return failures == 0 ? 0 : 1;
}
