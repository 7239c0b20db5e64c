// Which shapes the tensor-core kernels take, and how. This is the one place that decides, for the
// launchers and for the emulation in tests/csrc alike.
#pragma once
#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "token_weighting/patches_mma_kernels.cuh"
#include "token_weighting/token_weighting_mma_kernels.cuh"

namespace zsbir::token_weighting {

// Valid words of a block: as many as shared memory holds. 48 hold most texts at once, and all 77
// tokens in two tiles, which for 64 pairs are 128 blocks: one for each multiprocessor of a large
// GPU. Where texts have room for at most 16 words, larger tiles would gain nothing.
constexpr int32_t kMmaWords = 48, kMmaFewWords = 16;

// The numbers that a launch needs; words == 0: the shape does not fit.
struct MmaLaunch {
  int32_t words = 0;
  unsigned threads = 0;
  size_t shared = 0;
};

inline bool on_16_bytes(std::initializer_list<const void*> addresses) {
  return std::all_of(addresses.begin(), addresses.end(), [](const void* address) {
    return reinterpret_cast<uintptr_t>(address) % 16 == 0;
  });
}

// Rows begin on 16 bytes, widths are whole loads of a lane, and offsets within a side's patches fit
// the kernels' 32 bits.
template <class S>
bool mma_takes(const Problem<S>& p) {
  bool takes = p.width % 8 == 0 && p.value_width % 8 == 0 && on_16_bytes({p.text}) &&
               std::max(p.width, p.value_width) < (1 << 24);
  for (int32_t side = 0; side < p.sides; ++side) {
    takes = takes && on_16_bytes({p.side[side].keys, p.side[side].values}) &&
            p.side[side].patches < (1 << 24);
  }
  return takes;
}

// `limit`: bytes of shared memory that a block can have; `few`: take the smaller tile in any case.
template <class S>
MmaLaunch forward_mma_launch(const Problem<S>& p, const Forward<float>& out, size_t limit,
                             bool few = false) {
  if (!mma_takes(p) || !on_16_bytes({out.pooled[kSketch], out.pooled[kPhoto]})) return {};
  const size_t many = forward_mma_bytes<kMmaWords>(p, out.keep);
  if (p.words > kMmaFewWords && !few && many <= limit) return {kMmaWords, kMmaThreads, many};
  const size_t least = forward_mma_bytes<kMmaFewWords>(p, out.keep);
  return least <= limit ? MmaLaunch{kMmaFewWords, kMmaThreads, least} : MmaLaunch{};
}

template <class S>
MmaLaunch words_mma_launch(const Problem<S>& p, const Backward<S>& g, size_t limit,
                           bool few = false) {
  if (!mma_takes(p) || !on_16_bytes({g.text_rows})) return {};
  const size_t many = words_mma_bytes<kMmaWords>(p);
  if (p.words > kMmaFewWords && !few && many <= limit) return {kMmaWords, kMmaThreads, many};
  const size_t least = words_mma_bytes<kMmaFewWords>(p);
  return least <= limit ? MmaLaunch{kMmaFewWords, kMmaThreads, least} : MmaLaunch{};
}

// Warps share out the patches of a side evenly. Halves of all words need room for each warp, so
// very long texts leave few warps, and in the end none.
template <class S>
MmaLaunch patches_mma_launch(const Problem<S>& p, const Backward<S>& g, size_t limit,
                             bool few = false, int64_t most_warps = kMmaThreads / kWarp) {
  for (int32_t side = 0; side < p.sides; ++side) {
    if (!on_16_bytes({g.keys[side], g.values[side]})) return {};
  }
  if (!mma_takes(p)) return {};
  const int64_t patches = std::max(p.side[kSketch].patches, p.side[p.sides - 1].patches);
  const int64_t groups = round_up(patches, kGroup) / kGroup;
  for (int64_t most = most_warps; most > 1; most /= 2) {
    const int64_t blocks = (groups + most - 1) / most, warps = (groups + blocks - 1) / blocks;
    const auto launch = [&](auto rows) -> MmaLaunch {
      const auto bytes = size_t(PatchesMmaLayout<rows()>(p, warps).bytes);
      if (bytes > limit) return {};
      return {rows(), unsigned(warps * kWarp), bytes};
    };
    MmaLaunch found;
    if (p.words > kMmaFewWords && !few) {
      found = launch(std::integral_constant<int32_t, kMmaWords>());
    }
    if (found.words == 0) found = launch(std::integral_constant<int32_t, kMmaFewWords>());
    if (found.words > 0) return found;
  }
  return {};
}

}  // namespace zsbir::token_weighting
