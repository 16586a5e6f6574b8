"""Exceptions of four CPUs at once, up to ten million: none is lost, none is doubled, and each CPU's are in order."""

from collections import Counter

import pytest

from tests.acceptance.numbered import TURN, counts_of, numbering, recorded
from tests.acceptance.runs import on_qemu_alone, summed_up
from trapline.trace.files import open_trace

np = pytest.importorskip("numpy")
pytest.importorskip("pyarrow")
CPUS, LIMIT = 4, 1800.0
"""The limit is for ten million, which take some minutes on two cores and eight on busy ones."""


def soak(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


@pytest.mark.parametrize(
    ("processor", "times"), [("qemu", 2_000), soak("qemu", 2_500_000), ("unicorn", 2_000), soak("unicorn", 250_000)]
)
def test_none_is_lost_doubled_or_out_of_order(processor, times, tmp_path):
    """The guest counts what it handles, and the records have the number of each in ECX, error codes and CR2."""
    image, output = tmp_path / "image.bin", tmp_path / "records.parquet"
    image.write_bytes(numbering(CPUS, times))
    handled = [{vector: count * times // len(TURN) for vector, count in Counter(TURN).items()}] * CPUS
    assert counts_of(on_qemu_alone(image, "-smp", str(CPUS)).console) == handled
    run = summed_up(image, "all", tmp_path, "--cpus", str(CPUS), "-o", str(output), processor=processor, limit=LIMIT)
    assert (run.summary["debug_exit"], run.summary["recorded"]) == (1, CPUS * times)
    assert counts_of(run.console) == handled
    seen = [0] * CPUS
    with open_trace(output) as trace:
        for batch in trace.batches(["vcpu", "rcx", "vector", "error_code", "address"]):
            vcpus, *columns = (column.fill_null(0).to_numpy() for column in batch.columns)
            for number in range(CPUS):
                numbers, *found = (column[vcpus == number] for column in columns)
                assert np.array_equal(numbers, np.arange(seen[number], seen[number] + len(numbers)) + 1)
                for column, expected in zip(found, recorded(numbers.astype(np.int64)), strict=True):
                    assert np.array_equal(column, expected)
                seen[number] += len(numbers)
    assert seen == [times] * CPUS
    output.unlink()
