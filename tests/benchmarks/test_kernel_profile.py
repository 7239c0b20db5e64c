from __future__ import annotations

import re

import pytest

from benchmarks.kernel_profile import KERNELS, main, read_launches, table

# As `ncu --import REPORT --page raw --csv --print-units base` writes it.
HEADER = [
    "ID",
    "Kernel Name",
    "Grid Size",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "gpu__time_duration.sum",
    "launch__registers_per_thread",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
]
UNITS = ["", "", "", "byte", "byte", "ns", "register/thread", "%", "%"]
NAME = "void zsbir::batched_map::rank_counts_kernel<float, (int)2048>(Scores<float>, int *)"


def report(*names):
    rows = [HEADER, UNITS]
    for i, name in enumerate(names):
        rows.append(
            [str(i), name, "(1,1,1)", "3000000", "1,000,000", "12500", "40", "61.25", "n/a"]
        )
    quoted = [",".join(f'"{cell}"' for cell in row) for row in rows]
    return ["==PROF== Connected to process 1", *quoted]


def test_launches_are_found_below_the_chatter_and_the_units():
    launches = read_launches(report(NAME))
    assert [launch["Kernel Name"] for launch in launches] == [NAME]
    assert read_launches(["==ERROR== no permission"]) == []


def test_a_line_for_each_launch():
    heading, line = table(read_launches(report(NAME))).splitlines()
    cells = dict(zip(re.split("  +", heading), re.split("  +", line), strict=True))
    assert cells["kernel"] == "rank_counts_kernel"
    assert (cells["us"], cells["DRAM MB"]) == ("12.5", "4")
    assert (cells["SM %"], cells["regs"], cells["tensor %"]) == ("61.2", "40", "n/a")


def test_a_kernel_that_is_not_there_is_named(tmp_path, capsys):
    file = tmp_path / "kernels.csv"
    file.write_text("\n".join(report(*(f"void {name}<float>(int)" for name in KERNELS))))
    assert main(["--show", str(file)]) == 0
    file.write_text("\n".join(report("void select_kernel<float>(int)")))
    assert main(["--show", str(file)]) == 1
    out = capsys.readouterr().out
    assert "not in the report: rank_counts_kernel, row_products_kernel, forward_mma_kernel" in out


def test_names_are_those_of_the_sources(repository, capsys):
    assert main(["--kernels"]) == 0
    assert capsys.readouterr().out.strip() == f"regex:^({'|'.join(KERNELS)})$"
    sources = "".join(f.read_text() for f in (repository / "csrc").glob("*/*_kernels.cuh"))
    for name in KERNELS:
        assert re.search(rf"\b{name}\(", sources), name


@pytest.mark.filterwarnings("default")
def test_every_main_kernel_has_a_run():
    assert main(["--run", "--small", "--device", "cpu"]) == 0
