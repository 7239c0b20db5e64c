// Places of values among sorted keys on the CPU.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace zsbir::quadruplet_mining {

// The number of ascending keys that are not above x. The search has no branches: whether a key is
// above is a coin toss, and a wrong guess costs more than the whole search.
template <class T>
inline int64_t keys_up_to(const T* keys, int64_t count, T x) {
  const T* at = keys;
  for (int64_t left = count; left > 0;) {
    const int64_t half = (left + 1) / 2;
    at += int64_t(at[half - 1] <= x) * half;
    left -= half;
  }
  return at - keys;
}

// The same for many values: a table over equal steps of the range narrows the search to the keys of
// one step. All searches take as many rounds as the fullest step needs, because the branch
// predictor would guess a loop wrong whose length depends on the value.
template <class T>
class PlaceTable {
 public:
  PlaceTable(const T* keys, int64_t count) : keys_(keys), count_(count) {
    if (count == 0) return;
    lowest_ = keys[0];
    const T range = keys[count - 1] - lowest_;
    int64_t steps = 1;
    while (steps < 4 * count && steps < kMaxSteps) steps *= 2;
    scale_ = range > 0 ? T(steps) / range : T(0);
    if (!(scale_ < std::numeric_limits<T>::max())) scale_ = 0;
    first_.assign(steps + 2, 0);
    for (int64_t i = 0; i < count; ++i) ++first_[step_of(keys[i])];
    const int64_t fullest = *std::max_element(first_.begin(), first_.end());
    while (widest_ <= fullest / 2) widest_ *= 2;
    int32_t before = 0;
    for (int32_t& first : first_) before += std::exchange(first, before);
  }

  int64_t operator()(T value) const {
    if (count_ == 0 || !(value >= lowest_)) return 0;  // NaN, too
    if (value >= keys_[count_ - 1]) return count_;
    int64_t place = first_[step_of(value)];
    // Keys of later steps are above the value, so no round goes beyond its own step.
    for (int64_t width = widest_; width > 0; width /= 2) {
      const int64_t next = std::min(place + width, count_);
      place = keys_[next - 1] <= value ? next : place;
    }
    return place;
  }

 private:
  static constexpr int64_t kMaxSteps = 1 << 16;
  // Rounding is monotone, so equal and smaller values never come to a later step. The maximum turns
  // a NaN, which an infinite key leaves, into 0.
  int64_t step_of(T value) const { return int64_t(std::max(T(0), (value - lowest_) * scale_)); }

  const T* keys_;
  int64_t count_, widest_ = 1;
  T lowest_ = 0, scale_ = 0;
  std::vector<int32_t> first_;  // of each step
};

}  // namespace zsbir::quadruplet_mining
