// float16 and bfloat16 as 16 bits of storage: kernels load them as float and round once on the way
// out. Plain C++, so that the CPU, nvcc and the emulation of CUDA give the same bits.
#pragma once
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace zsbir {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type in which a storage type is computed.
template <class S>
struct Accumulator {
  using Type = float;
};
template <>
struct Accumulator<double> {
  using Type = double;
};
template <class S>
using Accumulate = typename Accumulator<S>::Type;

ZSBIR_HD float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
ZSBIR_HD uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

ZSBIR_HD float widen(float value) { return value; }
ZSBIR_HD double widen(double value) { return value; }
ZSBIR_HD float widen(BFloat16 value) { return float_of_bits(uint32_t(value.bits) << 16); }
ZSBIR_HD float widen(Half value) {
#if defined(__CUDA_ARCH__)
  float wide;  // the same bits in one instruction
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#else
  const uint32_t magnitude = uint32_t(value.bits & 0x7fffu) << 13;
  // The product moves the exponent's bias from 15 to 127 and normalises subnormal numbers, exactly.
  const uint32_t finite = bits_of_float(float_of_bits(magnitude) * float_of_bits(0x77800000u));
  const uint32_t special = magnitude | 0x7f800000u;  // infinity, NaN
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
  return float_of_bits(sign | (magnitude >= 0x0f800000u ? special : finite));
#endif
}

// To nearest, ties to even.
ZSBIR_HD void narrow(float value, float& out) { out = value; }
ZSBIR_HD void narrow(double value, double& out) { out = value; }
ZSBIR_HD void narrow(float value, BFloat16& out) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out.bits = uint16_t(value != value ? 0x7fc0u : rounded);
}
ZSBIR_HD void narrow(float value, Half& out) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
  // Adding 1/2 lets the addition itself round at the last bit of a subnormal number.
  const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t rounded = magnitude >= 0x47800000u   ? special
                           : magnitude >= 0x38800000u ? normal
                                                      : subnormal;
  out.bits = uint16_t(((bits >> 16) & 0x8000u) | rounded);
}

}  // namespace zsbir
