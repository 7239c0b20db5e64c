// Runs CUDA kernel bodies on the CPU: one std::thread per CUDA thread, barriers for block and warp.
//
// Include it before any *_kernels.cuh. Good for finding wrong results, out-of-bounds accesses
// (under AddressSanitizer), data races and missing barriers (under ThreadSanitizer). It says
// nothing about speed, and its memory model is stronger than a GPU's. Blocks run one after another,
// so races between blocks stay hidden: kernels may touch what blocks share only by atomics.
#pragma once
#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // one block at a time, so one copy is right
#define ZSBIR_DYNAMIC_SHARED(name) unsigned char* name = emulation::dynamic_shared.get()

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace emulation {

// Not std::barrier, whose waiting threads of different barriers meet in one global pool: that would
// order accesses which nothing orders, and hide races from ThreadSanitizer.
class Barrier {
 public:
  explicit Barrier(unsigned threads, std::function<void()> completion = {})
      : expected_(threads), completion_(std::move(completion)) {}
  void arrive_and_wait() {
    std::unique_lock lock(mutex_);
    const uint64_t phase = phase_;
    if (++arrived_ == expected_) return complete();
    changed_.wait(lock, [&] { return phase_ != phase; });
  }
  void arrive_and_drop() {
    const std::scoped_lock lock(mutex_);
    if (--expected_ > 0 && arrived_ == expected_) complete();
  }

 private:
  void complete() {
    if (completion_) completion_();
    arrived_ = 0;
    ++phase_;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned expected_, arrived_ = 0;
  uint64_t phase_ = 0;
  std::function<void()> completion_;
};

struct Warp {
  struct Registers {
    unsigned char bytes[256];
  };
  Barrier barrier{32};
  uint64_t slot[32];
  Registers shown[2][32];  // by turns, so that one barrier is enough
  bool turn[32] = {};      // of each lane
};
inline std::unique_ptr<unsigned char[]> dynamic_shared;
inline std::optional<Barrier> block_barrier;
inline std::vector<std::unique_ptr<Warp>> warps;

inline Warp& own_warp() { return *warps[threadIdx.x / 32]; }

// A new block: whole barriers (threads of the last one left early), and shared memory with all bits
// set, which reads as NaN or -1, so that reading before writing shows.
inline void start_block(size_t shared_bytes) {
  std::memset(dynamic_shared.get(), 0xff, shared_bytes);
  block_barrier.emplace(blockDim.x);
  for (auto& warp : warps) warp = std::make_unique<Warp>();
}

// kernel<<<grid, threads, shared_bytes>>>(args...); threads must be a multiple of 32.
template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared_bytes,
            const Args&... args) {
  gridDim = grid;
  blockDim = {threads, 1, 1};
  dynamic_shared = std::make_unique<unsigned char[]>(shared_bytes);  // exact: ASan sees its end
  warps.resize(threads / 32);
  start_block(shared_bytes);
  Barrier between_blocks(threads, [&] { start_block(shared_bytes); });
  std::vector<std::thread> all;
  for (unsigned thread = 0; thread < threads; ++thread) {
    all.emplace_back([&, thread] {
      threadIdx = {thread, 0, 0};
      for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
          kernel(args...);
          own_warp().barrier.arrive_and_drop();  // no thread waits for one that ended early
          block_barrier->arrive_and_drop();
          between_blocks.arrive_and_wait();
        }
      }
    });
  }
  for (auto& thread : all) thread.join();
}

// Every lane writes its value; `read` sees those of all lanes.
template <class V, class Read>
auto exchange(V value, Read read) {
  static_assert(sizeof(V) <= 8);
  Warp& warp = own_warp();
  std::memcpy(&warp.slot[threadIdx.x % 32], &value, sizeof(V));
  warp.barrier.arrive_and_wait();
  const auto lane_value = [&](unsigned lane) {
    V other;
    std::memcpy(&other, &warp.slot[lane % 32], sizeof(V));
    return other;
  };
  const auto result = read(lane_value);
  warp.barrier.arrive_and_wait();
  return result;
}

// Every lane shows two arrays of registers and gets those of all lanes and its own number. The
// arrays stay until the lane shows others for the second time.
inline std::pair<const Warp::Registers*, unsigned> show(const void* first, size_t first_bytes,
                                                        const void* second, size_t second_bytes) {
  Warp& warp = own_warp();
  const unsigned lane = threadIdx.x % 32;
  auto& all = warp.shown[warp.turn[lane]];
  warp.turn[lane] = !warp.turn[lane];
  std::memcpy(all[lane].bytes, first, first_bytes);
  std::memcpy(all[lane].bytes + first_bytes, second, second_bytes);
  warp.barrier.arrive_and_wait();
  return {all, lane};
}

}  // namespace emulation

inline void __syncthreads() { emulation::block_barrier->arrive_and_wait(); }
inline void __syncwarp() { emulation::own_warp().barrier.arrive_and_wait(); }

template <class V>
V __shfl_sync(unsigned, V value, int source) {
  return emulation::exchange(value, [&](auto lane_value) { return lane_value(source); });
}
template <class V>
V __shfl_up_sync(unsigned, V value, unsigned delta) {
  const unsigned lane = threadIdx.x % 32;
  return emulation::exchange(
      value, [&](auto lane_value) { return lane < delta ? value : lane_value(lane - delta); });
}
template <class V>
V __shfl_xor_sync(unsigned, V value, int mask) {
  return emulation::exchange(value,
                             [&](auto lane_value) { return lane_value(threadIdx.x % 32 ^ mask); });
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  return emulation::exchange(vote, [](auto lane_value) {
    unsigned all = 0;
    for (unsigned lane = 0; lane < 32; ++lane) all |= unsigned(lane_value(lane)) << lane;
    return all;
  });
}
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(int bits) { return bits == 0 ? 0 : std::countr_zero(unsigned(bits)) + 1; }

template <class V>
V atomicAdd(V* address, V value) {
  return std::atomic_ref<V>(*address).fetch_add(value, std::memory_order_relaxed);
}
template <class V>
V __ldcs(const V* address) {
  return *address;
}
using std::max;
using std::min;
