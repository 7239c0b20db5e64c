// The tests of test_token_weighting.cpp on a GPU, without torch, as compute-sanitizer wants them.
// benchmarks/gpu_session.sh builds and runs it.
#include "test_token_weighting.cpp"
