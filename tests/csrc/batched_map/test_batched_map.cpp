// The emulated CUDA kernels of batched_map against counting by definition, and bit for bit against
// the CPU kernels.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#if defined(__CUDACC__)
#include "device.h"
#else
#include "emulated.h"
#endif

using namespace zsbir::batched_map;

namespace {

int failures = 0;

void check(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::printf("FAILED  %s\n", what.c_str());
}

enum class Values { continuous, few, one, signed_zeros, outlier, infinite, huge, denormal };

struct Case {
  std::string name;
  int64_t queries, gallery;
  int32_t classes = 3;  // 1: every item is relevant
  Values values = Values::continuous;
  int64_t pad = 0, shift = 0;  // row_stride - gallery; elements before the first row
  bool larger_is_closer = true, permuted = false;
  int64_t shards = 1;
  kernels::LaunchShape shape = {};
  bool metrics = false;  // under every definition; a launch starts 32 threads
};

template <class T>
T draw(Values values, std::mt19937_64& random) {
  using Limits = std::numeric_limits<T>;
  const double u = std::uniform_real_distribution<>(-1, 1)(random);
  const int64_t die = int64_t(random() % 5);
  switch (values) {
    case Values::few:
      return T(die) - T(2);
    case Values::one:
      return T(0.25);
    case Values::signed_zeros:
      return die < 2 ? T(0) : die < 4 ? -T(0) : T(u);
    case Values::outlier:
      return die == 0 && random() % 16 == 0 ? T(1e6 * u) : T(u);
    case Values::infinite:
      return die == 0 ? Limits::infinity() : die == 1 ? -Limits::infinity() : T(u);
    case Values::huge:
      return T(u) * Limits::max();
    case Values::denormal:
      return T(int(40 * u)) * Limits::denorm_min();
    default:
      return T(u);
  }
}

// A matrix of scores in one piece. Vectors have no spare room, so that ASan sees their ends.
template <class T>
struct Data {
  int64_t stride;
  std::vector<T> scores;
  std::vector<int32_t> query_class, gallery_class, gallery_index;

  explicit Data(const Case& c) : stride(c.gallery + c.pad) {
    std::mt19937_64 random(std::hash<std::string>()(c.name));
    scores.resize(c.shift + c.queries * stride);
    for (T& score : scores) score = draw<T>(c.values, random);
    for (int64_t q = 0; q < c.queries; ++q) {
      // No gallery item has the last class, and every fifth query has none.
      query_class.push_back(q % 5 == 4 ? -1 : int32_t(q % (c.classes + (q > 2))));
    }
    for (int64_t g = 0; g < c.gallery; ++g) gallery_class.push_back(int32_t(random() % c.classes));
    gallery_index.resize(c.gallery);
    std::iota(gallery_index.begin(), gallery_index.end(), 0);
    if (c.permuted) std::shuffle(gallery_index.begin(), gallery_index.end(), random);
  }
};

template <class T>
struct Ranked {
  std::vector<int64_t> offsets{0};
  std::vector<T> key;
  std::vector<int32_t> index, counts;  // counts [3, nnz]
  Relevant<T> relevant() const { return {offsets.data(), key.data(), index.data()}; }
};

// By definition: every relevant item against every other column.
template <class T>
Ranked<T> by_definition(const Case& c, const Data<T>& d) {
  Ranked<T> r;
  std::vector<int32_t> rows[kCountRows];
  for (int64_t q = 0; q < c.queries; ++q) {
    const T* row = d.scores.data() + c.shift + q * d.stride;
    std::vector<std::pair<T, int32_t>> own, others;
    for (int64_t g = 0; g < c.gallery; ++g) {
      auto& list = d.gallery_class[g] == d.query_class[q] ? own : others;
      list.emplace_back(c.larger_is_closer ? -row[g] : row[g], d.gallery_index[g]);
    }
    std::sort(own.begin(), own.end());
    for (const auto& [key, index] : own) {
      int32_t count[kCountRows] = {};
      for (const auto& [other_key, other_index] : others) {
        count[kCloser] += other_key < key;
        count[kTied] += other_key == key;
        count[kTiedBefore] += other_key == key && other_index < index;
      }
      r.key.push_back(key);
      r.index.push_back(index);
      for (int32_t i = 0; i < kCountRows; ++i) rows[i].push_back(count[i]);
    }
    r.offsets.push_back(int64_t(r.key.size()));
  }
  for (const auto& row : rows) r.counts.insert(r.counts.end(), row.begin(), row.end());
  return r;
}

// count(scores, relevant, counts) over each shard: columns g with g % shards == shard.
template <class T, class Count>
std::vector<int32_t> over_shards(const Case& c, const Data<T>& d, const Ranked<T>& r, Count count) {
  std::vector<int32_t> counts(kCountRows * r.key.size());
  for (int64_t shard = 0; shard < c.shards; ++shard) {
    std::vector<T> scores;
    std::vector<int32_t> classes, index;
    for (int64_t g = shard; g < c.gallery; g += c.shards) {
      classes.push_back(d.gallery_class[g]);
      index.push_back(d.gallery_index[g]);
    }
    for (int64_t q = 0; c.shards > 1 && q < c.queries; ++q) {
      for (int64_t g = shard; g < c.gallery; g += c.shards) {
        scores.push_back(d.scores[c.shift + q * d.stride + g]);
      }
    }
    const bool whole = c.shards == 1;
    const Scores<T> s{whole ? d.scores.data() + c.shift : scores.data(),
                      c.queries,
                      int64_t(classes.size()),
                      whole ? d.stride : int64_t(classes.size()),
                      c.larger_is_closer,
                      d.query_class.data(),
                      classes.data(),
                      whole && !c.permuted ? nullptr : index.data()};
    count(s, r.relevant(), counts.data());
  }
  return counts;
}

template <class T>
void check_metrics(const Case& c, const Ranked<T>& r, const std::string& name) {
  const std::vector<int64_t> ks{1, 7, c.gallery, c.gallery + 5};
  const size_t size = size_t(c.queries) * (kFixedColumns + kColumnsPerK * ks.size());
  for (int32_t code = 0; code < 2 * 4 * 2 * 5; ++code) {
    const Definition definition{ApKind(code % 2),
                                Normaliser(code / 2 % 4),
                                PrecisionDenominator(code / 8 % 2),
                                Ties(code / 16),
                                ks.data(),
                                int32_t(ks.size())};
    std::vector<double> cuda(size, -1), cpu(size, -2);
    kernels::ranking_metrics(c.queries, r.relevant(), r.counts.data(), definition, cuda.data());
    ranking_metrics_cpu(c.queries, r.relevant(), r.counts.data(), definition, cpu.data());
    check(size > 0 && std::memcmp(cuda.data(), cpu.data(), size * sizeof(double)) == 0,
          name + ": metrics of definition " + std::to_string(code) + " equal those of the CPU");
  }
}

template <class T>
void run(const Case& c, const char* type) {
  const std::string name = c.name + " <" + type + ">";
  const Data<T> d(c);
  const Ranked<T> r = by_definition(c, d);
  const auto cuda = over_shards(c, d, r, [&](const auto& s, const auto& relevant, int32_t* counts) {
    kernels::rank_counts(s, relevant, counts, c.shape);
  });
  check(cuda == r.counts, name + ": counts equal the definition");
  const auto cpu = over_shards(c, d, r, [](const auto& s, const auto& relevant, int32_t* counts) {
    rank_counts_cpu(s, relevant, counts);
  });
  check(cuda == cpu, name + ": counts equal those of the CPU kernel");
  if (c.metrics) check_metrics(c, r, name);
}

std::vector<Case> cases() {
  const kernels::LaunchShape slices{.threads = 64, .columns_per_slice = 70};
  const kernels::LaunchShape segments{.threads = 32, .capacity = 7};
  return {
      {.name = "no query", .queries = 0, .gallery = 5},
      {.name = "empty gallery", .queries = 2, .gallery = 0},
      {.name = "one by one, relevant", .queries = 1, .gallery = 1, .classes = 1},
      {.name = "one column", .queries = 5, .gallery = 1},
      {.name = "three columns", .queries = 6, .gallery = 3, .classes = 2, .metrics = true},
      {.name = "all relevant", .queries = 2, .gallery = 37, .classes = 1, .values = Values::few},
      {.name = "odd", .queries = 6, .gallery = 77, .larger_is_closer = false, .metrics = true},
      {.name = "rows begin anywhere", .queries = 4, .gallery = 61, .pad = 2, .shift = 1},
      {.name = "shifted by two", .queries = 3, .gallery = 64, .shift = 2, .permuted = true},
      {.name = "packed classes and scores", .queries = 2, .gallery = 640, .pad = 4},
      {.name = "few values", .queries = 6, .gallery = 80, .values = Values::few},
      {.name = "few values, permuted",
       .queries = 6,
       .gallery = 83,
       .classes = 2,
       .values = Values::few,
       .larger_is_closer = false,
       .permuted = true,
       .metrics = true},
      {.name = "one value, permuted",
       .queries = 4,
       .gallery = 90,
       .values = Values::one,
       .permuted = true},
      {.name = "signed zeros",
       .queries = 4,
       .gallery = 70,
       .values = Values::signed_zeros,
       .permuted = true},
      {.name = "outliers", .queries = 4, .gallery = 301, .values = Values::outlier},
      {.name = "infinite", .queries = 4, .gallery = 75, .values = Values::infinite},
      {.name = "range overflows", .queries = 4, .gallery = 75, .values = Values::huge},
      {.name = "denormal", .queries = 4, .gallery = 75, .values = Values::denormal},
      {.name = "slices", .queries = 3, .gallery = 333, .permuted = true, .shape = slices},
      {.name = "slices of ties",
       .queries = 3,
       .gallery = 333,
       .values = Values::few,
       .pad = 3,
       .shape = slices},
      {.name = "segments", .queries = 4, .gallery = 120, .permuted = true, .shape = segments},
      {.name = "segments of ties",
       .queries = 4,
       .gallery = 121,
       .classes = 2,
       .values = Values::few,
       .permuted = true,
       .shape = segments},
      {.name = "segments of one",
       .queries = 2,
       .gallery = 20,
       .classes = 2,
       .values = Values::few,
       .shape = {.threads = 32, .capacity = 1}},
      {.name = "shards", .queries = 5, .gallery = 90, .shards = 3},
      {.name = "shards of ties",
       .queries = 5,
       .gallery = 91,
       .values = Values::few,
       .permuted = true,
       .shards = 4,
       .shape = segments},
      {.name = "many threads", .queries = 1, .gallery = 3000, .shape = {.threads = 256}},
      {.name = "more keys than threads",
       .queries = 2,
       .gallery = 900,
       .classes = 2,
       .values = Values::outlier,
       .shape = {.threads = 32, .columns_per_slice = 500}},
  };
}

}  // namespace

int main() {
  const std::vector<Case> all = cases();
  for (const Case& c : all) {
    run<float>(c, "float");
    run<double>(c, "double");
  }
  std::printf("%zu cases, %d failures\n", 2 * all.size(), failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
