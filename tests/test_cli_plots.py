"""The pictures of a run: what they need, and that any name can stand above them."""

import json

import numpy as np
import pytest

from elman import plots
from elman.errors import FileError
from elman.plots import runs

PNG = b"\x89PNG"


def _rows(steps):
    rng = np.random.default_rng(0)
    train = [
        {
            "kind": "train",
            "step": step,
            "loss": 1.5 + 2 / step + 0.05 * rng.random(),
            "gradient_norm": 0.5 + rng.random(),
            "gradient_norm_max": 2.0 + rng.random(),
        }
        for step in range(1, steps + 1)
    ]
    every = max(steps // 10, 1)
    validation = [
        {"kind": "validation", "step": row["step"], "nats_per_char": row["loss"] + 0.1}
        for row in train[every - 1 :: every]
    ]
    return train, validation


@pytest.mark.parametrize("title", ["novel", "唐詩三百首", "тест", "…/%$x_{^$", ""])
@pytest.mark.parametrize("steps", [1, 2, 300])
def test_pictures_of_a_training(tmp_path, title, steps):
    train, validation = _rows(steps)
    baseline = ("Kneser-Ney of order 6", 1.6)
    plots.training(train, validation, tmp_path / "a.png", baseline=baseline, title=title)
    plots.training(train, [], tmp_path / "b.png", title=title)
    plots.gradients(train, tmp_path / "c.png", clip_norm=1.0, title=title)
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)


def test_the_smooth_curve_keeps_lines_and_ends():
    line = np.linspace(3.0, 1.0, 401)
    np.testing.assert_allclose(runs._smooth(line), line, atol=1e-12)
    noisy = line + np.random.default_rng(0).normal(size=401)
    smooth = runs._smooth(noisy)
    assert smooth[0] == noisy[0]
    assert smooth.shape == noisy.shape
    assert (smooth - line).std() < 0.5 * (noisy - line).std()


def test_a_folder_without_metrics_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"metrics\.jsonl: no such file"):
        plots.of_run(tmp_path)


def test_a_damaged_result_is_refused(tmp_path):
    from elman.training.folder import RunFolder

    run = RunFolder(tmp_path)
    run.result.write_text(json.dumps({"metrics": {}}))
    with pytest.raises(FileError, match=r"result\.json: damaged"):
        runs._baseline(run, "nats_per_char")
