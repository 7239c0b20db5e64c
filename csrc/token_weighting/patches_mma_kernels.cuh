// token_weighting on tensor cores: the gradients of keys and values, for float16 and bfloat16.
//
// In / out     The results of the forward pass, text, keys, values -> gradients S[B,N,D], S[B,N,V].
// Algorithm    A warp owns 16 patches from their logits to their gradients. It forms attention and
//              slopes with all valid words, R at a time. The layout of an mma's sums is also that
//              of its factor A, so attention and slopes become halves in registers. After the last
//              words those multiply text and gradients of pooled rows, 64 columns at a time.
// Work         8 L N D flop per pair and side on tensor cores, rounded up to 16 words.
// Memory       Keys and values are read once per R words (from memory, then L2), gradients written
//              once. The rows of a pair's words are read once per block, twice if there are more
//              than R.
// Mapping      A block per (pair, side, 16 patches for every warp).
// Numerics     Sums are in float. Attention and slopes are rounded to S, each patch's over a power
//              of two near its largest, so that a small gradient survives float16 and a large value
//              does not overflow it. When later words bring a larger power, the sums so far are
//              scaled down, as under the running maximum of an online softmax.
// Determinism  Bitwise: every sum has one owner and one order; no atomics.
// Limits       Those of mma_launch.h: widths that are multiples of 8, rows on 16 bytes, and shared
//              memory for R rows of text and gradients and, for each warp, halves of all words.
#pragma once
#include <cstdint>

#include "token_weighting/mma_tile.cuh"

namespace zsbir::token_weighting {

// Where everything is in shared memory, for a block of any number of warps.
template <int32_t R>
struct PatchesMmaLayout {
  static constexpr int64_t kProducts = 2;  // attention with gradients, slopes with text
  static constexpr int64_t kFragments = R / 16 * kProducts;  // of R words, for a lane: uint4

  int64_t tiles, rows, measures, factors, fragments, staged, bytes;

  template <class S>
  ZSBIR_HD PatchesMmaLayout(const Problem<S>& p, int64_t warps) {
    tiles = round_up(p.words > 0 ? p.words : 1, R) / R;
    int64_t end = 16;                                              // the number of words
    rows = end, end += sizeof(int32_t) * R * tiles;                // and which they are
    measures = end, end += sizeof(float) * R * (tiles + 2);        // units; mean, log_sum of a tile
    factors = end, end += sizeof(float4) * kWarp * warps * tiles;  // by warp, tile, lane
    fragments = end, end += sizeof(uint4) * kWarp * warps * tiles * kFragments;
    const int64_t whole = R * (word_stride(p.width) + word_stride(p.value_width));
    const int64_t stripes = R * tiles * (kWideStripe + 16);  // of all words, if those are more
    staged = end, end += sizeof(S) * (tiles > 1 && stripes > whole ? stripes : whole);
    bytes = end;
  }
};

template <class S, int32_t R>
struct PatchesMmaBlock {
  static constexpr int32_t T = R / 8;
  using Layout = PatchesMmaLayout<R>;
  const Problem<S>& p;
  const Backward<S>& g;
  const Layout& at;
  unsigned char* memory;
  int64_t pair;
  int32_t side;

  __device__ int32_t& count() const { return *reinterpret_cast<int32_t*>(memory); }
  __device__ int32_t* row() const { return reinterpret_cast<int32_t*>(memory + at.rows); }
  __device__ float* unit() const { return reinterpret_cast<float*>(memory + at.measures); }
  __device__ float* mean() const { return unit() + R * at.tiles; }
  __device__ float* log_sum() const { return mean() + R; }
  __device__ S* text() const { return reinterpret_cast<S*>(memory + at.staged); }
  __device__ S* grad() const { return text() + R * word_stride(p.width); }
  // These belong to this lane alone.
  __device__ float4& factors(int32_t tile) const {
    return reinterpret_cast<float4*>(memory +
                                     at.factors)[(warp_id() * at.tiles + tile) * kWarp + lane_id()];
  }
  __device__ uint4& fragment(int32_t step, int32_t product) const {
    return reinterpret_cast<uint4*>(
        memory +
        at.fragments)[((warp_id() * at.tiles * (R / 16) + step) * Layout::kProducts + product) *
                          kWarp +
                      lane_id()];
  }

  // All valid words of the class.
  __device__ void find_words(const uint8_t* mask) const {
    if (warp_id() == 0) {
      int32_t seen = 0;
      for (int64_t base = 0; mask != nullptr && base < p.words; base += kWarp) {
        const bool valid = base + lane_id() < p.words && mask[base + lane_id()] != 0;
        const unsigned votes = __ballot_sync(kFullWarp, valid);
        if (valid)
          row()[seen + __popc(votes & ((1u << lane_id()) - 1))] = int32_t(base) + lane_id();
        seen += __popc(votes);
      }
      if (lane_id() == 0) count() = seen;
    }
    __syncthreads();  // the words are found before any thread asks for them
  }

  // Stages whole rows of words [first, first + words) and their measures; a warp takes a row.
  __device__ void stage_words(int32_t first, int32_t words) const {
    stage_text(p, pair, row() + first, words, 0, int32_t(round_up(p.width, kDepth)),
               int32_t(word_stride(p.width)), text());
    const auto columns = int32_t(round_up(p.value_width, kDepth));
    for (int32_t r = warp_id(); r < round_up(words, 16); r += warps()) {
      S* to = grad() + r * word_stride(p.value_width);
      if (r >= words) {
        stage_zeros(columns, to);
        continue;
      }
      const PooledGradient<S> gradient(p, g, pair, side, row()[first + r]);
      const float power = unit_of(gradient, p.value_width);
      const float product = stage_gradient(gradient, power, p.value_width, 0, columns, to);
      if (lane_id() != 0) continue;
      mean()[r] = product;
      unit()[first + r] = power;
      log_sum()[r] = gradient.log_sum;
    }
  }

  // Turns sums over the larger one of `power`, by row, and the largest so far into halves; returns
  // the factor by which the products of earlier words shrink.
  __device__ void narrow_sums(const float (&sum)[1][T][4], int32_t first, int32_t product,
                              float (&power)[2], float (&factor)[2]) const {
    float inverse[2];
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
      float largest = 0;
#pragma unroll
      for (int32_t j = 0; j < T; ++j) {
        largest = max(largest,
                      max(float(fabs(sum[0][j][2 * half])), float(fabs(sum[0][j][2 * half + 1]))));
      }
      for (int32_t step = 1; step < 4; step *= 2) {  // the four lanes of a row
        largest = max(largest, __shfl_xor_sync(kFullWarp, largest, step));
      }
      const float before = power[half];
      power[half] = max(before, power_of_two(largest));
      inverse[half] = inverse_power(power[half]);
      factor[half] = before * inverse[half];
    }
#pragma unroll
    for (int32_t k = 0; k < R / 16; ++k) {
      const auto &low = sum[0][2 * k], &high = sum[0][2 * k + 1];
      fragment(first / 16 + k, product) = {pack<S>(low[0] * inverse[0], low[1] * inverse[0]),
                                           pack<S>(low[2] * inverse[1], low[3] * inverse[1]),
                                           pack<S>(high[0] * inverse[0], high[1] * inverse[0]),
                                           pack<S>(high[2] * inverse[1], high[3] * inverse[1])};
    }
  }

  // Attention and slopes of a warp's patches with the words that are staged, as halves.
  __device__ void form_weights(const S* keys, const S* values, int32_t patches, int32_t first,
                               int32_t words, float (&value_power)[2],
                               float (&key_power)[2]) const {
    const auto tiles = int32_t(round_up(words, 16) / 8);
    float attention[1][T][4], slope[1][T][4];
    mma_dots<T>(keys, patches, p.width, text(), int32_t(word_stride(p.width)), tiles, attention);
    mma_dots<T>(values, patches, p.value_width, grad(), int32_t(word_stride(p.value_width)), tiles,
                slope);
#pragma unroll
    for (int32_t j = 0; j < T; ++j) {
#pragma unroll
      for (int32_t i = 0; i < 4; ++i) {
        const int32_t r = 8 * j + word_of(lane_id() % 4 * 2 + i % 2);
        const bool there = r < words;
        float& weight = attention[0][j][i];
        weight = there ? float(exp(p.scale * weight - log_sum()[r])) : 0.0f;
        const float unit_r = there ? unit()[first + r] : 0.0f;
        const float mean_r = there ? mean()[r] : 0.0f;
        slope[0][j][i] = weight * fma(slope[0][j][i], unit_r, -mean_r);
        weight *= unit_r;
      }
    }
    float by_value[2], by_key[2];
    narrow_sums(attention, first, 0, value_power, by_value);
    narrow_sums(slope, first, 1, key_power, by_key);
    factors(first / R) = {by_value[0], by_value[1], by_key[0], by_key[1]};
  }

  // Gradients of a warp's patches in the columns [column, column + columns), which are staged from
  // `words` on.
  __device__ void sum_words(int32_t product, const S* words, int32_t stride, int64_t column,
                            int64_t columns, int64_t width, int32_t patches,
                            const float (&power)[2], S* out) const {
    const int32_t lane_g = lane_id() / 4, t = lane_id() % 4;
    const auto steps = int32_t(round_up(count(), 16) / 16);
    // The words of this lane among the 16 of a step: in the order of word_of, of two mma tiles.
    const S* word = words + t * stride + 8 * lane_g;
    const S* next = words + (4 + (t ^ 2)) * stride + 8 * lane_g;
    for (int64_t stripe = 0; stripe < columns; stripe += kWideStripe) {
      float sum[1][8][4] = {};
      for (int32_t step = 0; step < steps; ++step) {
        if (step > 0 && step % (R / 16) == 0) {  // words of the next tile have another power of two
          const float4 all = factors(step / (R / 16));
          const float upper = product == 0 ? all.x : all.z, lower = product == 0 ? all.y : all.w;
#pragma unroll
          for (int32_t j = 0; j < 8; ++j) {
            sum[0][j][0] *= upper, sum[0][j][1] *= upper;
            sum[0][j][2] *= lower, sum[0][j][3] *= lower;
          }
        }
        const uint4 f = fragment(step, product);
        const uint32_t a[1][1][4] = {{{f.x, f.y, f.z, f.w}}};
        const int32_t from = 16 * step * stride + int32_t(stripe);
        const uint4 v[4] = {load_as<uint4>(word + from), load_as<uint4>(next + from),
                            load_as<uint4>(word + from + 8 * stride),
                            load_as<uint4>(next + from + 8 * stride)};
        uint32_t b[1][8][2];  // column 8 g + j goes to tile j
#pragma unroll
        for (int32_t i = 0; i < 2; ++i) {
          const uint4 &x = v[2 * i], &y = v[2 * i + 1];
          b[0][0][i] = low_halves(x.x, y.x), b[0][1][i] = high_halves(x.x, y.x);
          b[0][2][i] = low_halves(x.y, y.y), b[0][3][i] = high_halves(x.y, y.y);
          b[0][4][i] = low_halves(x.z, y.z), b[0][5][i] = high_halves(x.z, y.z);
          b[0][6][i] = low_halves(x.w, y.w), b[0][7][i] = high_halves(x.w, y.w);
        }
        mma_tiles<S>(sum, a, b);
      }
      // Lane (g, t) has the columns 16 t ... 16 t + 15 of the patches g and g + 8.
#pragma unroll
      for (int32_t i = 0; i < 4; ++i) {
        const int32_t patch = i < 2 ? lane_g : lane_g + 8;
        const int64_t d = column + stripe + 16 * t + 8 * (i % 2);
        if (patch >= patches || d >= width) continue;
        const float f = power[i / 2];
        store8_as(out + patch * width + d,
                  {sum[0][0][i] * f, sum[0][1][i] * f, sum[0][2][i] * f, sum[0][3][i] * f,
                   sum[0][4][i] * f, sum[0][5][i] * f, sum[0][6][i] * f, sum[0][7][i] * f});
      }
    }
  }

  // The gradients where there are more than R words: columns of all of them are staged by turns.
  __device__ void sum_columns(int32_t product, int32_t patches, const float (&power)[2],
                              S* out) const {
    const int64_t width = product == 0 ? p.value_width : p.width;
    for (int64_t column = 0; column < width; column += kWideStripe) {
      __syncthreads();  // every warp is done with the rows staged before
      if (product == 1) {
        stage_text(p, pair, row(), count(), column, kWideStripe, kWideStripe + 16, text());
      }
      for (int32_t r = warp_id(); product == 0 && r < round_up(count(), 16); r += warps()) {
        S* to = text() + r * (kWideStripe + 16);
        if (r < count()) {
          stage_gradient(PooledGradient<S>(p, g, pair, side, row()[r]), unit()[r], width, column,
                         kWideStripe, to);
        } else {
          stage_zeros(kWideStripe, to);
        }
      }
      __syncthreads();  // columns of all words are complete before the products
      if (patches > 0) {
        sum_words(product, text(), kWideStripe + 16, column, kWideStripe, width, patches, power,
                  out);
      }
    }
  }
};

// The grid is pairs * (tiles of sketch + of photo patches), a tile being 16 patches for each warp;
// dynamic shared memory is a PatchesMmaLayout.
template <class S, int32_t R>
__global__ void __launch_bounds__(kMmaThreads)
    patches_mma_kernel(Problem<S> p, Backward<S> g, int64_t sketch_tiles, int64_t tiles) {
  if constexpr (!kMmaHere) return;
  ZSBIR_DYNAMIC_SHARED(memory);
  const PatchesMmaLayout<R> layout(p, warps());
  const int64_t pair = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const int32_t side = tile < sketch_tiles ? kSketch : kPhoto;
  const PatchesMmaBlock<S, R> block{p, g, layout, memory, pair, side};
  const int64_t all = pick(p.side, side).patches;
  const int64_t first =
      ((tile - (side == kSketch ? 0 : sketch_tiles)) * warps() + warp_id()) * kGroup;
  const auto patches = int32_t(min(max(all - first, int64_t(0)), int64_t(kGroup)));
  const int64_t key = (pair * all + first) * p.width, value = (pair * all + first) * p.value_width;
  const S *keys = pick(p.side, side).keys + key, *values = pick(p.side, side).values + value;
  S *keys_out = pick(g.keys, side) + key, *values_out = pick(g.values, side) + value;
  block.find_words(mask_of(p, pair));
  const int32_t count = block.count();
  float value_power[2] = {0, 0}, key_power[2] = {0, 0};
  for (int32_t next = 0; next < count; next += R) {
    if (next > 0) {
      __syncthreads();  // rows of the last words are used before the next overwrite them
    }
    const int32_t words = min(count - next, R);
    block.stage_words(next, words);
    __syncthreads();  // rows and measures of these words are complete before the products
    if (patches > 0) {
      block.form_weights(keys, values, patches, next, words, value_power, key_power);
    }
  }
  key_power[0] *= p.scale, key_power[1] *= p.scale;
  if (count > R) {
    block.sum_columns(0, patches, value_power, values_out);
    block.sum_columns(1, patches, key_power, keys_out);
  } else if (patches > 0) {
    block.sum_words(0, block.grad(), int32_t(word_stride(p.value_width)), 0, p.value_width,
                    p.value_width, patches, value_power, values_out);
    block.sum_words(1, block.text(), int32_t(word_stride(p.width)), 0, p.width, p.width, patches,
                    key_power, keys_out);
  }
}

}  // namespace zsbir::token_weighting
