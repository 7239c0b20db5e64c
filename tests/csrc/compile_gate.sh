#!/usr/bin/env bash
# Compiles every CUDA file for every architecture; a register spill, local memory or any warning is an
# error. Writes registers per kernel and architecture to $OUT/cuda_resources.txt (default
# build/csrc_tests): compare two of them before believing that a change is free.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-build/csrc_tests}
mkdir -p "$out"

known=$(nvcc --list-gpu-arch)
targets=() newest=
for arch in 75 80 86 89 90 100 120; do
  if grep -qx "compute_$arch" <<<"$known"; then
    targets+=(-gencode "arch=compute_$arch,code=sm_$arch")
    newest=$arch
  fi
done
targets+=(-gencode "arch=compute_$newest,code=compute_$newest")

: >"$out/nvcc.log"
files=0
while IFS= read -r file; do
  nvcc -std=c++17 -O3 --fmad=false -lineinfo -Icsrc -DZSBIR_CUDA_ARCHITECTURES='"gate"' \
    "${targets[@]}" -Xptxas -v,-warn-spills,-warn-lmem-usage -Werror all-warnings \
    -Xcompiler -Wall,-Wextra,-Werror -c "$file" -o "$out/gate.o" >>"$out/nvcc.log" 2>&1 ||
    { cat "$out/nvcc.log"; echo "compile gate: $file FAILED"; exit 1; }
  files=$((files + 1))
done < <(find csrc -name '*.cu' | sort)

# The GPU tests, which nothing else compiles where there is no GPU; one architecture is enough.
for file in tests/csrc/*/test_*_gpu.cu; do
  nvcc -std=c++20 -Icsrc -Itests/csrc -DZSBIR_CUDA_ARCHITECTURES='"gate"' -arch="sm_$newest" \
    -Werror all-warnings -Xcompiler -Wall,-Wextra,-Werror -c "$file" -o "$out/gate.o"
done

c++filt <"$out/nvcc.log" | awk '
  /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; arch = part[4]
                               sub(/^void /, "", kernel); sub(/\(.*/, "", kernel) }
  /Used .* registers/ { match($0, /[0-9]+ registers/)
                        printf "%-7s %3d registers  %s\n", arch, substr($0, RSTART), kernel }' |
  sort -k4,4 -k1,1 >"$out/cuda_resources.txt"
[ -s "$out/cuda_resources.txt" ]
cat "$out/cuda_resources.txt"
echo "compile gate: $files files, $(wc -l <"$out/cuda_resources.txt") kernels x architectures, no spill"
