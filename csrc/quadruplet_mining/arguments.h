// The arguments that Python passes to the kernels of quadruplet_mining: addresses and sizes, turned
// into the structs of quadruplet_mining.h once the type of the features is known.
#pragma once
#include <array>
#include <cstdint>

#include "common/address.h"
#include "quadruplet_mining/quadruplet_mining.h"

namespace zsbir::quadruplet_mining {

struct RowsArgs {
  Address data;
  int64_t count, width;

  template <class T>
  Rows<T> as() const {
    return {at<const T>(data), count, width};
  }
};

struct FilterArgs {
  Address anchor_labels, reference_labels;
  int64_t same_limit;
  Address forbidden, low, high;

  template <class T>
  SelectFilter<T> as() const {
    return {at<const int64_t>(anchor_labels),
            at<const int64_t>(reference_labels),
            same_limit,
            at<const int64_t>(forbidden),
            at<const T>(low),
            at<const T>(high)};
  }
};

struct EstimatesArgs {
  Address products;
  int64_t first, rows;
  Address anchor_lengths, reference_lengths;
  double product_error, norm_error, tiny;

  template <class T>
  Estimates<T> as() const {
    return {at<const T>(products),
            first,
            rows,
            at<const T>(anchor_lengths),
            at<const T>(reference_lengths),
            T(product_error),
            T(norm_error),
            T(tiny)};
  }
};

struct MinedArgs {
  RowsArgs sketches, photos, references;
  Address positive, photo_negative, sketch_negative, valid;

  template <class T>
  MinedRows<T> as() const {
    return {sketches.as<T>(),
            photos.as<T>(),
            references.as<T>(),
            at<const int64_t>(positive),
            at<const int64_t>(photo_negative),
            at<const int64_t>(sketch_negative),
            at<const bool>(valid)};
  }
};

struct FormArgs {
  std::array<double, kHinges> coefficient, margin;
  double cross_modal_share;

  HingeForm as() const {
    HingeForm form;
    for (int32_t k = 0; k < kHinges; ++k) {
      form.coefficient[k] = coefficient[k];
      form.margin[k] = margin[k];
    }
    form.cross_modal_share = cross_modal_share;
    return form;
  }
};

struct HingeRowsArgs {
  Address thresholds, values;
  int64_t rows, threshold_columns, value_columns;
  Address row_labels, threshold_labels, value_labels, row_weights, value_weights;
  double margin;
  bool exclude_self;

  template <class T>
  HingeRows<T> as() const {
    return {at<const T>(thresholds),
            at<const T>(values),
            rows,
            threshold_columns,
            value_columns,
            at<const int64_t>(row_labels),
            at<const int64_t>(threshold_labels),
            at<const int64_t>(value_labels),
            at<const int32_t>(row_weights),
            at<const int32_t>(value_weights),
            margin,
            exclude_self};
  }
};

struct ProbesArgs {
  Address values;
  int64_t rows, columns;
  Address row_class, column_class, thresholds, threshold_sums, by_class, by_class_sums,
      class_offsets, count;
  int64_t capacity;

  template <class T>
  Probes<T> as() const {
    return {at<const T>(values),
            rows,
            columns,
            at<const int32_t>(row_class),
            at<const int32_t>(column_class),
            at<const T>(thresholds),
            at<const double>(threshold_sums),
            at<const T>(by_class),
            at<const double>(by_class_sums),
            at<const int64_t>(class_offsets),
            at<const int64_t>(count),
            capacity};
  }
};

struct UnionArgs {
  Address pairs, first, second;
  int64_t rows, columns, values;
  Address row_labels, column_labels, value_labels;
  double first_margin, second_margin;

  template <class T>
  UnionRows<T> as() const {
    return {at<const T>(pairs),
            at<const T>(first),
            at<const T>(second),
            rows,
            columns,
            values,
            at<const int64_t>(row_labels),
            at<const int64_t>(column_labels),
            at<const int64_t>(value_labels),
            first_margin,
            second_margin};
  }
};

struct ProbeUnionArgs {
  Address values, photos;
  int64_t sketch_count, photo_count;
  Address sketch_class, photo_class, thresholds, by_class, anchor, positive, rank, h1_threshold,
      h4_threshold, class_offsets;
  int32_t classes;
  int64_t count;
  Address sorted, members, member_offsets;

  template <class T>
  ProbeUnion<T> as() const {
    return {at<const T>(values),
            at<const T>(photos),
            sketch_count,
            photo_count,
            at<const int32_t>(sketch_class),
            at<const int32_t>(photo_class),
            at<const T>(thresholds),
            at<const T>(by_class),
            at<const int32_t>(anchor),
            at<const int32_t>(positive),
            at<const int32_t>(rank),
            at<const T>(h1_threshold),
            at<const T>(h4_threshold),
            at<const int64_t>(class_offsets),
            classes,
            count,
            at<const T>(sorted),
            at<const int64_t>(members),
            at<const int64_t>(member_offsets)};
  }
};

}  // namespace zsbir::quadruplet_mining
