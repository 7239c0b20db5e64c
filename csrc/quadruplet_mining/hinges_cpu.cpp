// Hinges of mined quadruplets on the CPU, and their gradients.
//
// Work         Up to 6 D per anchor forward, up to 12 D backward.
// Memory       Four rows are read per anchor. The backward pass keeps a list of (anchor, edge) by
//              row, so it needs no atomics and has the same order of every sum for any number of
//              threads.
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/parallel.h"
#include "quadruplet_mining/hinges.h"
#include "quadruplet_mining/row_loops_cpu.h"

namespace zsbir::quadruplet_mining {

namespace {

// Throws unless all rows exist in which the edges `used(anchor, edge)` of valid anchors end.
template <class T, class Used>
void check_rows(const char* function, const MinedRows<T>& m, const Used& used) {
  for (int64_t a = 0; a < m.sketches.count; ++a) {
    if (!m.valid[a]) continue;
    for (int32_t e = 0; e < kEdges; ++e) {
      if (!used(a, e) || edge_exists(m, a, e)) continue;
      const auto text = [](int64_t number) { return std::to_string(number); };
      throw std::invalid_argument(
          std::string(function) + ": quadruplets must name rows that exist where they are valid, " +
          "anchor " + text(a) + " got (" + text(m.positive[a]) + ", " + text(m.photo_negative[a]) +
          ", " + text(m.sketch_negative[a]) + ") for " + text(m.photos.count) + " photos and " +
          text(m.references.count) + " references");
    }
  }
}

// Rows that take part exist. Of the others only an address is formed, that of row 0.
template <class T>
struct Corners {
  const T* row[4];

  Corners(const MinedRows<T>& m, int64_t anchor) {
    const int64_t width = m.sketches.width;
    row[kSketch] = m.sketches.data + anchor * width;
    const auto at = [&](int32_t role, int64_t index) {
      return corner_exists(m, anchor, role) ? index * width : 0;
    };
    row[kPositive] = m.photos.data + at(kPositive, m.positive[anchor]);
    row[kPhotoNegative] = m.photos.data + at(kPhotoNegative, m.photo_negative[anchor]);
    row[kSketchNegative] = m.references.data + at(kSketchNegative, m.sketch_negative[anchor]);
  }
};

// All (anchor, edge, end) of each row of one matrix: entries [begin[r], begin[r + 1]).
class Incidence {
 public:
  struct Entry {
    int64_t anchor;
    int32_t edge, role;  // role: which end of the edge the row is
  };

  template <class T, class RowOf>
  Incidence(const MinedRows<T>& m, int64_t rows, const T* slopes, std::initializer_list<int> roles,
            const RowOf& row_of)
      : begin_(rows + 1, 0) {
    const auto each = [&](const auto& visit) {
      for (int64_t a = 0; a < m.sketches.count; ++a) {
        if (!m.valid[a]) continue;
        for (int32_t e = 0; e < kEdges; ++e) {
          if (slopes[a * kEdges + e] == 0) continue;
          for (const int32_t role : roles) {
            if (edge_from(e) == role || edge_to(e) == role) {
              visit(row_of(role, a), Entry{a, e, role});
            }
          }
        }
      }
    };
    each([&](int64_t row, const Entry&) { ++begin_[row + 1]; });
    for (int64_t r = 0; r < rows; ++r) begin_[r + 1] += begin_[r];
    entries_.resize(begin_[rows]);
    std::vector<int64_t> next(begin_.begin(), begin_.end() - 1);
    each([&](int64_t row, const Entry& entry) { entries_[next[row]++] = entry; });
  }

  // grad[r] = sum over its entries, in their order.
  template <class T>
  void accumulate(const MinedRows<T>& m, Distance distance, const T* slopes, const T* upstream,
                  T* grad) const {
    const int64_t width = m.sketches.width;
    const RowLoops<T> loops = row_loops<T>();
    parallel_rows(int64_t(begin_.size()) - 1, [&](int64_t r, int) {
      T* out = grad + r * width;
      std::fill_n(out, width, T(0));
      for (int64_t i = begin_[r]; i < begin_[r + 1]; ++i) {
        const Entry& entry = entries_[i];
        const Corners<T> corners(m, entry.anchor);
        const int32_t from = edge_from(entry.edge), to = edge_to(entry.edge);
        const T* x = corners.row[entry.role];
        const T* y = corners.row[entry.role == from ? to : from];
        const T factor = upstream[entry.anchor] * slopes[entry.anchor * kEdges + entry.edge];
        if (distance == Distance::one_minus_dot) {
          loops.add_row(out, factor, y, width);
        } else {
          loops.add_difference(out, factor, x, y, width);
        }
      }
    });
  }

 private:
  std::vector<int64_t> begin_;
  std::vector<Entry> entries_;
};

}  // namespace

template <class T>
void quadruplet_hinges_cpu(const MinedRows<T>& m, const HingeForm& form, Distance distance,
                           T* hinges, T* slopes) {
  check_rows("quadruplet_hinges", m, [&](int64_t, int32_t e) { return uses_edge(form, e); });
  const RowLoops<T> loops = row_loops<T>();
  const auto sum_of = distance == Distance::one_minus_dot ? loops.dot : loops.squared_distance;
  parallel_rows(m.sketches.count, [&](int64_t a, int) {
    T* slope = slopes + a * kEdges;
    std::fill_n(slope, kEdges, T(0));
    hinges[a] = 0;
    if (!m.valid[a]) return;
    const Corners<T> corners(m, a);
    T d[kEdges] = {};
    for (int32_t e = 0; e < kEdges; ++e) {
      if (!uses_edge(form, e)) continue;
      const T sum = sum_of(corners.row[edge_from(e)], corners.row[edge_to(e)], m.sketches.width);
      d[e] = distance_of_sum(distance, sum);
    }
    hinges[a] = hinges_of(d, form, slope);
    for (int32_t e = 0; e < kEdges; ++e) {
      slope[e] = slope[e] == 0 ? T(0) : gradient_factor(distance, slope[e], d[e]);
    }
  });
}

template <class T>
void quadruplet_hinges_backward_cpu(const MinedRows<T>& m, Distance distance, const T* slopes,
                                    const T* upstream, T* sketches_grad, T* photos_grad,
                                    T* references_grad) {
  check_rows("quadruplet_hinges_backward", m,
             [&](int64_t a, int32_t e) { return slopes[a * kEdges + e] != 0; });
  const auto gather = [&](int64_t rows, std::initializer_list<int> roles, const auto& row_of,
                          T* grad) {
    if (grad == nullptr) return;
    Incidence(m, rows, slopes, roles, row_of).accumulate(m, distance, slopes, upstream, grad);
  };
  gather(m.sketches.count, {kSketch}, [](int, int64_t a) { return a; }, sketches_grad);
  gather(
      m.photos.count, {kPositive, kPhotoNegative},
      [&](int role, int64_t a) { return role == kPositive ? m.positive[a] : m.photo_negative[a]; },
      photos_grad);
  gather(
      m.references.count, {kSketchNegative}, [&](int, int64_t a) { return m.sketch_negative[a]; },
      references_grad);
}

#define ZSBIR_INSTANTIATE(T)                                                                       \
  template void quadruplet_hinges_cpu<T>(const MinedRows<T>&, const HingeForm&, Distance, T*, T*); \
  template void quadruplet_hinges_backward_cpu<T>(const MinedRows<T>&, Distance, const T*,         \
                                                  const T*, T*, T*, T*);
ZSBIR_INSTANTIATE(float)
ZSBIR_INSTANTIATE(double)
#undef ZSBIR_INSTANTIATE

}  // namespace zsbir::quadruplet_mining
