// The inner loop of the room: where does each column of a row fall among the relevant keys?
#pragma once
#include <cstdint>

namespace zsbir::batched_map {

// Columns are handled in blocks whose results stay in the first-level cache.
constexpr int32_t kBlock = 512;

// What the SIMD stage needs to know of a query (slot_table.h explains the map).
template <class T>
struct PlaceMap {
  const T* key;          // sorted relevant keys, then two infinities
  const uint16_t* entry; // bucket -> slot of its first key << 1 | crowded
  T lowest, highest, scale;
  int32_t buckets;
  bool negate;         // the key is the negated score
  int32_t query_class; // skip columns of this class; not looked at if `classes` is nullptr
};

// Columns behind the last relevant key, and relevant ones, are in neither list.
struct Places {
  alignas(64) int32_t place[kBlock + 16];  // ordinary columns: number of relevant keys smaller than theirs
  alignas(64) int32_t unsure[kBlock + 16]; // offsets of the columns that tie, or fall into a crowded bucket
  int32_t places = 0, unsures = 0;
};

// One function for each level of SIMD; `columns` <= kBlock. Chosen once per call of the kernel.
template <class T>
using FindPlaces = void (*)(const T* scores, const int32_t* classes, int32_t columns, const PlaceMap<T>& map,
                            Places& out);

template <class T>
FindPlaces<T> find_places();

} // namespace zsbir::batched_map
