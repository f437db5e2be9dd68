"""The measuring client against a real Gradio app with a scripted `/chat`, and the arithmetic of its report."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from llama_demo import bench
from llama_demo.bench import BenchPlan, Measured
from llama_demo.bench_client import Ask, GradioClient, OpenAIClient, RequestFailed, edited, events, new_http
from llama_demo.errors import InvalidParameter, NothingToMeasure
from llama_demo.messages import messages
from tests.ports import free_port

PIECES = ("One ", "upon a time", " there was 🦙", ".")


class ScriptedApp:
    """A page whose replies are known, and which remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.url = ""
        self.unhealthy = False

    async def chat(  # noqa: PLR0917 (the public endpoint's arguments)
        self,
        message: str,
        history: list[dict[str, Any]] | None = None,
        model: str = "",
        max_new_tokens: int = 5,
        temperature: float = 0.9,
        seed: int | None = None,
    ) -> AsyncIterator[str]:
        self.asked.append((message, history, model, max_new_tokens, temperature, seed))
        yield ""
        yield PIECES[0]
        if "beekeeper" in message:
            raise gr.Error("the bees got loose", print_exception=False)
        if message == "for ever":
            await asyncio.sleep(60)
        yield "Once "
        text = "Once "
        for piece in PIECES[1:]:
            await asyncio.sleep(0)
            text += piece
            yield text

    def build(self) -> Any:
        with gr.Blocks(analytics_enabled=False) as page:
            kept = gr.State(7)
            said, answer, more = gr.Textbox(), gr.Textbox(), gr.Number()
            gr.Button().click(self.with_state, [kept, said, more], [answer, kept], api_name="with_state")
            gr.api(self.chat, api_name="chat", concurrency_limit=None)
        return page

    def with_state(self, kept: Any, message: str, new_tokens: float) -> Iterator[tuple[str, Any]]:
        yield f"{kept} {message} {new_tokens:g}", kept

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append((body["model"], body["messages"], body["max_tokens"], body["temperature"], body["stream"]))
        if body["messages"][-1]["content"] == "refuse":
            return JSONResponse({"error": "no"}, status_code=400)
        chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in ("", *PIECES)]
        sent = "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks).encode()
        ending = b"" if body["messages"][-1]["content"] == "cut" else b"data: [DONE]\r\n\r\n"
        return StreamingResponse(iter([sent[:25], sent[25:26], sent[26:], ending]), media_type="text/event-stream")

    async def broken(self, request: Request) -> Response:
        """A queue whose pieces are not the whole it ends with, or which ends before its reply does."""
        path = request.path_params["path"]
        if path == "config":
            dependency = {"id": 1, "api_name": "chat", "inputs": [2]}
            return JSONResponse({"dependencies": [dependency], "components": [{"id": 2, "type": "api"}]})
        if path == "gradio_api/info":
            return JSONResponse({"named_endpoints": {"/chat": {"parameters": [{"parameter_name": "message"}]}}})
        if path == "gradio_api/queue/join":
            self.asked.append(tuple((await request.json())["data"]))
            return JSONResponse({"event_id": "x"})
        messages: list[dict[str, Any]] = [{"msg": "process_generating", "success": True, "output": {"data": ["a"]}}]
        if self.asked[-1] == ("torn",):
            messages.append({"msg": "process_completed", "success": True, "output": {"data": ["b"]}})
        return PlainTextResponse("".join(f"data: {json.dumps(message)}\n\n" for message in messages))

    async def models(self, _: Request) -> Response:
        return JSONResponse({"data": [{"id": "first"}, {"id": "second"}]})

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("", status_code=503 if self.unhealthy else 200)


@pytest.fixture(scope="module")
def running() -> Iterator[ScriptedApp]:
    app = ScriptedApp()
    page = app.build()
    routes = [
        Route("/v1/chat/completions", app.completions, methods=["POST"]),
        Route("/v1/models", app.models),
        Route("/broken/{path:path}", app.broken, methods=["GET", "POST"]),
        Route("/health", app.health),
    ]
    _, url, _ = page.launch(
        server_name="127.0.0.1",
        server_port=free_port(),
        ssr_mode=False,
        prevent_thread_lock=True,
        quiet=True,
        app_kwargs={"routes": routes},
    )
    app.url = url.rstrip("/")
    yield app
    page.close(verbose=False)


@pytest.fixture
def app(running: ScriptedApp) -> ScriptedApp:
    running.asked.clear()
    running.unhealthy = False
    return running


def streamed(url: str, ask: Ask, *, endpoint: str = "chat", model: str = "", openai: bool = False) -> list[str]:
    async def read() -> list[str]:
        async with new_http(20) as http:
            if openai:
                texts = (await OpenAIClient.connect(http, url, model)).stream(ask)
            else:
                texts = (await GradioClient.connect(http, url, model, endpoint)).stream(ask)
            return [text async for text in texts]

    return asyncio.run(read())


def test_a_reply_is_put_together_from_gradios_edits_exactly(app: ScriptedApp) -> None:
    whole = "Once upon a time there was 🦙."
    seen = streamed(app.url, Ask("hello", 9))
    assert seen == ["", "One ", "Once ", "Once upon a time", "Once upon a time there was 🦙", whole]


@pytest.mark.parametrize(("message", "words"), [("torn", "do not add up"), ("short", "ended before the reply did")])
def test_pieces_that_are_not_the_whole_reply_are_a_failure(app: ScriptedApp, message: str, words: str) -> None:
    with pytest.raises(RequestFailed, match=words):
        streamed(f"{app.url}/broken", Ask(message, 9))


def test_values_go_to_the_endpoint_by_name_and_the_rest_are_its_defaults(app: ScriptedApp) -> None:
    history = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"})
    streamed(app.url, Ask("hello", 9, history), model="small")
    assert app.asked == [("hello", list(history), "small", 9, 0.0, None)]


def test_state_that_a_page_keeps_for_itself_takes_no_value(app: ScriptedApp) -> None:
    assert streamed(app.url, Ask("hello", 9), endpoint="with_state") == ["7 hello 9"]


def test_visitors_each_ask_their_own_prompts_and_the_totals_add_up(app: ScriptedApp) -> None:
    report = bench.run(BenchPlan(app.url, visitors=3, rounds=2, max_new_tokens=9, first_prompt=30))
    asked = [message for message, *_ in app.asked]
    assert sorted(asked) == sorted(bench.prompt(number) for number in range(30, 36))
    assert (report.visitors, report.requests, report.failures, report.errors) == (3, 6, 0, ())
    assert (report.unit, report.amount) == ("characters", 6 * len("Once upon a time there was 🦙."))
    assert report.per_second == pytest.approx(report.amount / report.wall_seconds)
    assert len(report.decode_rates) == 3
    assert report.first_p50_seconds is not None
    assert report.first_max_seconds is not None
    assert 0 < report.first_p50_seconds <= report.first_max_seconds < report.wall_seconds


def test_a_visitor_sends_its_next_request_only_after_the_last_reply(app: ScriptedApp) -> None:
    bench.run(BenchPlan(app.url, visitors=1, rounds=3, first_prompt=30))
    assert [message for message, *_ in app.asked] == [bench.prompt(number) for number in (30, 31, 32)]


def test_each_visitor_keeps_one_session_as_an_open_page_does() -> None:
    asks = BenchPlan("http://localhost", visitors=3, rounds=4).asks()
    assert [len({ask.session for ask in of_one}) for of_one in asks] == [1, 1, 1]
    assert len({ask.session for of_one in asks for ask in of_one}) == 3


def test_a_failed_request_is_counted_with_its_message_and_adds_nothing_else(app: ScriptedApp) -> None:
    assert "beekeeper" in bench.prompt(1)
    report = bench.run(BenchPlan(app.url, visitors=3))
    assert (report.requests, report.failures, report.errors) == (3, 1, ("the bees got loose",))
    assert report.amount == 2 * len("Once upon a time there was 🦙.")
    assert len(report.decode_rates) == 2


def test_a_reply_that_does_not_end_in_time_is_a_failure(app: ScriptedApp) -> None:
    async def ask() -> Measured:
        async with new_http(20) as http:
            client = await GradioClient.connect(http, app.url)
            return await bench.timed(client, Ask("for ever", 9), 0, timeout_seconds=0.5)

    assert asyncio.run(ask()).error == "no whole reply within 0.5 s"


def test_the_probe_is_timed_while_visitors_are_served_and_its_failures_are_counted(app: ScriptedApp) -> None:
    report = bench.run(BenchPlan(app.url, visitors=2, rounds=3, first_prompt=30, probe="/health"))
    assert report.probe_p95_seconds is not None
    assert report.probe_failures == 0
    app.unhealthy = True
    report = bench.run(BenchPlan(app.url, visitors=2, rounds=3, first_prompt=30, probe="/health"))
    assert report.probe_p95_seconds is None
    assert report.probe_failures


def test_the_openai_api_is_measured_in_the_same_words(app: ScriptedApp) -> None:
    report = bench.run(BenchPlan(app.url, protocol="openai", max_new_tokens=9))
    assert app.asked == [("first", [{"role": "user", "content": bench.prompt(0)}], 9, 0.0, True)]
    assert (report.failures, report.amount) == (0, len("".join(PIECES)))


def test_openai_events_survive_any_cut_and_any_line_ending(app: ScriptedApp) -> None:
    texts = streamed(app.url, Ask("hello", 9), openai=True, model="second")
    assert texts == ["One ", "One upon a time", "One upon a time there was 🦙", "One upon a time there was 🦙."]
    assert app.asked[0][0] == "second"


@pytest.mark.parametrize(("message", "words"), [("refuse", "HTTP 400"), ("cut", "ended before the reply did")])
def test_an_openai_refusal_and_a_cut_stream_fail_with_their_reason(app: ScriptedApp, message: str, words: str) -> None:
    with pytest.raises(RequestFailed, match=words):
        streamed(app.url, Ask(message, 9), openai=True)


def test_events_are_whole_however_the_bytes_are_cut() -> None:
    raw = 'event: x\ndata: {"a":\ndata: "🦙"}\n\n: heartbeat\n\ndata: 2\r\n\r\n'.encode()

    async def read(size: int) -> list[bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(raw), size):
                yield raw[start : start + size]

        return [data async for data in events(chunks())]

    for size in range(1, len(raw) + 1):
        assert asyncio.run(read(size)) == ['{"a":\n"🦙"}'.encode(), b"2"], size


def test_edits_append_replace_and_refuse_what_is_no_text() -> None:
    assert edited("ab", [["append", [], "c"]]) == "abc"
    assert edited("ab", [["replace", [], "x"], ["append", [], "y"]]) == "xy"
    assert edited("ab", []) == "ab"
    wrongs: list[list[Any]] = [["append", [0], "c"], ["delete", [], None], ["replace", [], [1]]]
    for wrong in wrongs:
        with pytest.raises(RequestFailed):
            edited("ab", [wrong])


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org:7860",
        "http://127.0.0.1.example.org",
        "http://localhost@example.org",
        "http://user@127.0.0.1",
        "https://0.0.0.0:7860",
        "http://192.168.0.2:7860",
        "ftp://127.0.0.1",
        "127.0.0.1:7860",
        "http://[::1",
        "http://localhost:99999",
        "",
    ],
)
def test_only_this_machine_is_ever_measured(url: str) -> None:
    with pytest.raises(InvalidParameter):
        BenchPlan(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:7860/", "http://localhost:7860", "http://[::1]:7860"])
def test_every_name_of_this_machine_is_taken(url: str) -> None:
    assert BenchPlan(url).url == url.rstrip("/")


@pytest.mark.parametrize(
    "wrong",
    [
        {"visitors": 0},
        {"visitors": 1025},
        {"rounds": 0},
        {"max_new_tokens": 0},
        {"first_prompt": -1},
        {"timeout_seconds": 0},
        {"timeout_seconds": math.inf},
        {"timeout_seconds": math.nan},
        {"protocol": "telnet"},
        {"probe": "health"},
    ],
)
def test_a_plan_without_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter) as refused:
        BenchPlan("http://127.0.0.1", **wrong)
    assert refused.value.name in wrong


def test_an_address_where_nothing_answers_and_an_app_without_chat_are_told_apart(app: ScriptedApp) -> None:
    with pytest.raises(NothingToMeasure) as nothing:
        bench.run(BenchPlan(f"http://127.0.0.1:{free_port()}"))
    assert nothing.value.problem == "nothing answers there"
    with pytest.raises(NothingToMeasure) as other:
        streamed(app.url, Ask("hello", 9), endpoint="talk")
    assert other.value.problem == "it has no Gradio endpoint named /talk"


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([3.0], 95, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([float(value) for value in range(1, 101)], 95, 95.0),
        ([float(value) for value in range(1, 21)], 95, 19.0),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float | None) -> None:
    assert bench.percentile(values, percent) == expected


def test_the_report_is_arithmetic_on_what_was_measured() -> None:
    measured = [
        Measured(0, text="a b c d e", first_text="a", first_seconds=1.0, last_seconds=3.0, gaps_seconds=(0.5, 1.5)),
        Measured(0, text="a b c", first_text="a b", first_seconds=0.5, last_seconds=1.5, gaps_seconds=(1.0,)),
        Measured(1, text="a b", first_text="a b", first_seconds=2.0, last_seconds=2.0),
        Measured(2, "gone", text="a b c", first_text="a", first_seconds=9.0, last_seconds=99.0, gaps_seconds=(90.0,)),
    ]
    report = bench.summarise(measured, 4.0, lambda text: len(text.split()), [0.25, None, 0.5])
    assert (report.visitors, report.requests, report.failures, report.errors) == (3, 4, 1, ("gone",))
    assert (report.unit, report.amount, report.per_second) == ("tokens", 10, 2.5)
    assert (report.first_p50_seconds, report.first_p95_seconds, report.first_max_seconds) == (1.0, 2.0, 2.0)
    assert report.gap_p95_seconds == 1.5
    assert (report.probe_p95_seconds, report.probe_failures) == (0.5, 1)
    assert report.decode_rates == (1.5,)
    assert report.decode_rate == 1.5


def test_tokens_are_counted_with_the_tokenizer_that_is_given(app: ScriptedApp, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "Once": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(tmp_path / "tokenizer.json"))
    report = bench.run(BenchPlan(app.url, tokenizer=tmp_path, first_prompt=30))
    assert (report.unit, report.amount) == ("tokens", len(["Once", "upon", "a", "time", "there", "was", "🦙."]))


def test_a_report_can_be_read_by_people_and_by_programs(app: ScriptedApp) -> None:
    report = bench.run(BenchPlan(app.url, first_prompt=30))
    assert json.loads(json.dumps(report.public()))["amount"] == report.amount
    lines = report.lines(messages())
    assert any(line.startswith("counted in") and line.endswith("characters") for line in lines)
    assert len(lines) == 12


def test_prompts_differ_for_thousands_of_requests() -> None:
    assert len({bench.prompt(number) for number in range(4800)}) == 4800
