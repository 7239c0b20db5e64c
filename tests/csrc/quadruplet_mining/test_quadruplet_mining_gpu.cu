// The tests of test_quadruplet_mining.cpp on a GPU, without torch, as compute-sanitizer wants them.
// benchmarks/gpu_session.sh builds and runs it.
#include "test_quadruplet_mining.cpp"
