"""`elman online forecast`: what it answers, how it is stopped and gone on with, what it refuses."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from elman.cli import main
from elman.online.forecast import Forecaster, ForecastOptions
from elman.online.running import Moments

SMALL = ("--hidden", "4", "--cell", "simple")
NAMES = [
    "line", "target", "prediction", "next", "error", "nmse", "persistence_error",
    "persistence_nmse",
]  # fmt: skip


def series(rows, seed=0, noise=0.05):
    draw = random.Random(seed)
    return [10 + 3 * math.sin(t / 4) + draw.gauss(0, noise) for t in range(rows)]


def table(values, extra=None):
    return "t,y\n" + "".join(f"{t},{v!r}\n" for t, v in enumerate(values))


@pytest.fixture
def call(capsys, monkeypatch):
    """Call the command; the exit code, standard output and standard error."""

    def run_it(*arguments, stdin=None):
        data = b"" if stdin is None else stdin.encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        capsys.readouterr()
        code = main(["online", "forecast", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run_it


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


# -- what it answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, 3])
def test_every_figure_is_what_it_says(call, horizon):
    values = series(60)
    code, out, _ = call("-t", "y", *SMALL, "--horizon", horizon, stdin=table(values))
    rows = rows_of(out)
    assert code == 0
    assert list(rows[0]) == NAMES
    assert [int(row["line"]) for row in rows] == list(range(2, 62))
    assert [float(row["target"]) for row in rows] == values
    # The prediction for a row is what was foretold so many rows before.
    assert all(not row["prediction"] for row in rows[:horizon])
    assert [r["prediction"] for r in rows[horizon:]] == [r["next"] for r in rows[:-horizon]]
    pairs = [(float(r["prediction"]), float(r["target"])) for r in rows[horizon:]]
    squares = [(p - y) ** 2 for p, y in pairs]
    stays = [(a - b) ** 2 for a, b in zip(values[horizon:], values, strict=False)]
    targets = values[horizon:]
    mean = sum(targets) / len(targets)
    variance = sum((y - mean) ** 2 for y in targets) / len(targets)
    last = rows[-1]

    def mean_of(v):
        return sum(v) / len(v)

    assert float(last["nmse"]) == pytest.approx(mean_of(squares) / variance, rel=1e-5)
    assert float(last["error"]) == pytest.approx(math.sqrt(mean_of(squares)), rel=1e-5)
    assert float(last["persistence_nmse"]) == pytest.approx(mean_of(stays) / variance, rel=1e-5)
    assert float(last["persistence_error"]) == pytest.approx(math.sqrt(mean_of(stays)), rel=1e-5)


def test_it_learns_to_beat_persistence():
    forecaster = Forecaster(1, ForecastOptions(hidden=8, lr=0.01))
    for value in series(1500):
        row = forecaster.step((value,))
    assert row.error < 0.4 * row.persistence_error
    assert "of persistence's" in forecaster.verdict()


def test_it_says_when_persistence_is_as_good():
    draw, value = random.Random(1), 0.0
    forecaster = Forecaster(1, ForecastOptions(hidden=4, cell="simple"))
    for _ in range(600):
        value += draw.gauss(0, 1)
        forecaster.step((value,))
    assert "use that" in forecaster.verdict()


def test_nothing_of_rows_to_come_is_used():
    values = series(80)
    other = [*values[:50], *(v * 7 - 3 for v in values[50:])]
    made = []
    for given in (values, other):
        forecaster = Forecaster(1, ForecastOptions(hidden=4, horizon=2))
        made.append([forecaster.step((v,)).next for v in given])
    assert made[0][:50] == made[1][:50]
    assert made[0][50] != made[1][50]


def test_what_the_network_is_given_and_learns(monkeypatch):
    forecaster = Forecaster(2, ForecastOptions(hidden=4, cell="simple"))
    got = []
    # A network that answers 0, so that the prediction is persistence.
    monkeypatch.setattr(forecaster.learner, "step", lambda x, y: got.append((x, y)) or 0.0)
    values = series(30)
    moments = Moments(), Moments()
    for row in ((v, 1e6 + 100 * t) for t, v in enumerate(values)):
        forecaster.step(row)
        for place, (one, value) in enumerate(zip(moments, row, strict=True)):
            one.take(value)
            deviation = math.sqrt(one.variance)
            expected = (value - one.mean) / deviation if deviation else 0.0
            assert got[-1][0][place] == pytest.approx(expected)
    assert forecaster.squares == forecaster.persistence
    changes = [later - now for now, later in pairwise(values)]
    assert got[0][1] is got[1][1] is None  # no change is known yet

    def unit(known):
        return math.sqrt(sum(c * c for c in known) / len(known))

    # A prediction's unit is that of the changes when it was made; the input's is of all.
    assert got[-1][1] == [pytest.approx(changes[-1] / unit(changes[:-1]))]
    assert got[-1][0][2] == pytest.approx(changes[-1] / unit(changes))


def test_missing_values_stay_and_are_not_judged(call):
    values = [*map(str, series(20))]
    values[5] = values[11] = ""
    code, out, err = call("-t", "y", *SMALL, stdin="y,b\n" + "".join(f"{v},1\n" for v in values))
    rows = rows_of(out)
    assert code == 0
    assert (rows[5]["target"], rows[5]["error"]) == ("", rows[4]["error"])
    assert rows[5]["prediction"] != ""
    assert err.count("a value is missing") == 1
    assert "line 7" in err
    assert "2 values missing" in err


def test_jsonl_is_answered_in_jsonl(call):
    lines = [json.dumps({"y": v, "name": "é"}, ensure_ascii=False) for v in series(12)]
    lines[4] = "{broken"
    code, out, err = call("-t", "y", *SMALL, stdin="\ufeff" + "\r\n".join(lines))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert list(rows[0]) == NAMES
    assert [row["line"] for row in rows] == list(range(1, 13))
    assert {v for k, v in rows[4].items() if k != "line"} == {None}
    assert "line 5 was skipped: no JSON" in err


def test_a_semicolon_stays_a_semicolon_and_headers_again_are_passed_over(call):
    text = "a;y\n1;2\n1;3\na;y\n\n1;4\n"
    _, out, _ = call("-t", "y", *SMALL, "--features", "a", stdin=text)
    lines = out.splitlines()
    assert lines[0] == ";".join(NAMES)
    assert [line.split(";")[:2] for line in lines[1:]] == [["2", "2.0"], ["3", "3.0"], ["6", "4.0"]]


@pytest.mark.parametrize("learning", ["rtrl", "snap1", "rflo", "uoro", "truncated"])
@pytest.mark.parametrize("window", [None, 4])
def test_every_way_of_learning(call, learning, window):
    more = [] if window is None else ["--window", window]
    code, out, _ = call("-t", "y", *SMALL, "--learning", learning, *more, stdin=table(series(20)))
    assert (code, len(out.splitlines())) == (0, 21)


def test_a_cell_of_ones_own_in_two_layers(call, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch, elman\n\n@elman.cell\ndef leaky(p, x, h):\n    '''Source: a test.'''\n"
        "    return 0.5 * h + 0.5 * torch.tanh(p.W @ x + p.U @ h + p.b)\n"
    )
    cell = ["--cell", f"{tmp_path / 'mine.py'}:leaky", "--layers", 2, "--hidden", 3]
    text = table(series(30))
    _, whole, _ = call("-t", "y", *cell, stdin=text)
    lines = text.splitlines(keepends=True)
    run = ["--run", tmp_path / "run"]
    code, first, err = call("-t", "y", *cell, *run, stdin="".join(lines[:16]))
    assert (code, "leaky" in err) == (0, True)
    code, second, _ = call(*run, "--resume", stdin="".join(lines[16:]))
    assert code == 0
    assert first + second == whole


# -- stopping and going on ---------------------------------------------------------------------


def start(*arguments, **options):
    words = [sys.executable, "-m", "elman", "online", "forecast", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, **options)


def wait_for(path: Path, lines: int, process):
    until = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.005)


def test_stopped_and_killed_it_goes_on_to_the_same_bytes(call, tmp_path):
    data = tmp_path / "s.csv"
    data.write_text(table(series(3000)))
    whole, output, run = tmp_path / "whole.csv", tmp_path / "out.csv", tmp_path / "run"
    assert call("-t", "y", *SMALL, "--input", data, "--output", whole)[0] == 0
    process = start(
        "-t", "y", *SMALL, "--input", data, "--output", output, "--run", run, "--every", 200
    )
    wait_for(output, 900, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    said = process.stderr.read().decode()
    process.stderr.close()
    stopped = output.read_bytes().count(b"\n")
    assert f"stopped by SIGTERM after line {stopped:,}, and saved" in said
    process = start("--run", run, "--resume", "--every", 200)
    wait_for(output, stopped + 500, process)
    process.kill()
    process.wait()
    process.stderr.close()
    assert output.read_bytes().count(b"\n") < 3001
    with output.open("ab") as file:  # what a crash may leave
        file.write(b"12,34" * 50_000)
    code, _, err = call("--run", run, "--resume")
    assert code == 0
    assert "going on after line" in err
    assert output.read_bytes() == whole.read_bytes()


def test_what_was_read_ahead_of_a_pipe_is_not_lost(call, tmp_path):
    text = table(series(300)).encode()
    _, whole, _ = call("-t", "y", *SMALL, stdin=text.decode())
    read, write = os.pipe()
    output = tmp_path / "out.csv"
    with output.open("wb") as out:
        process = start("-t", "y", *SMALL, "--run", tmp_path / "run", stdin=read, stdout=out)
        os.write(write, text[:3001])
        wait_for(output, 20, process)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1].decode()
        assert process.returncode == 130
        assert "saved with what was read ahead" in said
        assert "from its byte 3,002 on (tail -c +3002 of the same data)" in said
        os.write(write, text[3001:])
        os.close(write)
        process = start("--run", tmp_path / "run", "--resume", stdin=read, stdout=out)
        said = process.communicate()[1].decode()
        assert process.returncode == 0
        assert re.search(
            r"going on after line \d+ .*; [\d,]+ bytes that were read ahead come first", said
        )
    os.close(read)
    assert output.read_text() == whole


def test_a_run_has_one_process(call, tmp_path):
    run, asked = tmp_path / "run", ("-t", "y", *SMALL)
    process = start(
        *asked, "--run", run, "--every", 1, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdin.write(b"y\n1\n2\n")
    process.stdin.flush()
    for _ in range(3):
        process.stdout.readline()
    until = time.monotonic() + 60
    while not (run / "online.safetensors").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for more in (("--overwrite", *asked), ("--resume",)):
        code, _, err = call(*more, "--run", run, stdin="y\n1\n")
        assert code == 2
        assert "another process is at work on this run" in err
    assert process.communicate()[0] == b""
    assert call("--resume", "--run", run, stdin="")[0] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_behind_standard_output_is_said():
    with Path("/dev/full").open("wb") as full:
        process = start("-t", "y", *SMALL, stdin=subprocess.PIPE, stdout=full)
        _, err = process.communicate(b"y\n1\n2\n")
    assert process.returncode == 2
    assert b"elman: standard output: cannot be written: No space left" in err


def test_the_weight_of_the_influence_is_said(call):
    code, _, err = call("-t", "y", *SMALL, stdin="y\n1\n2\n")
    assert code == 0
    assert re.search(
        r"carried exactly; its influence on the state weighs [\d.]+ (KiB|bytes)\.", err
    )


def test_a_pipe_sees_each_answer_at_once():
    process = start("-t", "y", *SMALL, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"y\n1\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"line,target")
    assert process.stdout.readline().startswith(b"2,1.0,,1")
    process.stdin.write(b"3\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"3,3.0,1,3")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143
    assert b"nothing is kept" in err


def test_a_source_that_grew_is_gone_on_with(call, tmp_path):
    data, run = tmp_path / "s.csv", tmp_path / "run"
    lines = table(series(40)).splitlines(keepends=True)
    data.write_text("".join(lines[:20]))
    _, first, _ = call("-t", "y", *SMALL, "--input", data, "--run", run)
    data.write_text("".join(lines))
    _, second, _ = call("--run", run, "--resume")
    data.write_text("".join(lines))
    assert first + second == call("-t", "y", *SMALL, "--input", data)[1]
    data.write_text("t,y\n1,2\n")
    code, _, err = call("--run", run, "--resume")
    assert code == 2
    assert "it was cut" in err


def test_the_rate_may_change_on_the_way_and_nothing_else(call, tmp_path):
    run = ["--run", tmp_path / "run"]
    lines = table(series(60)).splitlines(keepends=True)
    call("-t", "y", *SMALL, *run, stdin="".join(lines[:30]))
    code, _, err = call(*run, "--resume", "--hidden", 5, stdin="")
    assert (code, "begun with 4" in err) == (2, True)
    code, _, err = call(*run, "--resume", "-t", "t", stdin="")
    assert (code, "the run forecasts 'y'" in err) == (2, True)
    state = (tmp_path / "run" / "online.safetensors").read_bytes()
    rest = "".join(lines[30:])
    _, same, _ = call(*run, "--resume", "--hidden", 4, "--seed", 0, stdin=rest)
    (tmp_path / "run" / "online.safetensors").write_bytes(state)
    code, other, _ = call(*run, "--resume", "--lr", 0.3, stdin=rest)
    assert code == 0
    assert [row.split(",")[1] for row in same.splitlines()] == [
        row.split(",")[1] for row in other.splitlines()
    ]
    assert same != other


@pytest.mark.parametrize("arguments", [["online"], ["online", "forecast", "--help"]], ids=len)
def test_help(capsys, arguments):
    assert main(arguments) == 0
    assert "tail -n +1 -f sensor.csv" in capsys.readouterr().out


# -- what it refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["-t", "x"], "t,y\n1,2\n", "no column 'x'. There are: t, y."),
        (["-t", "y"], "", "is empty (0 bytes)"),
        (["-t", "y"], "t,y\n", "1 lines, and no row of numbers among them"),
        (["-t", "y"], "1,2\n3,4\n", "tail -n +1 -f FILE"),
        (["-t", "y"], "y\n" + "red\n" * 200, "line 101: none of the first 100 rows"),
        (["-t", "y", "--strict"], "y\n1\nx\n2\n", "line 3: y is no number: 'x'"),
        ([], "y\n1\n", "name the column to forecast"),
        (["-t", "y", "--resume"], "", "--resume needs the folder"),
        (["-t", "y", "--cell", "lstn"], "y\n1\n", "Did you mean"),
        (["-t", "y", "--learning", "rtlr"], "y\n1\n", "learning"),
        (["-t", "y", "--hidden", "0"], "y\n1\n", "hidden"),
        (["-t", "y", "--lr", "nan"], "y\n1\n", "lr"),
        (["-t", "y", "--window", "-1"], "y\n1\n", "window"),
        (["-t", "y", "--input", "/nowhere/x.csv"], "", "there is no such file"),
    ],
)
def test_one_line_and_exit_code_2(call, arguments, stdin, words):
    code, out, err = call(*arguments, stdin=stdin)
    last = err.strip().splitlines()[-1]
    assert code == 2
    assert words in last
    assert last.startswith("elman: ")
    assert not out or out.startswith("line,")


def test_bad_lines_are_skipped_said_and_counted(call):
    good = [f"{v}" for v in series(40)]
    lines = [*good[:10], *["x"] * 15, *good[10:]]
    code, out, err = call("-t", "y", *SMALL, stdin="y\n" + "\n".join(lines))
    assert code == 0
    assert err.count("was skipped") == 10
    assert "line 12 was skipped: y is no number: 'x'." in err
    assert "15 skipped" in err
    rows = rows_of(out)
    assert len(rows) == 55
    assert all(not row["next"] for row in rows[10:25])
    # Skipped lines are no rows: the answers are those of a table without them.
    _, plain, _ = call("-t", "y", *SMALL, stdin="y\n" + "\n".join(good))
    kept = [list(row.values())[1:] for row in rows if row["next"]]
    assert kept == [list(row.values())[1:] for row in rows_of(plain)]


def test_what_is_there_is_not_written_over(call, tmp_path):
    data, run, output = tmp_path / "s.csv", tmp_path / "run", tmp_path / "o.csv"
    data.write_text(table(series(10)))
    begin = ["-t", "y", *SMALL, "--input", data, "--run", run, "--output", output]
    assert call(*begin)[0] == 0
    before = output.read_bytes()
    code, _, err = call(*begin)
    assert (code, "already holds a run" in err) == (2, True)
    code, _, err = call(*begin[:-4], "--output", output)
    assert (code, "is there already" in err) == (2, True)
    code, _, err = call(*begin[:-4], "--output", data)
    assert (code, "read and written at once" in err) == (2, True)
    assert output.read_bytes() == before
    assert call(*begin, "--overwrite")[0] == 0
    assert output.read_bytes() == before
    output.write_bytes(before[:50])
    code, _, err = call("--run", run, "--resume")
    assert (code, "was cut or taken away" in err) == (2, True)


def test_a_damaged_state_is_refused(call, tmp_path):
    run = tmp_path / "run"
    call("-t", "y", *SMALL, "--run", run, stdin=table(series(10)))
    state = run / "online.safetensors"
    data = bytearray(state.read_bytes())
    data[-5] ^= 1
    state.write_bytes(bytes(data))
    code, _, err = call("--run", run, "--resume", stdin="")
    assert (code, "checksum" in err) == (2, True)
    assert call("--run", tmp_path / "none", "--resume", stdin="")[0] == 2
