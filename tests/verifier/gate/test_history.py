"""A history keeps every run whole, whoever writes at once, and never changes how a run ends."""

from __future__ import annotations

import datetime as dt
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests import samples
from tests.verifier.gate.conftest import against_a_recording
from verifier.errors import CannotRunError, OutputError, UsageError
from verifier.gate.exporting import save_frame
from verifier.gate.history import MIGRATIONS, VARIABLE, append, keep, opened, place
from verifier.gate.recall import Selection, frame, recall
from verifier.records import CellResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.storage.saving import Verification

pytestmark = pytest.mark.usefixtures("outside")

ROOT = Path(__file__).parents[3]

WRITER = """
import sys
from pathlib import Path
from tests import samples
from verifier.gate.history import append
import msgspec
result = samples.deep(40)
for number in range(int(sys.argv[3])):
    append(msgspec.structs.replace(result, command=f"{sys.argv[2]} {number}"), Path(sys.argv[1]))
    print(number, flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "place" / "history.sqlite"


def at(commit: str, verification: Verification | None = None, **fields: Any) -> Verification:
    found = samples.verification() if verification is None else verification
    environment = msgspec.structs.replace(found.environment, commit=commit, dirty=False)
    return msgspec.structs.replace(found, environment=environment, **fields)


def test_a_certificate_goes_by_its_file_and_what_differs_stands_for_a_cause(file: Path) -> None:
    append(against_a_recording(), file)

    [timeline] = recall(file, Selection()).timelines

    [run] = timeline.runs
    assert (run.baseline, run.cause, run.code) == ("kept/net.safetensors", "eps 0.001, baseline 1e-05", "")


def test_what_was_kept_comes_back(file: Path) -> None:
    result = at("abc1234", samples.diverged(), command="python -m verifier run", seed=2**63 - 1)
    assert append(result, file) == 1

    [timeline] = recall(file, Selection(site="*")).timelines

    [run] = timeline.runs
    assert (run.number, run.commit, run.dirty, run.verdict) == (1, "abc1234", False, Verdict.DIVERGED)
    assert (run.baseline, run.candidate) == (result.baseline.spec, result.candidate.spec)
    assert (run.torch, run.processor, run.devices) == ("2.11", "Imaginary CPU", "cpu")
    assert (run.first, run.cause, run.code) == ("bn1", "eps is 0.001 instead of 1e-05", "batchnorm-eps")
    assert (run.command, run.seed) == (result.command, result.seed)
    rows = {(cell.name, row.baseline): row for cell in result.cells for row in cell.layers}
    assert {(line.cell, line.site) for line in timeline.lines} == set(rows)
    for line in timeline.lines:
        row, [(number, point)] = rows[line.cell, line.site], line.points
        assert number == 1
        assert row.total is not None
        assert row.budget is not None
        assert (line.op, point.status, point.row) == (row.op, row.status, row.index)
        assert (point.total, point.total_mse) == (row.total.nrmse, row.total.mse)
        assert point.intrinsic == (row.intrinsic.nrmse if row.intrinsic else None)
        assert (point.allowed_total, point.allowed_intrinsic) == (row.budget.total, row.budget.intrinsic)


@pytest.mark.parametrize("error", [math.nan, math.inf, 0.0, 5e-324, 1.7976931348623157e308])
def test_figures_are_kept_to_the_bit_and_nan_is_not_what_was_not_measured(file: Path, error: float) -> None:
    row = samples.pair(0, total=1.0, intrinsic=None)
    total = msgspec.structs.replace(samples.comparison(0.0), nrmse=error, mse=error)
    row = msgspec.structs.replace(row, total=total)
    cell = CellResult(
        name="cpu/float64", role="semantics", verdict=Verdict.DIVERGED, batch_size=2, layers=(row,)
    )
    append(samples.verification(cells=(cell,)), file)

    [timeline] = recall(file, Selection(site="*")).timelines
    [(_, point)] = timeline.lines[0].points

    assert point.intrinsic is None
    assert point.total is not None
    assert repr(point.total) == repr(point.total_mse) == repr(float(error))


def test_texts_that_cannot_be_encoded_are_spelt_out(file: Path) -> None:
    append(at("abc", command="run --out \udcff'; DROP TABLE runs; --"), file)
    [timeline] = recall(file, Selection()).timelines
    assert timeline.runs[0].command == "run --out \\udcff'; DROP TABLE runs; --"


def test_rows_are_small(file: Path) -> None:
    """A network of 175 sites in two cells, a thousand times, fits into what a repository may hold beside it."""
    result = samples.deep(175)
    sites = sum(len(cell.layers) for cell in result.cells)
    sizes = []
    for _ in range(3):
        for _ in range(10):
            append(result, file)
        sizes.append(file.stat().st_size)
    assert (sizes[2] - sizes[1]) / 10 / sites < 100  # bytes


def started(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), name, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_of_eight_processes_that_append_at_once_one_of_which_is_killed_nothing_is_lost_nor_torn(
    file: Path,
) -> None:
    count = 40
    writers = {str(number): started(file, str(number), count) for number in range(8)}
    killed = writers["7"]
    assert killed.stdout is not None
    assert killed.stdout.readline() == "0\n"  # it is in the middle of it
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    said = {name: process.communicate(timeout=120) for name, process in writers.items()}
    assert {name: process.returncode for name, process in writers.items() if name != "7"} == dict.fromkeys(
        map(str, range(7)), 0
    ), said
    acknowledged = 1 + len(said["7"][0].splitlines())
    assert killed.returncode == -signal.SIGKILL
    assert acknowledged < count

    with opened(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        kept = [command.split() for (command,) in connection.execute("SELECT command FROM runs ORDER BY id")]
        sites = connection.execute(
            "SELECT DISTINCT count(*) FROM cells JOIN sites ON cell = cells.id GROUP BY run"
        ).fetchall()
    for name in map(str, range(8)):
        own = [int(number) for writer, number in kept if writer == name]
        assert own == list(range(len(own)))
        expected = (
            (acknowledged, acknowledged + 1) if name == "7" else (count,)
        )  # killed before it could say so
        assert len(own) in expected
    assert sites == [(sum(len(cell.layers) for cell in samples.deep(40).cells),)]


def test_a_writer_that_dies_inside_its_transaction_leaves_nothing(file: Path) -> None:
    append(at("abc"), file)
    dying = f"""
import os, signal
from pathlib import Path
from verifier.gate.history import opened
with opened(Path({str(file)!r})) as connection:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM runs")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", dying], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert append(at("def"), file) == 2
    assert [run.commit for run in recall(file, Selection()).timelines[0].runs] == ["abc", "def"]


def test_a_history_of_a_newer_version_is_refused_in_a_sentence(file: Path) -> None:
    append(at("abc"), file)
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = file.read_bytes()
    for refused in (lambda: append(at("def"), file), lambda: recall(file, Selection())):
        with pytest.raises(
            OutputError, match=r"newer version of this package \(schema 99, this one knows up to 1\)"
        ):
            refused()
    assert file.read_bytes() == before


def test_an_older_history_is_brought_up_to_date(file: Path) -> None:
    append(at("abc"), file)
    later = (*MIGRATIONS, ("ALTER TABLE runs ADD COLUMN mood TEXT", "UPDATE runs SET mood = 'calm'"))
    for _ in range(2):
        with opened(file, later) as connection:
            assert connection.execute("SELECT git_commit, mood FROM runs").fetchall() == [("abc", "calm")]


def test_a_migration_that_fails_changes_nothing(file: Path) -> None:
    append(at("abc"), file)
    wrong = (*MIGRATIONS, ("ALTER TABLE runs ADD COLUMN mood TEXT", "UPDATE nothing SET mood = 'calm'"))
    with pytest.raises(sqlite3.Error, match="nothing"), opened(file, wrong):
        pass
    assert [run.commit for run in recall(file, Selection()).timelines[0].runs] == ["abc"]
    assert append(at("def"), file) == 2


def foreign(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (foreign, "is a database of another program"),
        (lambda file: file.write_text("my notes, " * 200), "file is not a database"),
        (lambda file: file.mkdir(), "unable to open database file"),
    ],
)
def test_what_is_no_history_is_left_alone_and_changes_no_run(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    file = tmp_path / "history.sqlite"
    make(file)
    before = file.read_bytes() if file.is_file() else None
    [warning] = keep(at("abc"), file)
    assert warning.startswith(f"this run is not in the history: {file}")
    assert said in warning
    assert (file.read_bytes() if file.is_file() else None) == before


def test_a_damaged_history_is_told(file: Path) -> None:
    for _ in range(20):
        append(samples.deep(100), file)
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)
    [warning] = keep(at("abc"), file)
    assert str(file) in warning
    with pytest.raises(OutputError, match="cannot be read"):
        recall(file, Selection())


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [warning] = keep(at("abc"), tmp_path / "file" / "history.sqlite")
    assert "cannot be written" in warning
    assert "--no-history" in warning
    assert keep(at("abc"), None) == ()


def test_what_does_not_fit_is_a_warning_and_nothing_of_it_is_kept(file: Path) -> None:
    append(at("abc"), file)
    [warning] = keep(at("def", seed=2**70), file)
    assert "OverflowError" in warning
    assert append(at("ghi"), file) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_history_that_may_only_be_read_is_read(file: Path) -> None:
    append(at("abc"), file)
    file.chmod(0o400)
    file.parent.chmod(0o500)
    try:
        assert [run.commit for run in recall(file, Selection()).timelines[0].runs] == ["abc"]
        assert len(keep(at("def"), file)) == 1
    finally:
        file.parent.chmod(0o700)


def test_where_the_history_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    assert place() is None  # no repository, nothing is kept unasked
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert place() == tmp_path / ".git" / "verifier" / "history.sqlite"
    monkeypatch.setenv(VARIABLE, "elsewhere.sqlite")
    assert place() == Path("elsewhere.sqlite")
    assert place(Path("named")) == Path("named")
    assert place(never=True) is None
    monkeypatch.setenv(VARIABLE, "off")
    assert place() is None


def test_runs_are_chosen(file: Path) -> None:
    small = msgspec.structs.replace(samples.diverged().candidate, spec="small.py:build")
    append(at("a", created="2026-01-01T00:00:00+00:00"), file)
    append(at("b", samples.diverged(), created="2026-01-02T00:00:00+00:00"), file)
    append(at("c", created="2026-01-03T00:00:00+00:00", candidate=small), file)

    def listed(**asked: Any) -> list[int]:
        return list(recall(file, Selection(**asked)).listed)

    assert listed() == [1, 2, 3]
    assert listed(model="small.py") == listed(model="small.*") == [3]
    assert listed(verdict="diverged") == [2]
    assert listed(since="2026-01-02T00:00:00+00:00") == [2, 3]
    assert listed(since="1h") == []
    assert listed(last=1) == [3]
    assert listed(branch="main") == []
    for wrong in ({"verdict": "good"}, {"since": "yesterday"}, {"since": "99999999w"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            listed(**wrong)


def test_a_time_that_is_none_names_one_that_has_been(file: Path) -> None:
    append(at("a"), file)
    with pytest.raises(UsageError) as refused:
        recall(file, Selection(since="yesterday"))
    [example] = re.findall(r"\d{4}-\d\d-\d\d", str(refused.value))
    recall(file, Selection(since=example))
    assert dt.date.fromisoformat(example) < dt.date(2026, 1, 1)


def test_what_is_listed_does_not_change_what_is_compared(file: Path) -> None:
    for commit, result in (
        ("a", samples.verification()),
        ("b", samples.diverged()),
        ("c", samples.diverged()),
    ):
        append(at(commit, result), file)
    whole, part = recall(file, Selection()), recall(file, Selection(last=1, verdict="diverged"))
    assert part.listed == (3,)
    assert part.timelines == whole.timelines
    assert whole.timelines[0].verdicts == (2,)


def test_sites_are_named_by_pattern_name_or_module(file: Path) -> None:
    append(at("abc"), file)

    def named(pattern: str) -> list[str]:
        return [line.site for line in recall(file, Selection(site=pattern)).timelines[0].lines]

    assert named("bn1") == ["bn1"]
    assert named("layer1") == ["layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu"]
    assert named("*conv1") == ["conv1", "layer1.0.conv1"]
    assert named("nothing") == []


def test_a_history_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no history at"):
        recall(tmp_path / "history.sqlite", Selection())
    assert list(tmp_path.iterdir()) == []


def test_a_frame_has_a_row_a_run_cell_and_site(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [at("a"), at("b", samples.diverged())]
    for result in results:
        append(result, file)
    found = frame(file, Selection())
    assert len(found) == sum(len(cell.layers) for result in results for cell in result.cells)
    assert list(found["number"].unique()) == [1, 2]
    assert found["total"].dtype == found["allowed_intrinsic"].dtype == "float64"
    chosen = frame(file, Selection(site="bn1", cell="cpu/float64"))
    assert list(chosen["intrinsic"]) == [5e-4]

    monkeypatch.setenv(VARIABLE, str(file))
    assert frame().equals(found)
    assert frame(str(file)).equals(found)

    save_frame(found, tmp_path / "all.csv")
    import pandas as pd

    back = pd.read_csv(tmp_path / "all.csv")
    assert list(back["total"]) == list(found["total"])
    assert list(back["commit"]) == list(found["commit"])


def test_parquet_needs_pyarrow(file: Path, tmp_path: Path) -> None:
    append(at("abc", samples.diverged()), file)
    found = frame(file, Selection())
    target = tmp_path / "all.parquet"
    try:
        import pyarrow.parquet
    except ImportError:
        with pytest.raises(CannotRunError, match=r"pip install 'parity-verifier\[parquet\]'"):
            save_frame(found, target)
        assert not target.exists()
    else:
        save_frame(found, target)
        back = pyarrow.parquet.read_table(target).to_pandas()
        assert list(back["total"]) == list(found["total"])


def test_other_tables_are_refused(file: Path, tmp_path: Path) -> None:
    append(at("abc"), file)
    with pytest.raises(UsageError, match=r"ends in \.csv or \.parquet"):
        save_frame(frame(file, Selection()), tmp_path / "all.xlsx")
