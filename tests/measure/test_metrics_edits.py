"""Movement, leakage and the table of edits, by hand and against scipy."""

import pytest
import scipy.linalg
import scipy.stats
import torch

from tests.measure.seeds import rng
from utils.measure.metrics import Interval, edit_rows, edit_table, leakage, movement
from utils.report.tables import markdown_table

# movement, leakage


def test_movement_is_signed_and_in_units_of_the_pairs():
    before = {"age": torch.tensor([0.2, 0.5])}
    after = {"age": torch.tensor([0.6, 0.4])}
    assert movement(before, after, "age", 0.4).tolist() == pytest.approx([1.0, -0.25])
    assert movement(before, after, "age", -0.4).tolist() == pytest.approx([-1.0, 0.25])
    with pytest.raises(ValueError, match=r"one of \['age'\].*found 'smile'"):
        movement(before, after, "smile", 1)
    with pytest.raises(ValueError, match="difference of 0"):
        movement(before, after, "age", 0)


def test_leakage_does_not_let_opposite_drifts_cancel():
    before = {"age": torch.zeros(2), "beard": torch.tensor([0.4, 0.4]), "hair": torch.zeros(2)}
    after = {"age": torch.ones(2), "beard": torch.tensor([0.5, 0.3]), "hair": torch.ones(2)}
    leaks = leakage(before, after, {"age", "hair"})
    assert list(leaks) == ["beard"]
    assert leaks["beard"].tolist() == pytest.approx([0.1, 0.1])
    with pytest.raises(ValueError, match="found none"):
        leakage(before, after, {"age", "hair", "beard"})
    with pytest.raises(ValueError, match="same attributes"):
        leakage(before, {"age": torch.ones(2)}, {"age"})


# edit_table

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)


def readings_of(edit, identities=64):
    """Readings of an editor: `edit(scale, attributes)` changes a world of three attributes."""
    base = {
        name: torch.rand(identities, generator=rng(i)) / 2 for i, name in enumerate(("age", "beard", "smile"))
    }
    return {scale: {**base, **edit(scale, base)} for scale in SCALES}


def test_a_perfect_editor_scores_the_ends_of_the_scales():
    report = edit_table(readings_of(lambda s, a: {"smile": a["smile"] + 0.5 * s}), "smile", 0.5)
    assert report.identities == 64
    assert report.monotone
    assert report.smallest_step == pytest.approx(0.25)
    assert report.moved.mean == pytest.approx(1)
    assert report.moved.low == pytest.approx(report.moved.high)
    assert report.leak == Interval(0, 0, 0)
    assert report.leaks.keys() == {"age", "beard"}
    assert report.spearman.mean == pytest.approx(1, abs=1e-5)
    assert list(report.readings) == list(SCALES)
    assert report.readings[1.0].mean - report.readings[0.0].mean == pytest.approx(0.5)


def test_an_editor_that_does_nothing_scores_the_other_ends():
    report = edit_table(readings_of(lambda s, a: {}), "smile", 0.5)
    assert not report.monotone
    assert report.moved == Interval(0, 0, 0)
    assert report.leak == Interval(0, 0, 0)
    assert report.spearman.mean == pytest.approx(0, abs=1e-5)


def test_leak_and_moved_by_hand():
    def edit(scale, a):
        return {"smile": a["smile"] + 0.3 * scale, "age": a["age"] - 0.1 * scale, "beard": a["beard"] + scale}

    report = edit_table(readings_of(edit), "smile", 0.5)
    assert report.moved.mean == pytest.approx(0.6)
    assert report.leaks["age"].mean == pytest.approx(0.1)
    assert report.leak.mean == pytest.approx((0.1 + 1) / 2)
    assert edit_table(readings_of(edit), "smile", 0.5, changed=["beard"]).leak.mean == pytest.approx(0.1)
    at_half = edit_table(readings_of(edit), "smile", 0.5, scale=0.5)
    assert (at_half.moved.mean, at_half.leaks["age"].mean) == pytest.approx((0.3, 0.05))


def test_an_edit_that_lowers_its_attribute_counts_as_well():
    report = edit_table(readings_of(lambda s, a: {"smile": a["smile"] - 0.4 * s}), "smile", -0.4)
    assert report.monotone
    assert report.moved.mean == pytest.approx(1)
    assert report.spearman.mean == pytest.approx(1, abs=1e-5)


def test_turning_back_is_not_monotone():
    report = edit_table(readings_of(lambda s, a: {"smile": a["smile"] + min(s, 1.6 - s)}), "smile", 1.0)
    assert not report.monotone
    assert report.smallest_step == pytest.approx(-0.15)
    # Within an identity the order is 0, 0.25, 0.5, 1, 0.75: the textbook 1 - 6 sum(d^2) / (n (n^2 - 1)).
    assert report.spearman.mean == pytest.approx(1 - 6 * 2 / (5 * 24), abs=1e-5)


def test_spearman_agrees_with_scipy():
    noise = torch.rand(5, 8, generator=rng(9))
    readings = {s: {"smile": s + 2 * noise[i], "age": torch.zeros(8)} for i, s in enumerate(SCALES)}
    expected = [
        scipy.stats.spearmanr(SCALES, [readings[s]["smile"][i].item() for s in SCALES]).statistic
        for i in range(8)
    ]
    assert edit_table(readings, "smile", 1.0).spearman.mean == pytest.approx(sum(expected) / 8, abs=1e-5)


def test_edit_table_says_what_is_missing():
    readings = readings_of(lambda s, a: {})
    with pytest.raises(ValueError, match=r"scales 0 and 2.*\[2\]"):
        edit_table(readings, "smile", 0.5, scale=2)
    readings[0.5] = {name: values[:3] for name, values in readings[0.5].items()}
    with pytest.raises(ValueError, match=r"same identities.*\(3,\), \(64,\)"):
        edit_table(readings, "smile", 0.5)


# tables


def test_edit_rows_and_markdown():
    good = edit_table(readings_of(lambda s, a: {"smile": a["smile"] + 0.5 * s}), "smile", 0.5)
    idle = edit_table(readings_of(lambda s, a: {}), "age", 0.5)
    header, rows = edit_rows([good, idle])
    assert header == ["edit", "0", "0.25", "0.5", "0.75", "1", "monotone", "moved", "leak", "Spearman"]
    assert rows[0][0] == "smile"
    assert rows[0][6:] == ["yes", "100% [100%, 100%]", "0.000 [0.000, 0.000]", "1.00"]
    assert rows[1][6] == "no (+0.0%)"
    lines = markdown_table(header, rows).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("|:-------|")
    assert lines[1].endswith("---:|")


def test_edit_rows_need_the_same_scales():
    report = edit_table(readings_of(lambda s, a: {}), "age", 0.5)
    fewer = edit_table({s: r for s, r in readings_of(lambda s, a: {}).items() if s in (0, 1)}, "age", 0.5)
    for reports in ([], [report, fewer]):
        with pytest.raises(ValueError, match="at least one report, all at the same scales"):
            edit_rows(reports)


def test_markdown_escapes_and_refuses_ragged_rows():
    assert markdown_table(["a|b", "n"], [["x\ny", "1"]]) == (
        "| a\\|b   |   n |\n|:-------|----:|\n| x y    |   1 |\n"
    )
    with pytest.raises(ValueError, match="2 cells"):
        markdown_table(["a", "b"], [["only one"]])
