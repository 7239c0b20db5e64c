// Loops over independent rows on the CPU. They use OpenMP's default number of threads and never
// name a count of their own: the default follows torch.set_num_threads (one shared runtime), and an
// explicit count hangs in forked workers.
#pragma once
#include <cstdint>

#if defined(ZSBIR_WITH_OPENMP)
#include <omp.h>
#endif

namespace zsbir {

inline int max_threads() {
#if defined(ZSBIR_WITH_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

inline int thread_number() {
#if defined(ZSBIR_WITH_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

// body(row, thread) for every row in [0, rows); must not throw.
template <class Body>
void parallel_rows(int64_t rows, const Body& body) {
#if defined(ZSBIR_WITH_OPENMP)
  // Rows of one call cost about the same, but cores of shared machines do not run alike.
#pragma omp parallel for schedule(dynamic, 1) if (rows > 1)
#endif
  for (int64_t row = 0; row < rows; ++row) body(row, thread_number());
}

}  // namespace zsbir
