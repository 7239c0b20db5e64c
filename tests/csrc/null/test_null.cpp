// The emulated CUDA kernel of null and the CPU kernel against the rows themselves.
#include <cstdio>
#include <numeric>
#include <vector>

#if defined(__CUDACC__)
#include "device.h"
#else
#include "emulated.h"
#endif

using namespace zsbir::null;

namespace {

int failures = 0;

template <class T>
void check_case(int64_t count, int64_t width) {
  std::vector<T> rows(count * width), on_cuda(count * width, T(-1)), on_cpu = on_cuda;
  std::iota(rows.begin(), rows.end(), T(0));
  kernels::null<T>({rows.data(), count, width}, on_cuda.data());
  null_cpu<T>({rows.data(), count, width}, on_cpu.data());
  if (on_cuda == rows && on_cpu == rows) return;
  ++failures;
  std::printf("FAILED  %d rows of %d, %zu bytes\n", int(count), int(width), sizeof(T));
}

}  // namespace

int main() {
  const int64_t cases[][2] = {{0, 3}, {3, 0}, {1, 1}, {4, 8}, {5, 33}, {40, 7}};
  for (const auto& [count, width] : cases) {
    check_case<float>(count, width);
    check_case<double>(count, width);
  }
  std::printf("null: %zu cases, %d failures\n", sizeof(cases) / sizeof(cases[0]), failures);
  return failures == 0 ? 0 : 1;
}
