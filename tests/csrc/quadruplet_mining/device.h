// The CUDA kernels on a GPU, with host memory in and out, as emulated.h runs them on CPU threads.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "on_device.h"
#include "quadruplet_mining/quadruplet_mining.h"

namespace kernels {

using namespace zsbir::quadruplet_mining;

// Rows with their data on the device.
template <class T>
class DeviceRows {
 public:
  explicit DeviceRows(const Rows<T>& host)
      : host_(host), data_(host.data, host.count * host.width) {}
  Rows<T> get() const { return {data_.get(), host_.count, host_.width}; }

 private:
  Rows<T> host_;
  OnDevice<T> data_;
};

// One more than the largest class number.
inline int64_t classes_of(const int32_t* classes, int64_t count) {
  return count == 0 ? 0 : int64_t(*std::max_element(classes, classes + count)) + 1;
}

template <class T>
void pair_distances(Rows<T> a, Rows<T> b, Distance distance, T* host_out) {
  const DeviceRows rows(a), columns(b);
  const OnDevice out(host_out, a.count * b.count);
  pair_distances_cuda(rows.get(), columns.get(), distance, out.get(), 0, nullptr);
  out.copy_to(host_out);
}

template <class T>
void select_pairs(Rows<T> host_anchors, Rows<T> host_references, const SelectFilter<T>& host,
                  const Estimates<T>& given, Distance distance, int32_t wanted, int64_t* host_index,
                  T* host_chosen) {
  const int64_t count = host_anchors.count;
  const DeviceRows anchors(host_anchors), references(host_references);
  const OnDevice anchor_labels(host.anchor_labels, count);
  const OnDevice reference_labels(host.reference_labels, host_references.count);
  const OnDevice forbidden(host.forbidden, count);
  const OnDevice low(host.low, count), high(host.high, count);
  const OnDevice products(given.products, given.rows * host_references.count);
  const OnDevice anchor_lengths(given.anchor_lengths, count);
  const OnDevice reference_lengths(given.reference_lengths, host_references.count);
  const OnDevice index(host_index, kChoices * count);
  const OnDevice chosen(host_chosen, kChoices * count);
  const SelectFilter<T> filter{anchor_labels.get(), reference_labels.get(),
                               host.same_limit,     forbidden.get(),
                               low.get(),           high.get()};
  const Estimates<T> estimates{
      products.get(),          given.first,         given.rows,       anchor_lengths.get(),
      reference_lengths.get(), given.product_error, given.norm_error, given.tiny};
  select_pairs_cuda(anchors.get(), references.get(), filter, estimates, distance, wanted,
                    index.get(), chosen.get(), 0, nullptr);
  index.copy_to(host_index);
  chosen.copy_to(host_chosen);
}

template <class T>
class DeviceQuadruplets {
 public:
  explicit DeviceQuadruplets(const MinedRows<T>& host)
      : sketches_(host.sketches),
        photos_(host.photos),
        references_(host.references),
        positive_(host.positive, host.sketches.count),
        photo_negative_(host.photo_negative, host.sketches.count),
        sketch_negative_(host.sketch_negative, host.sketches.count),
        valid_(host.valid, host.sketches.count) {}
  MinedRows<T> get() const {
    return {sketches_.get(),       photos_.get(),          references_.get(), positive_.get(),
            photo_negative_.get(), sketch_negative_.get(), valid_.get()};
  }

 private:
  DeviceRows<T> sketches_, photos_, references_;
  OnDevice<int64_t> positive_, photo_negative_, sketch_negative_;
  OnDevice<bool> valid_;
};

template <class T>
void quadruplet_hinges(const MinedRows<T>& host, const HingeForm& form, Distance distance,
                       T* host_hinges, T* host_slopes) {
  const DeviceQuadruplets rows(host);
  const OnDevice hinges(host_hinges, host.sketches.count);
  const OnDevice slopes(host_slopes, kEdges * host.sketches.count);
  quadruplet_hinges_cuda(rows.get(), form, distance, hinges.get(), slopes.get(), 0, nullptr);
  hinges.copy_to(host_hinges);
  slopes.copy_to(host_slopes);
}

template <class T>
void quadruplet_hinges_backward(const MinedRows<T>& host, Distance distance, const T* host_slopes,
                                const T* host_upstream, T* host_sketches_grad, T* host_photos_grad,
                                T* host_references_grad) {
  const DeviceQuadruplets rows(host);
  const OnDevice slopes(host_slopes, kEdges * host.sketches.count);
  const OnDevice upstream(host_upstream, host.sketches.count);
  const OnDevice sketches_grad(host_sketches_grad, host.sketches.count * host.sketches.width);
  const OnDevice photos_grad(host_photos_grad, host.photos.count * host.photos.width);
  const OnDevice references_grad(host_references_grad,
                                 host.references.count * host.references.width);
  quadruplet_hinges_backward_cuda<T>(rows.get(), distance, slopes.get(), upstream.get(),
                                     sketches_grad.get(), photos_grad.get(), references_grad.get(),
                                     0, nullptr);
  sketches_grad.copy_to(host_sketches_grad);
  photos_grad.copy_to(host_photos_grad);
  references_grad.copy_to(host_references_grad);
}

template <class T>
void hinge_rows(const HingeRows<T>& host, double* host_sums, double* host_active,
                T* host_by_threshold, T* host_by_value) {
  const int64_t thresholds_size = host.rows * host.threshold_columns;
  const int64_t values_size = host.rows * host.value_columns;
  const OnDevice thresholds(host.thresholds, thresholds_size);
  const OnDevice separate_values(host.values == host.thresholds ? nullptr : host.values,
                                 values_size);
  const OnDevice row_labels(host.row_labels, host.rows);
  const OnDevice threshold_labels(host.threshold_labels, host.threshold_columns);
  const OnDevice value_labels(host.value_labels, host.value_columns);
  const OnDevice row_weights(host.row_weights, host.rows);
  const OnDevice value_weights(host.value_weights, host.value_columns);
  const OnDevice sums(host_sums, host.rows), active(host_active, host.rows);
  const OnDevice by_threshold(host_by_threshold, thresholds_size);
  const OnDevice by_value(host_by_value, values_size);
  HingeRows<T> problem = host;
  problem.thresholds = thresholds.get();
  problem.values = host.values == host.thresholds ? thresholds.get() : separate_values.get();
  problem.row_labels = row_labels.get();
  problem.threshold_labels = threshold_labels.get();
  problem.value_labels = value_labels.get();
  problem.row_weights = row_weights.get();
  problem.value_weights = value_weights.get();
  hinge_rows_cuda(problem, sums.get(), active.get(), by_threshold.get(), by_value.get(), 0,
                  nullptr);
  sums.copy_to(host_sums);
  active.copy_to(host_active);
  by_threshold.copy_to(host_by_threshold);
  by_value.copy_to(host_by_value);
}

template <class T>
void probe_pairs(const Probes<T>& host, double* host_sums, T* host_by_value, int64_t* host_hits,
                 int64_t* host_class_hits) {
  const int64_t classes =
      std::max(classes_of(host.row_class, host.rows), classes_of(host.column_class, host.columns));
  const OnDevice values(host.values, host.rows * host.columns);
  const OnDevice row_class(host.row_class, host.rows);
  const OnDevice column_class(host.column_class, host.columns);
  const OnDevice thresholds(host.thresholds, host.capacity);
  const OnDevice threshold_sums(host.threshold_sums, host.capacity + 1);
  const OnDevice by_class(host.by_class, host.capacity);
  const OnDevice by_class_sums(host.by_class_sums, host.capacity);
  const OnDevice class_offsets(host.class_offsets, classes + 1);
  const OnDevice count(host.count, 1);
  const OnDevice sums(host_sums, host.rows);
  const OnDevice by_value(host_by_value, host.rows * host.columns);
  const OnDevice hits(host_hits, host.capacity + 1);
  const OnDevice class_hits(host_class_hits, host.capacity + 1);
  Probes<T> problem = host;
  problem.values = values.get();
  problem.row_class = row_class.get();
  problem.column_class = column_class.get();
  problem.thresholds = thresholds.get();
  problem.threshold_sums = threshold_sums.get();
  problem.by_class = by_class.get();
  problem.by_class_sums = by_class_sums.get();
  problem.class_offsets = class_offsets.get();
  problem.count = count.get();
  probe_pairs_cuda(problem, sums.get(), by_value.get(), hits.get(), class_hits.get(), 0, nullptr);
  sums.copy_to(host_sums);
  by_value.copy_to(host_by_value);
  hits.copy_to(host_hits);
  class_hits.copy_to(host_class_hits);
}

template <class T>
void union_counts(const UnionRows<T>& host, T* host_out) {
  const OnDevice pairs(host.pairs, host.rows * host.columns);
  const OnDevice first(host.first, host.rows * host.values);
  const OnDevice second(host.second, host.columns * host.values);
  const OnDevice row_labels(host.row_labels, host.rows);
  const OnDevice column_labels(host.column_labels, host.columns);
  const OnDevice value_labels(host.value_labels, host.values);
  const OnDevice out(host_out, host.rows * host.columns);
  UnionRows<T> problem = host;
  problem.pairs = pairs.get();
  problem.first = first.get();
  problem.second = second.get();
  problem.row_labels = row_labels.get();
  problem.column_labels = column_labels.get();
  problem.value_labels = value_labels.get();
  union_counts_cuda(problem, out.get(), 0, nullptr);
  out.copy_to(host_out);
}

template <class T>
void probe_union(const ProbeUnion<T>& host, int64_t* host_totals) {
  const int64_t pairs = host.photo_count * host.sketch_count;
  const OnDevice values(host.values, pairs);
  const OnDevice photos(host.photos, host.photo_count * host.photo_count);
  const OnDevice sketch_class(host.sketch_class, host.sketch_count);
  const OnDevice photo_class(host.photo_class, host.photo_count);
  const OnDevice thresholds(host.thresholds, host.count), by_class(host.by_class, host.count);
  const OnDevice anchor(host.anchor, host.count), positive(host.positive, host.count);
  const OnDevice rank(host.rank, host.count);
  const OnDevice h1_threshold(host.h1_threshold, host.count);
  const OnDevice h4_threshold(host.h4_threshold, host.count);
  const OnDevice class_offsets(host.class_offsets, host.classes + 1);
  const OnDevice sorted(host.sorted, pairs);
  const OnDevice members(host.members, host.sketch_count);
  const OnDevice member_offsets(host.member_offsets, host.classes + 1);
  const OnDevice totals(host_totals, host.count);
  ProbeUnion<T> problem = host;
  problem.values = values.get();
  problem.photos = photos.get();
  problem.sketch_class = sketch_class.get();
  problem.photo_class = photo_class.get();
  problem.thresholds = thresholds.get();
  problem.by_class = by_class.get();
  problem.anchor = anchor.get();
  problem.positive = positive.get();
  problem.rank = rank.get();
  problem.h1_threshold = h1_threshold.get();
  problem.h4_threshold = h4_threshold.get();
  problem.class_offsets = class_offsets.get();
  problem.sorted = sorted.get();
  problem.members = members.get();
  problem.member_offsets = member_offsets.get();
  probe_union_cuda(problem, totals.get(), 0, nullptr);
  totals.copy_to(host_totals);
}

}  // namespace kernels
