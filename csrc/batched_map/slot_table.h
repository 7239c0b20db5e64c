// The relevant keys of one query, sorted, and a table that finds the place of any key among them.
//
// Algorithm    A linear map sends the range [lowest, highest] of relevant keys onto about 8R
//              buckets. A counting sort over the buckets sorts the keys and leaves, for every
//              bucket, the slot of its first key and whether it is *occupied*. A key in an empty
//              bucket gets its place from one table look-up, with no comparison; in an occupied one
//              two comparisons usually do. The map is monotone in floating point (a subtraction, a
//              product with a positive constant and a truncation all are), so the place is exact.
// Cost         O(R + buckets) to build. The table takes 32 KiB at R = 1,805 and fits the
//              first-level cache.
// Limits       Where the map does not exist (range overflow, R > 32,766) the place is found by
//              binary search, and so it is in a bucket with many keys (one outlier stretches the
//              range).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace zsbir::batched_map {

template <class T>
class SlotTable {
 public:
  void reserve(int64_t max_relevant) {
    key_.resize(max_relevant + 2);
    index_.resize(max_relevant);
    bucket_.resize(max_relevant);
    start_.resize(buckets_for(max_relevant));
    entry_.resize(buckets_for(max_relevant));
  }

  // Sorts `relevant` keys by (key, position); the caller lists them by ascending gallery index, so
  // that equal keys stay in index order.
  void sort(const T* keys, const int32_t* index, int64_t relevant) {
    const auto [lowest, highest] = range_of(keys, relevant);
    set_range(lowest, highest, relevant);
    if (!mapped_) {
      comparison_sort(keys, index);
      return;
    }
    count_buckets(keys);
    for (int64_t i = 0; i < relevant; ++i) {
      const int32_t slot = start_[bucket_[i]]++;
      key_[slot] = keys[i];
      index_[slot] = index[i];
    }
    if (largest_bucket_ > kCrowded) {
      comparison_sort(keys, index);
    } else {
      insertion_sort();
    }
  }

  // The same for keys that are sorted already.
  void adopt(const T* keys, const int32_t* index, int64_t relevant) {
    set_range(keys[0], keys[relevant - 1], relevant);
    std::copy(keys, keys + relevant, key_.begin());
    std::copy(index, index + relevant, index_.begin());
    if (mapped_) count_buckets(keys);
  }

  // Number of relevant keys smaller than x, for x <= highest(), by search.
  int32_t place(T x) const {
    int32_t first = 0, last = int32_t(relevant_);
    if (mapped_) {
      const int32_t bucket = bucket_of(x);
      first = entry_[bucket] >> 1;
      if (bucket + 1 < buckets_) last = entry_[bucket + 1] >> 1;
    }
    return int32_t(std::lower_bound(key_.begin() + first, key_.begin() + last, x) - key_.begin());
  }

  bool mapped() const { return mapped_; }
  T lowest() const { return lowest_; }
  T highest() const { return highest_; }
  T scale() const { return scale_; }
  int32_t buckets() const { return buckets_; }
  int64_t relevant() const { return relevant_; }
  const T* key() const { return key_.data(); }
  const uint16_t* entry() const { return entry_.data(); }
  const int32_t* index() const { return index_.data(); }

 private:
  static constexpr int64_t kMostMapped = 32766;  // slots and a flag share 16 bits
  static constexpr int32_t kCrowded = 24;  // beyond it insertion sort loses to comparison sort

  static int32_t buckets_for(int64_t relevant) {
    int32_t buckets = 64;
    while (buckets < 8 * relevant && buckets < 16384) buckets *= 2;
    return buckets;
  }

  // Eight lanes, so that the compiler may use SIMD: it must not reorder a plain minimum itself.
  static std::pair<T, T> range_of(const T* keys, int64_t n) {
    constexpr int kLanes = 8;
    T low[kLanes], high[kLanes];
    std::fill_n(low, kLanes, keys[0]);
    std::fill_n(high, kLanes, keys[0]);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) {
        low[lane] = std::min(low[lane], keys[i + lane]);
        high[lane] = std::max(high[lane], keys[i + lane]);
      }
    }
    for (; i < n; ++i) {
      low[0] = std::min(low[0], keys[i]);
      high[0] = std::max(high[0], keys[i]);
    }
    return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
  }

  void set_range(T lowest, T highest, int64_t relevant) {
    relevant_ = relevant;
    lowest_ = lowest;
    highest_ = highest;
    buckets_ = buckets_for(relevant);
    scale_ = T(buckets_) / (highest - lowest);
    mapped_ = relevant <= kMostMapped && std::isfinite(scale_) && scale_ > T(0);
    key_[relevant] = key_[relevant + 1] = std::numeric_limits<T>::infinity();
  }

  // start_[b]: slot of the first key of bucket b; entry_[b]: the same, and whether b is occupied.
  void count_buckets(const T* keys) {
    std::fill_n(start_.begin(), buckets_, uint16_t(0));
    uint16_t largest = 0;
    for (int64_t i = 0; i < relevant_; ++i) {
      bucket_[i] = bucket_of(keys[i]);
      largest = std::max(largest, ++start_[bucket_[i]]);
    }
    largest_bucket_ = largest;
    // Four 16-bit counts in one word: the product with 1-1-1-1 is their prefix sum. No lane
    // overflows, as slots are below 2^15.
    constexpr uint64_t kOnes = 0x0001000100010001u, kTops = 0x8000800080008000u;
    uint64_t before = 0;
    uint16_t* start =
        start_.data();  // locals: the compiler must assume that memcpy writes to members
    uint16_t* entry = entry_.data();
    const int32_t buckets = buckets_;
    for (int32_t b = 0; b < buckets; b += 4) {
      uint64_t counts;
      std::memcpy(&counts, start + b, sizeof counts);
      const uint64_t through = counts * kOnes;
      const uint64_t slots = through - counts + before * kOnes;
      const uint64_t occupied = ((counts + (kTops - kOnes)) & kTops) >> 15;
      const uint64_t entries = slots << 1 | occupied;
      std::memcpy(start + b, &slots, sizeof slots);
      std::memcpy(entry + b, &entries, sizeof entries);
      before += through >> 48;
    }
  }

  void insertion_sort() {  // only neighbours within one bucket are out of order
    for (int64_t i = 1; i < relevant_; ++i) {
      const T key = key_[i];
      const int32_t index = index_[i];
      int64_t j = i;
      for (; j > 0 && key < key_[j - 1]; --j) {
        key_[j] = key_[j - 1];
        index_[j] = index_[j - 1];
      }
      key_[j] = key;
      index_[j] = index;
    }
  }

  void comparison_sort(const T* keys, const int32_t* index) {
    std::iota(bucket_.begin(), bucket_.begin() + relevant_, 0);
    std::stable_sort(bucket_.begin(), bucket_.begin() + relevant_,
                     [keys](int32_t a, int32_t b) { return keys[a] < keys[b]; });
    for (int64_t i = 0; i < relevant_; ++i) {
      key_[i] = keys[bucket_[i]];
      index_[i] = index[bucket_[i]];
    }
  }

  int32_t bucket_of(T x) const {
    return int32_t(std::min(std::max(T(0), (x - lowest_) * scale_), T(buckets_ - 1)));
  }

  int64_t relevant_ = 0;
  T lowest_ = 0, highest_ = 0, scale_ = 0;
  int32_t buckets_ = 0, largest_bucket_ = 0;
  bool mapped_ = false;
  std::vector<T> key_;  // two more than relevant_: infinities
  std::vector<int32_t> index_, bucket_;
  std::vector<uint16_t> start_, entry_;
};

}  // namespace zsbir::batched_map
