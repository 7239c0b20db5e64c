// The tests of test_batched_map.cpp on a GPU, without torch, as compute-sanitizer wants them.
// benchmarks/gpu_session.sh builds and runs it.
#include "test_batched_map.cpp"
