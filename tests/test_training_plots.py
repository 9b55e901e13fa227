"""The pictures of a run say what its report says, and name only what can be seen."""

from __future__ import annotations

import json

import pytest
from training_toy import Toy

from elman import plots
from elman.plots import runs
from elman.training import train
from elman.training.folder import RunFolder


@pytest.fixture
def legends(monkeypatch):
    """The labels of each picture, by its file's name."""
    found: dict[str, list[str]] = {}

    def keep(figure, path):
        found[path.name] = figure.axes[0].get_legend_handles_labels()[1]

    monkeypatch.setattr(runs, "save", keep)
    return found


def test_the_legend_has_the_final_figure(tmp_path, legends):
    run = train(Toy(), run=tmp_path / "run", steps=4, device="cpu", precision="32", quiet=True).run
    result = RunFolder(run).result
    record = json.loads(result.read_text())
    record["metrics"]["nats_per_char"] = 1.1464
    result.write_text(json.dumps(record))
    plots.of_run(run)
    assert "validation (best 1.146)" in legends["training.png"]
    result.unlink()
    plots.of_run(run)
    assert "validation (best 1.146)" not in legends["training.png"]


@pytest.mark.parametrize(("largest", "shown"), [(1.0, False), (1.5, True)])
def test_a_band_that_cannot_be_seen_has_no_label(tmp_path, legends, largest, shown):
    rows = [{"step": s, "gradient_norm": 1.0, "gradient_norm_max": largest} for s in (1, 2)]
    plots.gradients(rows, tmp_path / "gradients.png")
    assert ("up to the largest" in legends["gradients.png"]) == shown


def test_the_norms_of_groups_and_states_have_their_curves(tmp_path, legends):
    rows = [
        {"step": s, "gradient_norm": 1.0, "gradient_norm_max": 1.0, "state_norm": 0.5,
         "gradient_norms": {"rnn.recurrent": 0.5} | ({"readout": 0.1} if s > 1 else {})}
        for s in (1, 2, 3)
    ]  # fmt: skip
    plots.gradients(rows, tmp_path / "gradients.png")
    assert {"rnn.recurrent", "readout", "mean norm of a state"} <= set(legends["gradients.png"])
