// token_weighting for Python: see csrc/bindings.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>

#include "common/address.h"
#include "token_weighting/token_weighting.h"

namespace py = pybind11;

namespace zsbir {

namespace {

using TwoAddresses = std::array<Address, 2>;

// Calls f with an element of the type that torch calls `name`.
template <class F>
void with_storage(const std::string& name, const F& f) {
  if (name == "float32") return f(float());
  if (name == "float64") return f(double());
  if (name == "float16") return f(Half());
  if (name == "bfloat16") return f(BFloat16());
  throw std::invalid_argument("no token_weighting kernel for " + name);
}

// The arguments that several functions share, as plain structs that Python fills by keyword.
struct ProblemArgs {
  std::string dtype;
  int64_t pairs, classes, words, width, value_width;
  int32_t sides;
  double scale;
  Address text, mask, labels;
  TwoAddresses keys, values;
  std::array<int64_t, 2> patches;

  template <class S>
  token_weighting::Problem<S> as() const {
    const auto side = [&](int i) {
      return token_weighting::Side<S>{at<const S>(keys[i]), at<const S>(values[i]), patches[i]};
    };
    return {pairs,
            classes,
            words,
            width,
            value_width,
            sides,
            Accumulate<S>(scale),
            at<const S>(text),
            at<const uint8_t>(mask),
            at<const int64_t>(labels),
            {side(0), side(1)}};
  }
};

struct ForwardArgs {
  Address weights, scores;
  TwoAddresses pooled;
  Address stats;
  int32_t keep;

  template <class A>
  token_weighting::Forward<A> as() const {
    return {at<const A>(weights),
            at<A>(scores),
            {at<A>(pooled[0]), at<A>(pooled[1])},
            at<A>(stats),
            token_weighting::Keep(keep)};
  }
};

struct BackwardArgs {
  Address weights;
  TwoAddresses pooled;
  Address stats, grad_scores;
  TwoAddresses grad_pooled;
  Address text_rows;
  TwoAddresses keys, values;

  template <class S>
  token_weighting::Backward<S> as() const {
    using A = Accumulate<S>;
    return {at<const A>(weights),
            {at<const A>(pooled[0]), at<const A>(pooled[1])},
            at<const A>(stats),
            at<const A>(grad_scores),
            {at<const A>(grad_pooled[0]), at<const A>(grad_pooled[1])},
            at<A>(text_rows),
            {at<S>(keys[0]), at<S>(keys[1])},
            {at<S>(values[0]), at<S>(values[1])}};
  }
};

struct PairwiseArgs {
  std::string dtype;
  TwoAddresses tokens;
  std::array<int64_t, 2> items, patches;
  int64_t width;
  bool all_pairs;
  TwoAddresses inverse_norm;
  Address cosine, best;

  template <class S>
  token_weighting::Pairwise<S> as() const {
    return {{{at<const S>(tokens[0]), items[0], patches[0]},
             {at<const S>(tokens[1]), items[1], patches[1]}},
            width,
            all_pairs};
  }
  template <class A>
  token_weighting::PairwiseForward<A> forward(Address scores) const {
    return {at<A>(scores),
            {at<A>(inverse_norm[0]), at<A>(inverse_norm[1])},
            at<A>(cosine),
            at<int32_t>(best)};
  }
  template <class S>
  token_weighting::PairwiseBackward<S> backward(Address grad_scores, TwoAddresses out) const {
    using A = Accumulate<S>;
    return {at<const A>(grad_scores),
            {at<const A>(inverse_norm[0]), at<const A>(inverse_norm[1])},
            at<const A>(cosine),
            at<const int32_t>(best),
            {at<S>(out[0]), at<S>(out[1])}};
  }
};

struct ClassSumsArgs {
  std::string dtype;  // of the sums; the rows are of its accumulator
  int64_t pairs, classes, words, width;
  Address rows, mask, labels;

  template <class A>
  token_weighting::ClassSums<A> as() const {
    return {pairs,
            classes,
            words,
            width,
            at<const A>(rows),
            at<const uint8_t>(mask),
            at<const int64_t>(labels)};
  }
};

void bind_arguments(py::module_& m) {
  py::class_<ProblemArgs>(m, "TokenProblem")
      .def(
          py::init<std::string, int64_t, int64_t, int64_t, int64_t, int64_t, int32_t, double,
                   Address, Address, Address, TwoAddresses, TwoAddresses, std::array<int64_t, 2>>(),
          py::kw_only(), py::arg("dtype"), py::arg("pairs"), py::arg("classes"), py::arg("words"),
          py::arg("width"), py::arg("value_width"), py::arg("sides"), py::arg("scale"),
          py::arg("text"), py::arg("mask"), py::arg("labels"), py::arg("keys"), py::arg("values"),
          py::arg("patches"));
  py::class_<ForwardArgs>(m, "TokenForward")
      .def(py::init<Address, Address, TwoAddresses, Address, int32_t>(), py::kw_only(),
           py::arg("weights"), py::arg("scores"), py::arg("pooled"), py::arg("stats"),
           py::arg("keep"));
  py::class_<BackwardArgs>(m, "TokenBackward")
      .def(py::init<Address, TwoAddresses, Address, Address, TwoAddresses, Address, TwoAddresses,
                    TwoAddresses>(),
           py::kw_only(), py::arg("weights"), py::arg("pooled"), py::arg("stats"),
           py::arg("grad_scores"), py::arg("grad_pooled"), py::arg("text_rows"), py::arg("keys"),
           py::arg("values"));
  py::class_<PairwiseArgs>(m, "TokenPairwise")
      .def(py::init<std::string, TwoAddresses, std::array<int64_t, 2>, std::array<int64_t, 2>,
                    int64_t, bool, TwoAddresses, Address, Address>(),
           py::kw_only(), py::arg("dtype"), py::arg("tokens"), py::arg("items"), py::arg("patches"),
           py::arg("width"), py::arg("all_pairs"), py::arg("inverse_norm"), py::arg("cosine"),
           py::arg("best"));
  py::class_<ClassSumsArgs>(m, "TokenClassSums")
      .def(py::init<std::string, int64_t, int64_t, int64_t, int64_t, Address, Address, Address>(),
           py::kw_only(), py::arg("dtype"), py::arg("pairs"), py::arg("classes"), py::arg("words"),
           py::arg("width"), py::arg("rows"), py::arg("mask"), py::arg("labels"));
}

}  // namespace

void bind_token_weighting(py::module_& m) {
  using namespace token_weighting;
  const auto nogil = py::call_guard<py::gil_scoped_release>();
  bind_arguments(m);

#define ZSBIR_BIND(suffix, PLACE, ...)                                                        \
  m.def(                                                                                      \
      "token_weighting_forward_" #suffix,                                                     \
      [](const ProblemArgs& p, const ForwardArgs& f PLACE) {                                  \
        with_storage(p.dtype, [&](auto element) {                                             \
          using S = decltype(element);                                                        \
          forward_##suffix(p.as<S>(), f.as<Accumulate<S>>() __VA_ARGS__);                     \
        });                                                                                   \
      },                                                                                      \
      nogil);                                                                                 \
  m.def(                                                                                      \
      "token_weighting_backward_" #suffix,                                                    \
      [](const ProblemArgs& p, const BackwardArgs& b PLACE) {                                 \
        with_storage(p.dtype, [&](auto element) {                                             \
          using S = decltype(element);                                                        \
          backward_##suffix(p.as<S>(), b.as<S>() __VA_ARGS__);                                \
        });                                                                                   \
      },                                                                                      \
      nogil);                                                                                 \
  m.def(                                                                                      \
      "token_class_sums_" #suffix,                                                            \
      [](const ClassSumsArgs& c, Address out PLACE) {                                         \
        with_storage(c.dtype, [&](auto element) {                                             \
          using S = decltype(element);                                                        \
          class_sums_##suffix(c.as<Accumulate<S>>(), at<S>(out) __VA_ARGS__);                 \
        });                                                                                   \
      },                                                                                      \
      nogil);                                                                                 \
  m.def(                                                                                      \
      "pairwise_token_forward_" #suffix,                                                      \
      [](const PairwiseArgs& p, Address scores PLACE) {                                       \
        with_storage(p.dtype, [&](auto element) {                                             \
          using S = decltype(element);                                                        \
          pairwise_forward_##suffix(p.as<S>(), p.forward<Accumulate<S>>(scores) __VA_ARGS__); \
        });                                                                                   \
      },                                                                                      \
      nogil);                                                                                 \
  m.def(                                                                                      \
      "pairwise_token_backward_" #suffix,                                                     \
      [](const PairwiseArgs& p, Address grad_scores, TwoAddresses out PLACE) {                \
        with_storage(p.dtype, [&](auto element) {                                             \
          using S = decltype(element);                                                        \
          pairwise_backward_##suffix(p.as<S>(), p.backward<S>(grad_scores, out) __VA_ARGS__); \
        });                                                                                   \
      },                                                                                      \
      nogil);
#define ZSBIR_NOWHERE
  ZSBIR_BIND(cpu, ZSBIR_NOWHERE)
#if defined(ZSBIR_WITH_CUDA)
#define ZSBIR_ON_DEVICE , int device, Address stream
  ZSBIR_BIND(cuda, ZSBIR_ON_DEVICE, , device, at<void>(stream))
#undef ZSBIR_ON_DEVICE
#endif
#undef ZSBIR_NOWHERE
#undef ZSBIR_BIND
}

}  // namespace zsbir
