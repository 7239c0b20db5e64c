// How many blocks a launcher asks for.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace zsbir::token_weighting {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline dim3 grid_of(int64_t blocks, const char* kernel) {
  constexpr int64_t kMost = 2147483647;  // hardware limit
  if (blocks > kMost) {
    throw std::runtime_error(std::string(kernel) + ": at most 2^31 - 1 blocks, got " +
                             std::to_string(blocks));
  }
  return dim3(unsigned(blocks));
}

}  // namespace zsbir::token_weighting
