// Facts about CUDA on this machine, for `zsbir env`. They never fail: without a driver or a GPU
// they are 0. Asking for the device count starts CUDA in this process, and a process that forks
// afterwards cannot use it in its children.
#pragma once

namespace zsbir {

int cuda_device_count();
int cuda_driver_version();  // newest CUDA version the driver supports, 13000 for 13.0; 0: no driver
int cuda_runtime_version();  // of the runtime that is built in

}  // namespace zsbir
