"""The main kernels once each, for ``ncu``, and a table of its numbers.

``ncu ... python -m benchmarks.kernel_profile --run``   a launch or two of every main kernel
``python -m benchmarks.kernel_profile --show FILE.csv``   of ``ncu --import ... --page raw --csv``

The kernels are rank counting (batched_map, QuickDraw size), products (row_products, the same),
selection (quadruplet_mining, B = 4,096), and forward and backward of the token weighting (bfloat16
on tensor cores, 5 to 20 words).
``--kernels`` prints their names as a regular expression for ``ncu --kernel-name``.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

KERNELS = (
    "rank_counts_kernel",
    "row_products_kernel",
    "select_kernel",
    "forward_mma_kernel",
    "words_mma_kernel",
    "patches_mma_kernel",
)

# --- launches ------------------------------------------------------------------------------------


def run_batched_map(device: str, small: bool) -> None:
    from zsbir_fast.ops.batched_map import GalleryClasses, rank_counts, relevant_items

    queries, photos, classes = (5, 90, 3) if small else (2_000, 54_151, 30)
    generator = torch.Generator().manual_seed(0)
    of_column = torch.randint(classes, (photos,), generator=generator)
    of_query = torch.randint(classes, (queries,), generator=generator).to(device, torch.int32)
    parts = GalleryClasses.of(of_column, classes)
    gallery = GalleryClasses(
        parts.of_column.to(device), parts.offsets.to(device), parts.columns.to(device)
    )
    scores = torch.rand(queries, photos, generator=generator).to(device)
    relevant = relevant_items(scores, of_query, gallery, larger_is_closer=True)
    rank_counts(scores, of_query, gallery, *relevant, larger_is_closer=True)


def run_row_products(device: str, small: bool) -> None:
    from zsbir_fast.ops.row_products import row_products

    queries, photos, width = (5, 90, 8) if small else (2_000, 54_151, 512)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, width, generator=generator).to(device) for n in (queries, photos))
    row_products(left, right, out=left.new_empty(queries, photos))


def run_quadruplet_mining(device: str, small: bool) -> None:
    import zsbir_fast as zf
    from benchmarks.mining_cases import CASES

    rows, width = (12, 8) if small else (CASES["b4096"].B, CASES["b4096"].D)
    generator = torch.Generator().manual_seed(0)
    sketches, photos = (torch.randn(rows, width, generator=generator).to(device) for _ in range(2))
    labels = (torch.arange(rows) // 16).to(device)
    zf.mine_quadruplets(sketches, photos, labels, labels)


def run_token_weighting(device: str, small: bool) -> None:
    import zsbir_fast as zf
    from benchmarks.token_cases import CASES, generate

    case = CASES["mixed_bf16"]
    data = generate(case.small() if small else case).to(device)
    scores = zf.token_weighting(data.features[0], data.mask, *data.features[1:], data.labels)
    torch.autograd.grad(scores, data.features, data.incoming.to(scores.dtype))


RUNS: tuple[Callable[[str, bool], None], ...] = (
    run_batched_map,
    run_row_products,
    run_quadruplet_mining,
    run_token_weighting,
)

# --- the report of ncu ---------------------------------------------------------------------------

# Heading, factor, and patterns of ncu's metrics: the first that is there counts. Names differ
# between architectures.
COLUMNS: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("us", 1e-3, (r"gpu__time_duration\.sum",)),
    ("DRAM MB", 1e-6, (r"dram__bytes\.sum", r"dram__bytes_(read|write)\.sum")),
    ("DRAM %", 1.0, (r".*dram__throughput\.avg\.pct_of_peak_sustained_elapsed",)),
    ("SM %", 1.0, (r"sm__throughput\.avg\.pct_of_peak_sustained_elapsed",)),
    ("tensor %", 1.0, (r"sm__(inst_executed_)?pipe_tensor.*\.avg\.pct_of_peak_sustained_\w+",)),
    ("occup. %", 1.0, (r"sm__warps_active\.avg\.pct_of_peak_sustained_active",)),
    ("regs", 1.0, (r"launch__registers_per_thread",)),
    ("L2 hit %", 1.0, (r"lts__t_sector_hit_rate\.pct",)),
)
# Asked for by name beside ncu's sections, which do not hold them all; unknown ones are left out.
EXTRA = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "launch__registers_per_thread",
    "lts__t_sector_hit_rate.pct",
)


def read_launches(lines: Sequence[str]) -> list[dict[str, str]]:
    """The launches of ``ncu --page raw --csv``; the lines before its header are left out."""
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    rows = list(csv.DictReader(lines[start:]))
    return [row for row in rows if (row.get("ID") or "").isdigit()]  # the row of units has none


def _value(launch: Mapping[str, str], patterns: tuple[str, ...], factor: float) -> str:
    for pattern in patterns:
        found = []
        for name, text in launch.items():
            if re.fullmatch(pattern, name or ""):
                try:
                    found.append(float(text.replace(",", "")))
                except ValueError:  # n/a
                    continue
        if found:
            # Bytes read and written add up; of several forms of one share the largest counts.
            value = factor * (sum(found) if factor < 1 else max(found))
            return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"
    return "n/a"


def table(launches: Sequence[Mapping[str, str]]) -> str:
    """A line for each launch."""
    lines = [("kernel", *(heading for heading, _, _ in COLUMNS))]
    for launch in launches:
        name = re.sub(r"^.*?(\w+_kernel\b).*$", r"\1", launch.get("Kernel Name", "?"))
        lines.append((name, *(_value(launch, names, factor) for _, factor, names in COLUMNS)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    )


def main(argv: Sequence[str] | None = None) -> int:
    """1 if a main kernel is missing from the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernel_profile")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", action="store_true", help="launch every main kernel")
    what.add_argument("--show", type=Path, metavar="FILE.csv", help="the table of a report")
    what.add_argument("--kernels", action="store_true", help="their names, for --kernel-name")
    what.add_argument("--metrics", action="store_true", help="what to ask for, for --metrics")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--small", action="store_true", help="the smallest sizes")
    args = parser.parse_args(argv)
    if args.kernels:
        print(f"regex:^({'|'.join(KERNELS)})$")
    elif args.metrics:
        print(",".join(EXTRA))
    elif args.run:
        for run in RUNS:
            run(args.device, args.small)
        if args.device == "cuda":
            torch.cuda.synchronize()
    else:
        launches = read_launches(args.show.read_text().splitlines())
        print(table(launches))
        seen = " ".join(launch.get("Kernel Name", "") for launch in launches)
        missing = [name for name in KERNELS if name not in seen]
        if missing:
            print(f"not in the report: {', '.join(missing)}")
        return int(bool(missing))
    return 0


if __name__ == "__main__":
    sys.exit(main())
