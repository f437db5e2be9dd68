"""Background jobs: one a name, with speed and time left, cancelled at the next report, failed with a reason."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from llama_demo.errors import Closing, DiskFull, LlamaDemoError
from llama_demo.jobs import JobProgress, Jobs, Kind, Report
from llama_demo.model_errors import JobInProgress
from tests.waiting import PATIENCE_SECONDS


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Reports what the test says, when it says so."""

    def __init__(self) -> None:
        self.begun, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.runs = 0

    def __call__(self, report: Report) -> None:
        self.runs += 1
        self.begun.set()
        try:
            assert self.go.wait(PATIENCE_SECONDS)
            report(1, 2)
        finally:
            self.ended.set()


class Untidy(Work):
    """Once it has ended, it tidies up for as long as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.tidied = threading.Event()

    def __call__(self, report: Report) -> None:
        try:
            super().__call__(report)
        finally:
            assert self.tidied.wait(PATIENCE_SECONDS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(clock: Clock) -> Iterator[Jobs]:
    made = Jobs(clock)
    yield made
    made.close()


def seen(jobs: Jobs, name: str) -> JobProgress:
    progress = jobs.progress(name)
    assert progress is not None
    return progress


def test_speed_and_time_left_are_those_of_the_last_seconds(jobs: Jobs, clock: Clock) -> None:
    told, go_on = threading.Event(), threading.Event()

    def work(report: Report) -> None:
        for now, done in ((0.0, 0), (100.0, 100), (102.0, 300)):
            clock.now = now
            report(done, 1000)
        told.set()
        assert go_on.wait(PATIENCE_SECONDS)

    jobs.start("a", "download", work)
    assert told.wait(PATIENCE_SECONDS)
    progress = seen(jobs, "a")
    assert (progress.done_bytes, progress.total_bytes) == (300, 1000)
    assert progress.bytes_per_second == 100
    assert progress.seconds_left == 7
    go_on.set()


def test_a_second_start_joins_the_first(jobs: Jobs) -> None:
    work = Work()
    jobs.start("a", "convert", work)
    jobs.start("a", "convert", work)
    work.go.set()
    assert work.ended.wait(PATIENCE_SECONDS)
    assert work.runs == 1


@pytest.mark.parametrize(("kind", "asked"), [("push", "there"), ("convert", "elsewhere")])
def test_other_work_is_refused_until_the_first_has_ended_and_does_not_take_back_its_cancelling(
    jobs: Jobs, kind: Kind, asked: str
) -> None:
    work, other = Work(), Work()
    jobs.start("a", "convert", work, "there")
    assert work.begun.wait(PATIENCE_SECONDS)
    jobs.cancel("a")
    with pytest.raises(JobInProgress):
        jobs.start("a", kind, other, asked)
    work.go.set()
    jobs.close()
    assert jobs.progress("a") is None
    assert (work.runs, other.runs) == (1, 0)


def test_cancelling_ends_the_work_at_its_next_report_and_forgets_it(jobs: Jobs) -> None:
    work = Work()
    jobs.start("a", "download", work)
    assert work.begun.wait(PATIENCE_SECONDS)
    jobs.cancel("a")
    work.go.set()
    jobs.close()
    assert work.ended.is_set()
    assert jobs.progress("a") is None


def test_a_start_takes_back_a_cancelling_that_the_work_has_not_heard_of(jobs: Jobs) -> None:
    work, told = Work(), threading.Event()

    def tells(report: Report) -> None:
        work(report)
        told.set()

    jobs.start("a", "download", tells)
    assert work.begun.wait(PATIENCE_SECONDS)
    jobs.cancel("a")
    jobs.start("a", "download", tells)
    work.go.set()
    assert told.wait(PATIENCE_SECONDS)
    assert work.runs == 1


@pytest.fixture
def untidy(jobs: Jobs) -> Iterator[Untidy]:
    """The work of the job `a`, which was cancelled and still tidies up."""
    work = Untidy()
    jobs.start("a", "download", work)
    assert work.begun.wait(PATIENCE_SECONDS)
    jobs.cancel("a")
    work.go.set()
    assert work.ended.wait(PATIENCE_SECONDS)
    yield work
    work.tidied.set()


@pytest.mark.parametrize("kind", ["download", "convert"])
def test_what_starts_while_a_cancelled_job_tidies_up_runs_after_it(jobs: Jobs, untidy: Untidy, kind: Kind) -> None:
    after: list[bool] = []
    done = threading.Event()

    def work(report: Report) -> None:
        after.append(untidy.tidied.is_set())
        report(1, 2)
        done.set()

    jobs.start("a", kind, work)
    jobs.start("a", kind, work)
    assert seen(jobs, "a").kind == kind
    untidy.tidied.set()
    assert done.wait(PATIENCE_SECONDS)
    jobs.close()
    assert after == [True]
    assert jobs.progress("a") is None


def test_what_is_cancelled_before_it_could_begin_never_does_unless_it_is_started_again(
    jobs: Jobs, untidy: Untidy
) -> None:
    work = Work()
    jobs.start("a", "download", work)
    jobs.cancel("a")
    jobs.start("a", "download", work)
    jobs.cancel("a")
    untidy.tidied.set()
    jobs.close()
    assert work.runs == 0
    assert jobs.progress("a") is None


def test_closing_waits_for_what_tidies_up_and_begins_nothing_after_it(jobs: Jobs, untidy: Untidy) -> None:
    work = Work()
    jobs.start("a", "download", work)
    jobs.close(join_seconds=0)
    untidy.tidied.set()
    jobs.close()
    assert work.runs == 0
    assert jobs.progress("a") is None


@pytest.mark.parametrize(
    ("error", "expected"), [(DiskFull("/x", 2, 1), DiskFull), (ValueError("secret"), LlamaDemoError)]
)
def test_what_failed_says_why_until_it_is_dismissed_or_begun_again(
    jobs: Jobs, error: Exception, expected: type[LlamaDemoError]
) -> None:
    def work(report: Report) -> None:
        raise error

    jobs.start("a", "convert", work)
    jobs.close()
    assert type(seen(jobs, "a").error) is expected
    jobs.cancel("a")
    assert jobs.progress("a") is None


def test_after_closing_nothing_begins(jobs: Jobs) -> None:
    jobs.close()
    with pytest.raises(Closing):
        jobs.start("a", "download", Work())
