// One pair in one thread, over the vector type V of a SIMD level; products_cpu.h says how this file
// is included.
//
// Forward, of each side: logits = q K^T (dots), softmax over the patches, pooled = attention V
// (combine). Then come the cosines of the two pooled rows of a word, and their weighted sum.
// Backward, of each side, with the attention computed anew from its logarithmic sums:
//   dV = attention^T dZ,  slope = attention * (dZ V^T - <dZ, Z>),  dq += slope K,  dK = slope^T q
// Source: methods.md (1) to (3); recomputation as in FlashAttention, arXiv 2205.14135.
#pragma once
#include "token_weighting/pair_cpu.h"
#include "token_weighting/products_cpu.h"

namespace zsbir::token_weighting {
namespace {

template <class S>
ZSBIR_INLINE void widen_row(const S* from, Accumulate<S>* to, int64_t size) {
  for (int64_t i = 0; i < size; ++i) to[i] = widen(from[i]);
}
template <class S>
ZSBIR_INLINE void narrow_row(const Accumulate<S>* from, S* to, int64_t size) {
  for (int64_t i = 0; i < size; ++i) narrow(from[i], to[i]);
}

// The elements as A: in place if they have that type, else converted into scratch.
template <class S>
const Accumulate<S>* widened(const S* from, Accumulate<S>* scratch, int64_t size) {
  if constexpr (std::is_same_v<S, Accumulate<S>>) {
    return from;
  } else {
    widen_row(from, scratch, size);
    return scratch;
  }
}

template <class V, class S>
class Pair {
 public:
  using A = Accumulate<S>;

  Pair(const Problem<S>& problem, int64_t pair, bool backward, char* memory)
      : p_(problem), pair_(pair), s_(problem, backward, memory) {
    const int64_t label = p_.labels[pair];
    if (label < 0 || label >= p_.classes) return;
    mask_ = p_.mask + label * p_.words;
    for (int64_t j = 0; j < p_.words; ++j) {
      if (mask_[j] == 0) continue;
      const int64_t row = label * p_.words + j;
      A* query = s_.query + valid_ * p_.width;
      widen_row(p_.text + row * p_.width, query, p_.width);
      row_scale<V>(query, p_.scale, query, p_.width);
      s_.rows[valid_++] = int32_t(j);
    }
  }

  void forward(const Forward<A>& out) {
    for (int32_t stat = 0; stat < kStats; ++stat) {
      std::fill_n(out.stats + word(stat, 0), p_.words, A(0));
    }
    for (int32_t side = 0; side < p_.sides; ++side) {
      pool(side, out.stats);
      if (out.keep != Keep::scores) keep(side, out);
    }
    if (p_.sides < 2) return;
    const A* weights = out.weights + p_.labels[pair_] * p_.words;  // not read without valid words
    A score = 0;
    for (int64_t i = 0; i < valid_; ++i) {
      const int64_t j = s_.rows[i];
      A norm = 1;
      for (int32_t side = 0; side < kSides; ++side) {
        const A* row = s_.pooled[side] + i * p_.value_width;
        const A inverse = row_inverse_norm<V>(row, p_.value_width, A(kZeroRow));
        out.stats[word(kInverseNorm + side, j)] = inverse;
        // The rows are made unit rows one after the other, so that their product cannot overflow.
        row_scale<V>(row, inverse, s_.pooled[side] + i * p_.value_width, p_.value_width);
        norm *= inverse;
      }
      const A cosine = norm == 0 && zero_word(out.stats, j)
                           ? A(0)
                           : row_dot<V>(s_.pooled[kSketch] + i * p_.value_width,
                                        s_.pooled[kPhoto] + i * p_.value_width, p_.value_width);
      out.stats[word(kCosine, j)] = cosine;
      score += weights[j] * cosine;
    }
    out.scores[pair_] = score;
  }

  void backward(const Backward<S>& g) {
    gather_pooled(g);
    std::fill_n(s_.query_grad, valid_ * p_.width, A(0));
    for (int32_t side = 0; side < p_.sides; ++side) {
      pooled_gradient(side, g);
      side_gradient(side, g);
    }
    for (int64_t i = 0; i < valid_; ++i) {
      const int64_t row = pair_ * p_.words + s_.rows[i];
      row_scale<V>(s_.query_grad + i * p_.width, p_.scale, g.text_rows + row * p_.width, p_.width);
    }
    V::fence();
  }

 private:
  int64_t word(int32_t stat, int64_t j) const { return (stat * p_.pairs + pair_) * p_.words + j; }

  const A* keys(int32_t side) const {
    const int64_t size = p_.side[side].patches * p_.width;
    return widened(p_.side[side].keys + pair_ * size, s_.wide[0], size);
  }
  const A* values(int32_t side) const {
    const int64_t size = p_.side[side].patches * p_.value_width;
    return widened(p_.side[side].values + pair_ * size, s_.wide[1], size);
  }

  void pool(int32_t side, A* stats) {
    const int64_t patches = p_.side[side].patches;
    const A* value = values(side);
    dots<V>(s_.query, valid_, p_.width, keys(side), patches, p_.width, p_.width, s_.attention,
            s_.stride, value);
    for (int64_t i = 0; i < valid_; ++i) {
      A* row = s_.attention + i * s_.stride;
      const A most = row_max<V>(row, patches), sum = row_exp<V>(row, most, patches);
      row_scale<V>(row, A(1) / sum, row, patches);
      stats[word(kLogSum + side, s_.rows[i])] = most + std::log(sum);
    }
    constexpr int64_t kBlock = 64;  // a column block of the values then stays in L1
    std::fill_n(s_.pooled[side], valid_ * p_.value_width, A(0));
    for (int64_t first = 0; first < patches; first += kBlock) {
      const int64_t block = std::min(kBlock, patches - first);
      combine<V, Order::by_rows, Result::add>(s_.attention + first, s_.stride, valid_,
                                              value + first * p_.value_width, block, p_.value_width,
                                              p_.value_width, s_.pooled[side], p_.value_width);
    }
  }

  void keep(int32_t side, const Forward<A>& out) const {
    A* pooled = out.pooled[side] + pair_ * p_.words * p_.value_width;
    for (int64_t i = 0; i < valid_; ++i) {
      std::copy_n(s_.pooled[side] + i * p_.value_width, p_.value_width,
                  pooled + s_.rows[i] * p_.value_width);
    }
    for (int64_t j = 0; out.keep == Keep::all && j < p_.words; ++j) {
      if (mask_ != nullptr && mask_[j] != 0) continue;
      std::fill_n(pooled + j * p_.value_width, p_.value_width, A(0));
    }
  }

  bool zero_word(const A* stats, int64_t j) const {
    return stats[word(kInverseNorm + kSketch, j)] == 0 ||
           stats[word(kInverseNorm + kPhoto, j)] == 0;
  }

  void gather_pooled(const Backward<S>& g) {
    for (int32_t side = 0; side < p_.sides; ++side) {
      for (int64_t i = 0; i < valid_; ++i) {
        const int64_t row = pair_ * p_.words + s_.rows[i];
        std::copy_n(g.pooled[side] + row * p_.value_width, p_.value_width,
                    s_.pooled[side] + i * p_.value_width);
      }
    }
  }

  // dZ of a word: through its cosine, d cos / dZ = (unit other - cos * unit own) / |Z|, plus the
  // gradient that was given for the row itself.
  void pooled_gradient(int32_t side, const Backward<S>& g) {
    const int64_t width = p_.value_width;
    for (int64_t i = 0; i < valid_; ++i) {
      const int64_t j = s_.rows[i], at = pair_ * p_.words + j;
      A* grad = s_.grad[side] + i * width;
      if (g.grad_pooled[side] == nullptr) {
        std::fill_n(grad, width, A(0));
      } else {
        std::copy_n(g.grad_pooled[side] + at * width, width, grad);
      }
      if (g.grad_scores == nullptr || p_.sides < 2) continue;
      const int32_t other = kSides - 1 - side;
      const A own_inverse = g.stats[word(kInverseNorm + side, j)];
      const A other_inverse = g.stats[word(kInverseNorm + other, j)];
      const A cosine = g.stats[word(kCosine, j)];
      const A weight = g.weights[p_.labels[pair_] * p_.words + j];
      const A factor = g.grad_scores[pair_] * weight * own_inverse;
      const A* own = s_.pooled[side] + i * width;
      const A* row = s_.pooled[other] + i * width;
      for (int64_t d = 0; d < width; ++d) {
        grad[d] += factor * (row[d] * other_inverse - cosine * (own[d] * own_inverse));
      }
    }
  }

  void side_gradient(int32_t side, const Backward<S>& g) {
    const int64_t patches = p_.side[side].patches, width = p_.width, wide = p_.value_width;
    for (int64_t i = 0; i < valid_; ++i) {
      s_.mean[i] = row_dot<V>(s_.grad[side] + i * wide, s_.pooled[side] + i * wide, wide);
    }
    const A* all_keys = keys(side);
    const A* all_values = values(side);
    // A block of patches goes through all five products while it is in the cache.
    const Tiles blocks(patches, 32);
    for (int64_t b = 0; b < blocks.tiles; ++b) {
      const int64_t first = blocks.begin(b), block = blocks.begin(b + 1) - first;
      const A* key = all_keys + first * width;
      const A* value = all_values + first * wide;
      dots<V>(s_.query, valid_, width, key, block, width, width, s_.attention, s_.stride, value);
      dots<V>(s_.grad[side], valid_, wide, value, block, wide, wide, s_.slope, s_.stride,
              key + block * width);
      for (int64_t i = 0; i < valid_; ++i) {
        A* attention = s_.attention + i * s_.stride;
        A* slope = s_.slope + i * s_.stride;
        row_exp<V>(attention, g.stats[word(kLogSum + side, s_.rows[i])], block);
        for (int64_t n = 0; n < block; ++n) slope[n] = attention[n] * (slope[n] - s_.mean[i]);
      }
      patch_gradient(s_.attention, s_.grad[side], block, wide,
                     g.values[side] + (pair_ * patches + first) * wide);
      combine<V, Order::by_rows, Result::add>(s_.slope, s_.stride, valid_, key, block, width, width,
                                              s_.query_grad, width);
      patch_gradient(s_.slope, s_.query, block, width,
                     g.keys[side] + (pair_ * patches + first) * width);
    }
  }

  // out [patches, width] = weights^T rows
  void patch_gradient(const A* weights, const A* rows, int64_t patches, int64_t width, S* out) {
    A* to;
    if constexpr (PairScratch<S>::kWiden) {
      to = s_.wide[2];
    } else {
      to = out;
    }
    // Whole lines that are not read again soon are written around the cache, which saves the half
    // of the traffic that would fetch them first.
    const bool lines = width % V::kWidth == 0 && reinterpret_cast<uintptr_t>(to) % 64 == 0;
    const auto product = !PairScratch<S>::kWiden && lines
                             ? combine<V, Order::by_columns, Result::stream>
                             : combine<V, Order::by_columns, Result::overwrite>;
    product(weights, s_.stride, patches, rows, valid_, width, width, to, width);
    if constexpr (PairScratch<S>::kWiden) narrow_row(to, out, patches * width);
  }

  const Problem<S>& p_;
  int64_t pair_;
  PairScratch<S> s_;
  const uint8_t* mask_ = nullptr;  // of the class of the pair, if there is one
  int64_t valid_ = 0;              // words
};

// --- pairwise ------------------------------------------------------------------------------------

template <class V, class S>
void inverse_norms_of(const Tokens<S>& tokens, int64_t width, int64_t item, Accumulate<S>* out) {
  using A = Accumulate<S>;
  for (int64_t n = 0; n < tokens.patches; ++n) {
    const S* row = tokens.data + (item * tokens.patches + n) * width;
    A largest = 0;
    for (int64_t d = 0; d < width; ++d) largest = std::max(largest, A(std::abs(widen(row[d]))));
    A sum = 0;
    for (int64_t d = 0; d < width; ++d) {
      const A x = A(widen(row[d])) / largest;
      sum += x * x;
    }
    A inverse = A(1) / largest / std::sqrt(sum);
    if (largest < A(kZeroRow)) {
      inverse = 0;
      for (int64_t d = 0; d < width; ++d) inverse += A(0) * A(widen(row[d]));  // 0, or NaN
    }
    out[item * tokens.patches + n] = inverse;
  }
}

template <class V, class S>
ZSBIR_INLINE void unit_row(const S* token, Accumulate<S> inverse, Accumulate<S>* out,
                           int64_t width) {
  widen_row(token, out, width);
  row_scale<V>(out, inverse, out, width);
}

template <class V, class S>
void best_of_pair(const Pairwise<S>& p, const PairwiseForward<Accumulate<S>>& out, int64_t pair,
                  char* memory) {
  using A = Accumulate<S>;
  const PairwiseScratch<S> s(p, false, memory);
  const Tokens<S>&sketch = p.side[kSketch], &photo = p.side[kPhoto];
  const int64_t width = p.width;
  const int64_t from = p.all_pairs ? pair / photo.items : pair;
  const int64_t to = p.all_pairs ? pair % photo.items : pair;
  A nothing = 0;  // NaN if a photo token is not finite: a maximum may pass over NaN
  for (int64_t n = 0; n < photo.patches; ++n) {
    const int64_t row = to * photo.patches + n;
    nothing += A(0) * out.inverse_norm[kPhoto][row];
    unit_row<V>(photo.data + row * width, out.inverse_norm[kPhoto][row], s.unit[kPhoto] + n * width,
                width);
  }
  A total = 0;
  for (int64_t first = 0; first < sketch.patches; first += s.kRows) {
    const int64_t rows = std::min(s.kRows, sketch.patches - first);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t row = from * sketch.patches + first + i;
      unit_row<V>(sketch.data + row * width, out.inverse_norm[kSketch][row],
                  s.unit[kSketch] + i * width, width);
    }
    dots<V>(s.unit[kSketch], rows, width, s.unit[kPhoto], photo.patches, width, width, s.cosines,
            s.stride, s.unit[kPhoto]);
    for (int64_t i = 0; i < rows; ++i) {
      const A* cosines = s.cosines + i * s.stride;
      A most = row_max<V>(cosines, photo.patches);
      const int64_t at = pair * sketch.patches + first + i;
      const A inverse = out.inverse_norm[kSketch][from * sketch.patches + first + i];
      if (std::isnan(nothing) || std::isnan(inverse)) most = std::numeric_limits<A>::quiet_NaN();
      int32_t best = 0;
      while (best + 1 < photo.patches && cosines[best] != most) ++best;
      out.best[at] = best;
      out.cosine[at] = most;
      total += most;
    }
  }
  out.scores[pair] = total / A(sketch.patches);
}

// The gradient of the tokens of one sketch or photo, over all its pairs in order:
// d cos / dx = (unit partner - cos * unit own) / |x|.
template <class V, class S>
void pairwise_gradient_of(const Pairwise<S>& p, const PairwiseBackward<S>& g, int32_t side,
                          int64_t item, char* memory) {
  using A = Accumulate<S>;
  const PairwiseScratch<S> s(p, true, memory);
  const Tokens<S>&own = p.side[side], &other = p.side[kSides - 1 - side];
  const int64_t width = p.width, sketch_patches = p.side[kSketch].patches;
  std::fill_n(s.grad, own.patches * width, A(0));
  for (int64_t k = 0; k < (p.all_pairs ? other.items : 1); ++k) {
    const int64_t partner = p.all_pairs ? k : item;
    const int64_t pair = !p.all_pairs      ? item
                         : side == kSketch ? item * other.items + k
                                           : k * own.items + item;
    const A share = g.grad_scores[pair] / A(sketch_patches);
    for (int64_t n = 0; n < sketch_patches; ++n) {
      const int64_t at = pair * sketch_patches + n;
      const int64_t own_row = side == kSketch ? n : g.best[at];
      const int64_t other_row = side == kSketch ? g.best[at] : n;
      const A own_inverse = g.inverse_norm[side][item * own.patches + own_row];
      const int64_t row = partner * other.patches + other_row;
      const A other_inverse = g.inverse_norm[kSides - 1 - side][row];
      const A cosine = g.cosine[at], factor = share * own_inverse;
      const S* x = own.data + (item * own.patches + own_row) * width;
      const S* y = other.data + row * width;
      A* grad = s.grad + own_row * width;
      for (int64_t d = 0; d < width; ++d) {
        grad[d] += factor * (widen(y[d]) * other_inverse - cosine * (widen(x[d]) * own_inverse));
      }
    }
  }
  narrow_row(s.grad, g.tokens[side] + item * own.patches * width, own.patches * width);
}

template <class V, class S>
PairKernels<S> kernels() {
  using A = Accumulate<S>;
  return {[](const Problem<S>& p, const Forward<A>& out, int64_t pair, char* scratch) {
            Pair<V, S>(p, pair, false, scratch).forward(out);
          },
          [](const Problem<S>& p, const Backward<S>& g, int64_t pair, char* scratch) {
            Pair<V, S>(p, pair, true, scratch).backward(g);
          },
          inverse_norms_of<V, S>, best_of_pair<V, S>, pairwise_gradient_of<V, S>};
}

}  // namespace
}  // namespace zsbir::token_weighting
