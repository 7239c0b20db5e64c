// The tests of test_row_products.cpp on a GPU, without torch, as compute-sanitizer wants them.
// benchmarks/gpu_session.sh builds and runs it.
#include "test_row_products.cpp"
