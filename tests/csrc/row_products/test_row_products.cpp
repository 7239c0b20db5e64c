// The emulated CUDA kernels of row_products against chains of std::fma, and bit for bit against the
// CPU kernels.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#if defined(__CUDACC__)
#include "device.h"
#else
#include "emulated.h"
#endif

using namespace zsbir::row_products;

namespace {

int failures = 0;

void check(bool ok, const std::string& what) {
  if (ok) return;
  ++failures;
  std::printf("FAILED  %s\n", what.c_str());
}

struct Case {
  int64_t left, right, width, padding;
  bool scale, offset;
};

template <class T>
std::vector<T> draw(int64_t count, std::mt19937& random) {
  std::normal_distribution<double> normal;
  std::vector<T> values(count);
  for (T& v : values) v = T(normal(random));
  return values;
}

// Memory that begins where a panel must.
template <class T>
std::vector<T> storage(int64_t count) {
  return std::vector<T>(count + 64 / sizeof(T));
}
template <class T>
T* aligned(std::vector<T>& memory) {
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64);
}

template <class T>
void check_case(const Case& c) {
  const std::string name = "left " + std::to_string(c.left) + " right " + std::to_string(c.right) +
                           " width " + std::to_string(c.width) + (sizeof(T) == 8 ? " double" : "");
  std::mt19937 random(unsigned(c.left * 1000 + c.right + c.width));
  const int64_t stride = c.width + c.padding, row_stride = c.right + c.padding;
  const std::vector<T> left = draw<T>(c.left * stride, random);
  const std::vector<T> right = draw<T>(c.right * stride, random);
  const std::vector<T> scale = draw<T>(c.right, random), offset = draw<T>(c.right, random);
  const Rows<T> a{left.data(), c.left, c.width, stride}, b{right.data(), c.right, c.width, stride};
  const Scoring<T> scoring{c.scale ? scale.data() : nullptr, c.offset ? offset.data() : nullptr};

  std::vector<T> chains(c.left * row_stride, T(-7)), emulated = chains, cpu = chains;
  for (int64_t q = 0; q < c.left; ++q) {
    for (int64_t g = 0; g < c.right; ++g) {
      T sum = 0;
      for (int64_t d = 0; d < c.width; ++d) {
        sum = std::fma(left[q * stride + d], right[g * stride + d], sum);
      }
      chains[q * row_stride + g] = std::fma(sum, c.scale ? scale[g] : 1, c.offset ? offset[g] : 0);
    }
  }
  kernels::row_products(a, b, scoring, emulated.data(), row_stride);
  check(emulated == chains, name + " products on CUDA");

  const int64_t panels = (c.right + kPanel<T> - 1) / kPanel<T>;
  std::vector<T> memory = storage<T>(panels * kPanel<T> * c.width);
  pack_rows_cpu(b, aligned(memory));
  row_products_cpu<T>(a, {aligned(memory), c.width, 0, c.right}, scoring, cpu.data(), row_stride);
  // The CPU without fused multiply-adds rounds otherwise; ZSBIR_SIMD=baseline asks for that.
  if (std::getenv("ZSBIR_SIMD") == nullptr) check(cpu == chains, name + " products on the CPU");

  // A part of the rows, beginning and ending within panels.
  const int64_t first = c.right / 3, count = c.right - first - c.right / 5;
  const Scoring<T> part{c.scale ? scale.data() + first : nullptr,
                        c.offset ? offset.data() + first : nullptr};
  std::vector<T> some(c.left * count);
  row_products_cpu<T>(a, {aligned(memory), c.width, first, count}, part, some.data(), count);
  bool same = true;
  for (int64_t q = 0; q < c.left; ++q) {
    for (int64_t g = 0; g < count; ++g) {
      same = same && some[q * count + g] == cpu[q * row_stride + first + g];
    }
  }
  check(same, name + " a part of the rows");

  std::vector<double> on_cuda(c.right, -1), on_cpu(c.right, -2);
  kernels::row_squares(b, on_cuda.data());
  row_squares_cpu(b, on_cpu.data());
  check(on_cuda == on_cpu, name + " squares");
}

}  // namespace

int main() {
  const Case cases[] = {
      {0, 3, 4, 0, false, false},   {3, 0, 4, 0, false, false},    {1, 1, 1, 0, true, true},
      {2, 5, 0, 0, true, true},     {9, 70, 33, 0, false, true},   {17, 49, 16, 3, true, false},
      {70, 130, 40, 1, true, true}, {65, 64, 17, 0, false, false}, {5, 200, 15, 2, true, true},
  };
  for (const Case& c : cases) {
    check_case<float>(c);
    check_case<double>(c);
  }
  std::printf("row_products: %zu cases, %d failures\n", sizeof(cases) / sizeof(Case), failures);
  return failures == 0 ? 0 : 1;
}
