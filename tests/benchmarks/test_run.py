from benchmarks import run
from benchmarks.figures import load
from benchmarks.run import Benchmark
from tests.benchmarks.made import MACHINE, table


def test_what_is_measured_is_printed_and_saved(monkeypatch, capsys, tmp_path):
    asked = []

    def tables(rounds, scratch):
        """Something."""
        assert scratch.is_dir()
        asked.append(rounds)
        return {"table": table({"one": 3.0})}

    path = tmp_path / "figures.json"
    monkeypatch.setattr(run, "BENCHMARKS", {"a": Benchmark(4, tables), "b": Benchmark(5, tables)})
    monkeypatch.setattr(run, "PATH", path)
    monkeypatch.setattr(run, "this_machine", lambda: MACHINE)
    monkeypatch.setattr(run, "apart", lambda work, *arguments: work(*arguments))

    monkeypatch.setattr("sys.argv", ["run", "--save"])
    assert run.main() == 0
    assert asked == [4, 5]
    shown = capsys.readouterr()
    assert "a table" in shown.out
    assert "a: Something." in shown.err
    saved = load(path)
    assert saved.keys() == {"a", "b"}
    assert saved["a"].machine == MACHINE
    assert saved["a"].tables == tables(1, tmp_path)

    monkeypatch.setattr("sys.argv", ["run", "--rounds", "2", "b"])
    path.unlink()
    assert run.main() == 0
    assert asked[-1] == 2
    assert not path.exists()
