"""The ledger judges as it says, and the page says what the results say."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
EXAMPLES, DOCS = ROOT / "examples", ROOT / "docs"


@pytest.fixture(autouse=True, scope="module")
def examples():
    """The examples are scripts beside each other: they are found where they lie."""
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 10, 11, 15, 40])
def test_student_is_the_point_of_its_density(freedom):
    """97.5 % of the density lies below, by the midpoint rule in the variable t = tan φ."""
    from ledger import student

    start, end = -math.pi / 2, math.atan(student(freedom))
    width = (end - start) / 200_000
    angle = start + width * (torch.arange(200_000).double() + 0.5)
    t = torch.tan(angle)
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    log = constant - 0.5 * math.log(freedom * math.pi)
    log = log - (freedom + 1) / 2 * torch.log1p(t.square() / freedom)
    share = width * (log - 2 * torch.log(torch.cos(angle))).exp().sum()
    assert share.item() == pytest.approx(0.975, abs=2e-6)


def test_interval_covers_as_often_as_it_says():
    """Of 4,000 samples of five normal numbers about 95 % have the mean in their interval."""
    from ledger import interval

    draws = torch.randn(4000, 5, generator=torch.Generator().manual_seed(1)) * 3 + 7
    inside = sum(low < 7 < high for _, low, high in (interval(row.tolist()) for row in draws))
    assert inside / 4000 == pytest.approx(0.95, abs=0.011)


def test_interval_of_logarithms_and_of_what_has_none():
    from ledger import interval

    mean, low, high = interval([1.0, 10.0, 100.0], log=True)
    assert mean == pytest.approx(10.0)
    assert low * high == pytest.approx(100.0)
    with pytest.raises(ValueError, match="no logarithm"):
        interval([0.0, 1.0], log=True)
    with pytest.raises(ValueError, match="not finite"):
        interval([math.nan, 1.0])
    with pytest.raises(ValueError, match="two seeds"):
        interval([1.0])


def claim(*parts):
    from ledger import Claim

    return Claim("w", "s", "t", parts, measure=lambda seed, full: None, draw=lambda *_: None)


def test_verdict_follows_from_intervals_alone():
    from ledger import Part, verdict

    numbers = {"sure": [1.0, 1.1, 0.9], "wide": [1.0, 3.0, -1.0]}
    sure, wide = Part("sure", "calm", above=0.5), Part("wide", "wild", above=0.5)
    assert verdict(claim(sure), numbers) == "holds"
    assert verdict(claim(wide), numbers) == "does not hold"
    assert verdict(claim(sure, wide), numbers) == "holds when calm; not shown when wild"
    below = Part("sure", "calm", below=0.5)
    for parts in ((sure, below), (below, sure)):
        assert verdict(claim(*parts), numbers) == "does not hold"
    between = Part("sure", "calm", above=0.5, below=1.5)
    assert verdict(claim(between, wide), numbers) == "holds when calm; not shown when wild"


def test_script_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    import weight_gradient_sum
    from ledger import main

    monkeypatch.setattr(
        sys, "argv", ["weight_gradient_sum.py", "--seeds", "2", "--out", str(tmp_path)]
    )
    threads = torch.get_num_threads()
    try:
        main(weight_gradient_sum.CLAIM)
    finally:
        torch.set_num_threads(threads)
    assert "Verdict: holds" in capsys.readouterr().out
    data = json.loads((tmp_path / "weight_gradient_sum.json").read_text(encoding="utf-8"))
    assert data["seeds"] == 2
    assert len(data["values"]["relative error of the double sum"]) == 2
    assert (tmp_path / "weight_gradient_sum.png").read_bytes().startswith(b"\x89PNG")


def test_one_seed_is_refused(monkeypatch, capsys):
    from ledger import main

    monkeypatch.setattr(sys, "argv", ["x.py", "--seeds", "1"])
    with pytest.raises(SystemExit):
        main(claim())
    assert "an interval needs 2 or more" in capsys.readouterr().err


def test_every_script_is_a_claim_or_serves_one():
    from make_ledger import CLAIMS, FULL

    scripts = {p.stem for p in EXAMPLES.glob("*.py") if "main(CLAIM)" in p.read_text("utf-8")}
    assert scripts == set(CLAIMS)
    told = {name for name in scripts if "full=True" in (EXAMPLES / f"{name}.py").read_text("utf-8")}
    assert told == set(FULL)


def test_page_is_that_of_the_results():
    """docs/claims.md is made from docs/claims/*.json: verdicts and numbers cannot drift apart."""
    from make_ledger import CLAIMS, page, results

    data = results(DOCS / "claims")
    assert {each["name"] for each in data} == set(CLAIMS)
    assert (DOCS / "claims.md").read_text(encoding="utf-8") == page(data)


def test_results_are_judged_by_the_scripts_as_they_stand():
    """The bounds of today's scripts on the kept numbers give the kept verdicts."""
    from importlib import import_module

    from ledger import verdict
    from make_ledger import CLAIMS, results

    seen = set()
    for data in results(DOCS / "claims"):
        module = import_module(data["name"])
        assert data["seeds"] >= 5
        assert data["claim"] == module.CLAIM.words
        assert data["setting"] == module.CLAIM.setting
        assert data["verdict"] == verdict(module.CLAIM, data["values"])
        seen.add(data["name"])
    assert seen == set(CLAIMS)


def test_pictures_are_there():
    text = (DOCS / "claims.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\((claims/[a-z_.]+png)\)", text)
    assert len(pictures) >= 36
    assert all((DOCS / name).exists() for name in pictures)
