"""utils/errors.py: exit statuses and the nearest word."""

import pytest

from utils.errors import UserError, nearest, run_cli


def test_a_user_error_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserError("pairs/a.png: expected an image, found an empty file")

    with pytest.raises(SystemExit) as caught:
        run_cli(main)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: pairs/a.png: expected an image, found an empty file\n")


@pytest.mark.parametrize(("status", "code"), [(None, 0), (0, 0), (1, 1)])
def test_main_gives_the_status(status: int | None, code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        run_cli(lambda: status)
    assert caught.value.code == code


def test_an_interrupt_is_130_and_a_fault_of_ours_keeps_its_traceback() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_cli(interrupted)
    assert caught.value.code == 130
    with pytest.raises(ZeroDivisionError):
        run_cli(lambda: 1 // 0)


def test_nearest() -> None:
    assert (
        nearest("traim_iteration", ["train_iteration", "train_start"]) == " (did you mean 'train_iteration'?)"
    )
    assert nearest("xyz", ["train_iteration"]) == ""


def test_a_fault_is_one_line_whatever_was_found():
    assert str(UserError("a.png: expected\na key, found \x85 \x1b[31m é")) == (
        "a.png: expected a key, found   \\x1b[31m é"
    )
