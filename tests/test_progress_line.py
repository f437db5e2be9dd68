from __future__ import annotations

import io

from llama_demo.progress_line import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_a_few_in_a_log() -> None:
    for stream, lines, returns in ((Terminal(), 0, 51), (io.StringIO(), 10, 0)):
        now = iter(range(1000))

        def worded(done: int, total: int, seconds: float) -> str:
            return f"{done} of {total}"

        with ProgressLine(worded, stream, lambda now=now: next(now) / 16) as line:  # type: ignore[misc]
            for done in range(0, 101):
                line.report(done, 100)
        assert stream.getvalue().count("\n") == lines
        assert abs(stream.getvalue().count("\r") - returns) <= 2
        assert " of 100" in stream.getvalue()
