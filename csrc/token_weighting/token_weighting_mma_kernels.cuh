// token_weighting on tensor cores, for float16 and bfloat16: forward, and the gradient of the text.
// Inputs, outputs and algorithm are those of token_weighting_kernels.cuh; this header says what
// differs. The gradients of keys and values are in patches_mma_kernels.cuh.
//
// Algorithm    All logits of R words and the patches of both sides are formed in shared memory;
//              then comes the softmax, row by row; then the products with values, or keys, column
//              by column. There is no running maximum, and the second product never waits for the
//              first.
// Work         forward 4 L N D flop per pair and side, words_mma_kernel 6 L N D, on tensor cores,
//              rounded up to 16 words.
// Memory       Keys and values are read once per tile of R words in forward, from memory or L2;
//              words_mma_kernel reads the keys a second time. Pooled rows that are kept are written
//              straight to their place in memory.
// Mapping      A block per (pair, tile of R valid words). Logits: a warp takes 16 patches of a
//              side, all words, the whole width. Columns: a warp takes 32 of them, all words, all
//              patches. Keys and values go from memory to registers, 8 or 16 bytes per lane and
//              load.
// Numerics     Words, keys and values are used as they come; sums, softmax, norms and cosines are
//              float. Three factors are rounded to S for the second product: exp(logit - maximum),
//              which is at most 1; slopes, each row over a power of two near its largest, so that
//              small gradients survive float16; and the gradients of pooled rows, likewise.
// Determinism  Bitwise: every sum has one owner and one order; no atomics.
// Limits       Those of mma_launch.h: widths that are multiples of 8, rows on 16 bytes, and shared
//              memory for R rows of logits, of text and of gradients.
#pragma once
#include <cstdint>

#include "token_weighting/mma_tile.cuh"

namespace zsbir::token_weighting {

// Floats from one row by patch to the next, for both sides alike.
template <class S>
ZSBIR_HD int64_t common_patch_stride(const Problem<S>& p) {
  const int64_t sketch = p.side[kSketch].patches;
  const int64_t photo = p.sides == kSides ? p.side[kPhoto].patches : 0;
  return patch_stride(sketch > photo ? sketch : photo);
}

// Groups of kGroup patches, those of the sketch first.
template <class S>
struct Groups {
  int32_t sketch, all;

  __device__ explicit Groups(const Problem<S>& p) {
    sketch = int32_t(round_up(p.side[kSketch].patches, kGroup) / kGroup);
    all = sketch;
    if (p.sides == kSides) all += int32_t(round_up(p.side[kPhoto].patches, kGroup) / kGroup);
  }
};

// put(word, patch, i) for the words and patches of a lane in the sums of mma_dots; sum[0][j][i].
template <int32_t T, class Put>
__device__ __forceinline__ void each_dot(int32_t tiles, int32_t patches, const Put& put) {
  const int32_t g = lane_id() / 4, t = lane_id() % 4;
#pragma unroll
  for (int32_t j = 0; j < T; ++j) {
    if (j >= tiles) break;
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) {
      const int32_t patch = i < 2 ? g : g + 8;
      if (patch < patches) put(8 * j + word_of(2 * t + i % 2), patch, j, i);
    }
  }
}

// --- forward -------------------------------------------------------------------------------------

template <int32_t R>
struct ForwardMmaShared {
  float log_sum[kSides][R], inverse_sum[kSides][R];
  Words<R> words;
  // Behind it, on 16 bytes: logits [sides, R, common_patch_stride], floats, then halves in place;
  // and the text [R, word_stride(width)], over which pooled rows [sides, R, value_width] are put
  // where they are not kept.
};

template <int32_t R, class S>
ZSBIR_HD size_t forward_mma_bytes(const Problem<S>& p, Keep keep) {
  const size_t text = sizeof(S) * R * word_stride(p.width);
  const size_t pooled = keep == Keep::scores ? sizeof(float) * p.sides * R * p.value_width : 0;
  return round_up(sizeof(ForwardMmaShared<R>), 16) +
         sizeof(float) * p.sides * R * common_patch_stride(p) + (pooled > text ? pooled : text);
}

template <class S, int32_t R>
struct ForwardMmaBlock {
  const Problem<S>& p;
  const Forward<float>& out;
  ForwardMmaShared<R>& s;
  float* logits;
  int32_t stride;  // of the logits
  S* text;
  int64_t pair;

  __device__ float* logits_of(int32_t side, int32_t r) const {
    return logits + (side * R + r) * stride;
  }
  __device__ float* pooled(int32_t side, int32_t r) const {
    if (out.keep != Keep::scores) {
      return PairResults<S>{p, out, pair}.kept(side, s.words.row[r]);
    }
    return reinterpret_cast<float*>(text) + (side * R + r) * p.value_width;
  }

  __device__ void form_logits(int32_t tiles) const {
    const Groups<S> groups(p);
    for (int32_t group = warp_id(); group < groups.all; group += warps()) {
      const int32_t side = group < groups.sketch ? kSketch : kPhoto;
      const int64_t patches = pick(p.side, side).patches;
      const int32_t first = (group - (side == kSketch ? 0 : groups.sketch)) * kGroup;
      const int32_t count = min(int32_t(patches) - first, kGroup);
      const S* keys = pick(p.side, side).keys + (pair * patches + first) * p.width;
      float sum[1][R / 8][4];
      mma_dots<R / 8>(keys, count, p.width, text, int32_t(word_stride(p.width)), tiles, sum);
      each_dot<R / 8>(tiles, count, [&](int32_t r, int32_t n, int32_t j, int32_t i) {
        logits_of(side, r)[first + n] = p.scale * sum[0][j][i];
      });
    }
  }

  // A warp takes a row: exp(logit - maximum) as halves, and their sum.
  __device__ void softmax() const {
    for (int32_t row = warp_id(); row < p.sides * R; row += warps()) {
      const int32_t side = row / R, r = row % R;
      if (r >= s.words.count) continue;
      const int32_t patches = int32_t(pick(p.side, side).patches);
      float* logit = logits_of(side, r);
      float most = -INFINITY, sum = 0;
      for (int32_t n = lane_id(); n < patches; n += kWarp) most = max(most, logit[n]);
      most = warp_max(most);
      narrow_row<S>(logit, patches, [&](float x) {
        const float weight = exp(x - most);
        sum += weight;
        return weight;
      });
      sum = warp_sum(sum);
      if (lane_id() != 0) continue;
      s.log_sum[side][r] = most + float(log(sum));
      s.inverse_sum[side][r] = 1 / sum;
    }
  }

  __device__ void pool(int32_t tiles) const {
    const int32_t stripes = int32_t(round_up(p.value_width, kStripe) / kStripe);
    for (int32_t i = warp_id(); i < p.sides * stripes; i += warps()) {
      const int32_t side = i / stripes;
      const int64_t patches = pick(p.side, side).patches, column = i % stripes * kStripe;
      const S* values = pick(p.side, side).values + pair * patches * p.value_width;
      float sum[R / 16][4][4] = {};
      mma_columns<R / 16, 2>(reinterpret_cast<const S*>(logits_of(side, 0)), 2 * stride, values,
                             p.value_width, column, int32_t(patches), tiles, sum);
      each_column<R / 16>(sum, column, p.value_width,
                          [&](int32_t r, int64_t d, const float (&x)[8]) {
                            if (r >= s.words.count) return;
                            const float f = s.inverse_sum[side][r];
                            store8(pooled(side, r) + d, {x[0] * f, x[1] * f, x[2] * f, x[3] * f,
                                                         x[4] * f, x[5] * f, x[6] * f, x[7] * f});
                          });
    }
  }

  __device__ void finish() const {
    const PairResults<S> results{p, out, pair};
    for (int32_t r = warp_id(); r < s.words.count; r += warps()) {
      const int32_t photo = p.sides - 1;
      results.finish(s.words.row[r], pooled(kSketch, r), pooled(photo, r), s.log_sum[kSketch][r],
                     s.log_sum[photo][r]);
    }
  }
};

// The grid is pairs * tiles of words; the dynamic shared memory has forward_mma_bytes.
template <class S, int32_t R>
__global__ void __launch_bounds__(kMmaThreads)
    forward_mma_kernel(Problem<S> p, Forward<float> out, int64_t tiles) {
  if constexpr (!kMmaHere) return;
  ZSBIR_DYNAMIC_SHARED(memory);
  auto& shared = *reinterpret_cast<ForwardMmaShared<R>*>(memory);
  const int64_t pair = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const uint8_t* mask = mask_of(p, pair);
  if (tile == 0) PairResults<S>{p, out, pair}.clear_padding(mask);
  shared.words.find(mask, p.words, tile * R);
  const int32_t count = shared.words.count;
  if (count == 0) return;
  auto* logits = reinterpret_cast<float*>(memory + round_up(sizeof(shared), 16));
  const auto stride = int32_t(common_patch_stride(p));
  auto* text = reinterpret_cast<S*>(logits + p.sides * R * stride);
  const ForwardMmaBlock<S, R> block{p, out, shared, logits, stride, text, pair};
  stage_text(p, pair, shared.words.row, count, 0, int32_t(round_up(p.width, kDepth)),
             int32_t(word_stride(p.width)), text);
  __syncthreads();  // the text is complete before the products
  block.form_logits(int32_t(round_up(count, 16) / 8));
  __syncthreads();  // logits are complete before the softmax reads rows of them
  block.softmax();
  __syncthreads();  // weights are complete before the columns; the text is read before pooled rows
  block.pool(int32_t(round_up(count, 16) / 16));
  __syncthreads();  // pooled rows are complete before their words compare them
  block.finish();
}

// --- backward: the text --------------------------------------------------------------------------

template <int32_t R>
struct WordsMmaShared {
  float mean[R], log_sum[R], unit[R];  // of the side at hand
  float factor[R];                     // of a row's sums over halves of slopes
  Words<R> words;
  // Behind it, on 16 bytes: slopes [sides, R, common_patch_stride], floats, then halves in place;
  // the text [R, word_stride(width)]; gradients of a side [R, word_stride(value_width)].
};

template <int32_t R, class S>
ZSBIR_HD size_t words_mma_bytes(const Problem<S>& p) {
  return round_up(sizeof(WordsMmaShared<R>), 16) +
         sizeof(float) * p.sides * R * common_patch_stride(p) +
         sizeof(S) * R * (word_stride(p.width) + word_stride(p.value_width));
}

template <class S, int32_t R>
struct WordsMmaBlock {
  const Problem<S>& p;
  const Backward<S>& g;
  WordsMmaShared<R>& s;
  float* slopes;
  int32_t stride;  // of the slopes
  S *text, *grad;
  int64_t pair;

  __device__ float* slopes_of(int32_t side, int32_t r) const {
    return slopes + (side * R + r) * stride;
  }

  // A warp takes a row.
  __device__ void stage_gradients(int32_t side) const {
    const auto columns = int32_t(round_up(p.value_width, kDepth));
    for (int32_t r = warp_id(); r < round_up(s.words.count, 16); r += warps()) {
      S* to = grad + r * word_stride(p.value_width);
      if (r >= s.words.count) {
        stage_zeros(columns, to);
        continue;
      }
      const PooledGradient<S> gradient(p, g, pair, side, s.words.row[r]);
      const float unit = unit_of(gradient, p.value_width);
      const float mean = stage_gradient(gradient, unit, p.value_width, 0, columns, to);
      if (lane_id() != 0) continue;
      s.mean[r] = mean;
      s.unit[r] = unit;
      s.log_sum[r] = gradient.log_sum;
    }
  }

  __device__ void form_slopes(int32_t side, int32_t tiles) const {
    const int64_t patches = pick(p.side, side).patches;
    for (int32_t first = warp_id() * kGroup; first < patches; first += warps() * kGroup) {
      const int32_t count = min(int32_t(patches) - first, kGroup);
      const S* keys = pick(p.side, side).keys + (pair * patches + first) * p.width;
      const S* values = pick(p.side, side).values + (pair * patches + first) * p.value_width;
      float logit[1][R / 8][4], dot[1][R / 8][4];
      mma_dots<R / 8>(keys, count, p.width, text, int32_t(word_stride(p.width)), tiles, logit);
      mma_dots<R / 8>(values, count, p.value_width, grad, int32_t(word_stride(p.value_width)),
                      tiles, dot);
      each_dot<R / 8>(tiles, count, [&](int32_t r, int32_t n, int32_t j, int32_t i) {
        if (r >= s.words.count) return;
        const float attention = exp(p.scale * logit[0][j][i] - s.log_sum[r]);
        slopes_of(side, r)[first + n] = attention * fma(dot[0][j][i], s.unit[r], -s.mean[r]);
      });
    }
  }

  // A warp takes a word, and both of its sides by one power of two.
  __device__ void narrow_slopes() const {
    for (int32_t r = warp_id(); r < s.words.count; r += warps()) {
      float largest = 0;
      for (int32_t side = 0; side < p.sides; ++side) {
        const float* slope = slopes_of(side, r);
        for (int32_t n = lane_id(); n < pick(p.side, side).patches; n += kWarp) {
          largest = max(largest, float(fabs(slope[n])));
        }
      }
      const float unit = power_of_two(warp_max(largest)), inverse = inverse_power(unit);
      for (int32_t side = 0; side < p.sides; ++side) {
        narrow_row<S>(slopes_of(side, r), int32_t(pick(p.side, side).patches),
                      [&](float x) { return x * inverse; });
      }
      if (lane_id() == 0) s.factor[r] = p.scale * unit;
    }
  }

  __device__ void sum_columns(int32_t tiles) const {
    for (int64_t column = warp_id() * kStripe; column < p.width; column += warps() * kStripe) {
      float sum[R / 16][4][4] = {};
      for (int32_t side = 0; side < p.sides; ++side) {
        const int64_t patches = pick(p.side, side).patches;
        mma_columns < R / 16,
            R<48 ? 2 : 1>(reinterpret_cast<const S*>(slopes_of(side, 0)), 2 * stride,
                          pick(p.side, side).keys + pair * patches * p.width, p.width, column,
                          int32_t(patches), tiles, sum);
      }
      each_column<R / 16>(sum, column, p.width, [&](int32_t r, int64_t d, const float (&x)[8]) {
        if (r >= s.words.count) return;
        const float f = s.factor[r];
        store8(g.text_rows + (pair * p.words + s.words.row[r]) * p.width + d,
               {x[0] * f, x[1] * f, x[2] * f, x[3] * f, x[4] * f, x[5] * f, x[6] * f, x[7] * f});
      });
    }
  }
};

// The gradient of the text, by pair. The grid is pairs * tiles of words; the shared memory has
// words_mma_bytes.
template <class S, int32_t R>
__global__ void __launch_bounds__(kMmaThreads)
    words_mma_kernel(Problem<S> p, Backward<S> g, int64_t tiles) {
  if constexpr (!kMmaHere) return;
  ZSBIR_DYNAMIC_SHARED(memory);
  auto& shared = *reinterpret_cast<WordsMmaShared<R>*>(memory);
  const int64_t pair = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  shared.words.find(mask_of(p, pair), p.words, tile * R);
  const int32_t count = shared.words.count;
  if (count == 0) return;
  auto* slopes = reinterpret_cast<float*>(memory + round_up(sizeof(shared), 16));
  const auto stride = int32_t(common_patch_stride(p));
  auto* text = reinterpret_cast<S*>(slopes + p.sides * R * stride);
  S* grad = text + R * word_stride(p.width);
  const WordsMmaBlock<S, R> block{p, g, shared, slopes, stride, text, grad, pair};
  stage_text(p, pair, shared.words.row, count, 0, int32_t(round_up(p.width, kDepth)),
             int32_t(word_stride(p.width)), text);
  for (int32_t side = 0; side < p.sides; ++side) {
    block.stage_gradients(side);
    __syncthreads();  // text, gradients and their measures are complete before the products
    block.form_slopes(side, int32_t(round_up(count, 16) / 8));
    __syncthreads();  // gradients are used before those of the next side; slopes are complete
  }
  block.narrow_slopes();
  __syncthreads();  // halves and factors are complete before the columns
  block.sum_columns(int32_t(round_up(count, 16) / 16));
}

}  // namespace zsbir::token_weighting
