// The emulated kernels as a C library for Python's ctypes: test_token_weighting_emulation.py.
#include "emulated.h"

using namespace zsbir;
using namespace zsbir::token_weighting;

namespace {

// The arguments that Python passes: sizes and addresses in the order of the structs of
// token_weighting.h.
template <class S>
void words(const int64_t* size, double scale, bool few, void* const* in, void* const* out,
           bool backward) {
  using A = Accumulate<S>;
  const auto a = [](void* p) { return static_cast<A*>(p); };
  const auto s = [](void* p) { return static_cast<S*>(p); };
  const auto* mask = static_cast<const uint8_t*>(in[1]);
  const auto* labels = static_cast<const int64_t*>(in[2]);
  const Problem<S> p{size[0],
                     size[1],
                     size[2],
                     size[3],
                     size[4],
                     2,
                     A(scale),
                     s(in[0]),
                     mask,
                     labels,
                     {{s(in[4]), s(in[5]), size[5]}, {s(in[6]), s(in[7]), size[6]}}};
  if (!backward) {
    kernels::forward<S>(
        p, Forward<A>{a(in[3]), a(out[0]), {a(out[1]), a(out[2])}, a(out[3]), Keep::all}, few);
    return;
  }
  kernels::backward<S>(p,
                       Backward<S>{a(in[3]),
                                   {a(out[1]), a(out[2])},
                                   a(out[3]),
                                   a(in[8]),
                                   {a(in[9]), a(in[10])},
                                   a(out[4]),
                                   {s(out[6]), s(out[8])},
                                   {s(out[7]), s(out[9])}},
                       few);
  kernels::class_sums<A, S>(
      ClassSums<A>{size[0], size[1], size[2], size[3], a(out[4]), mask, labels}, s(out[5]));
}

template <class S>
void patches(const int64_t* size, bool all_pairs, bool few, void* const* in, void* const* out) {
  using A = Accumulate<S>;
  const auto a = [](void* p) { return static_cast<A*>(p); };
  const auto s = [](void* p) { return static_cast<S*>(p); };
  const Pairwise<S> p{
      {{s(in[0]), size[0], size[1]}, {s(in[1]), size[2], size[3]}}, size[4], all_pairs};
  auto* best = static_cast<int32_t*>(out[4]);
  kernels::pairwise_forward<S>(p, {a(out[0]), {a(out[1]), a(out[2])}, a(out[3]), best}, few);
  kernels::pairwise_backward<S>(
      p, {a(in[2]), {a(out[1]), a(out[2])}, a(out[3]), best, {s(out[5]), s(out[6])}});
}

template <class F>
void with_storage(int32_t dtype, const F& f) {
  if (dtype == 0) return f(float());
  if (dtype == 1) return f(double());
  return dtype == 2 ? f(Half()) : f(BFloat16());
}

}  // namespace

extern "C" {

void emulated_words(int32_t dtype, const int64_t* size, double scale, bool few, void* const* in,
                    void* const* out, bool backward) {
  with_storage(
      dtype, [&](auto element) { words<decltype(element)>(size, scale, few, in, out, backward); });
}

void emulated_pairwise(int32_t dtype, const int64_t* size, bool all_pairs, bool few,
                       void* const* in, void* const* out) {
  with_storage(dtype,
               [&](auto element) { patches<decltype(element)>(size, all_pairs, few, in, out); });
}

// Whether the last pass ran the tensor-core kernels.
bool emulated_tensor_cores() { return kernels::ran_best(); }

}  // extern "C"
