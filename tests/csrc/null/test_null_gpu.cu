// The tests of test_null.cpp on a GPU, without torch, as compute-sanitizer wants them.
// benchmarks/gpu_session.sh builds and runs it.
#include "test_null.cpp"
