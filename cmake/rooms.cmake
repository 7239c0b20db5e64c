# The kernel families: csrc/<room>/ is built into the module, tests/csrc/<room>/ into its tests.
set(ZSBIR_ROOMS
  batched_map
  null
  quadruplet_mining
  row_products
  token_weighting
)
