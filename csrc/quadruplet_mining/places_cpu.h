// Places of values among sorted keys on the CPU.
#pragma once
#include <cstdint>
#include <limits>
#include <vector>

namespace zsbir::quadruplet_mining {

// How many of the ascending keys are not above x. Without branches: whether a key is above is a
// coin toss, and a wrong guess costs more than the whole search.
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
// one step.
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
    for (int64_t i = 0; i < count; ++i) ++first_[step_of(keys[i]) + 1];
    for (int64_t s = 0; s <= steps; ++s) first_[s + 1] += first_[s];
  }

  int64_t operator()(T value) const {
    if (count_ == 0 || value < lowest_) return 0;
    if (value >= keys_[count_ - 1]) return count_;
    const int64_t step = step_of(value), begin = first_[step];
    return begin + keys_up_to(keys_ + begin, first_[step + 1] - begin, value);
  }

 private:
  static constexpr int64_t kMaxSteps = 1 << 16;
  // Rounding is monotone, so equal and smaller values never come to a later step.
  int64_t step_of(T value) const { return int64_t((value - lowest_) * scale_); }

  const T* keys_;
  int64_t count_;
  T lowest_ = 0, scale_ = 0;
  std::vector<int64_t> first_;
};

}  // namespace zsbir::quadruplet_mining
