// The copy on the CPU: rows are spread over the threads.
//
// Work: none but the copy. Memory: every element is read once and written once. Deterministic: no
// two threads write to the same row.
#include <algorithm>

#include "common/parallel.h"
#include "null/null.h"

namespace zsbir::null {

template <class T>
void null_cpu(Rows<T> rows, T* out) {
  parallel_rows(rows.count, [&](int64_t row, int) {
    std::copy_n(rows.data + row * rows.width, rows.width, out + row * rows.width);
  });
}

template void null_cpu<float>(Rows<float>, float*);
template void null_cpu<double>(Rows<double>, double*);

}  // namespace zsbir::null
