"""The third view of the classification tab: labelled examples, what is in them, and the training of a head."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import gradio as gr

from llama_demo.ui.classify_events import AT_ONCE, LANGUAGE, PRIVATE, asked, begun, ended, result, stops
from llama_demo.ui.classify_train import FIELDS, ClassifyTrain, sample
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime


class Refreshing(Protocol):
    def refreshed(self, event: Any) -> Any:
        """Reads what this view shows of the kept classifiers anew on `event`."""


class TrainView:
    """The controls, in the order of `FIELDS`."""

    def __init__(self, runtime: Runtime, wording: Wording) -> None:
        self._runtime = runtime
        self._train = ClassifyTrain(runtime)
        wording.make(gr.Markdown, {"value": "classify.train_intro"}, elem_classes="classify-intro")
        pasted = wording.make(
            gr.Textbox,
            {"label": "classify.examples", "info": "classify.examples_help", "placeholder": "classify.examples_none"},
            lines=6,
            max_lines=12,
            elem_id="train-pasted",
        )
        file = wording.make(gr.File, {"label": "classify.file"}, file_count="single", height=150, elem_id="train-file")
        with wording.make(gr.Accordion, {"label": "classify.options"}, open=False, elem_id="train-options"):
            columns = [
                self._box(wording, name, "classify.column_found", f"train-{name.replace('_', '-')}")
                for name in ("text_column", "label_column")
            ]
            prompt = self._box(wording, "prompt", "classify.prompt_none", "train-prompt", lines=2)
        self._preview = result("train-preview")
        name = wording.make(
            gr.Textbox,
            {"label": "classify.name", "info": "classify.name_help"},
            value="my classifier",
            elem_id="train-name",
        )
        with gr.Row(elem_classes="classify-actions"):
            self._go = wording.make(
                gr.Button, {"value": "classify.train_go"}, variant="primary", elem_id="train-go", min_width=0
            )
            self._stop = wording.make(
                gr.Button, {"value": "classify.stop"}, variant="stop", elem_id="train-stop", min_width=0
            )
            self._sample = wording.make(
                gr.Button, {"value": "classify.sample"}, size="sm", elem_id="train-sample", min_width=0
            )
        self._result = result("train-found")
        self._controls = [pasted, file, *columns, name, prompt]

    def connect(self, model: Any, views: Sequence[Refreshing]) -> None:
        """`model` is the header's picker; `views` show the list that a training adds to."""

        def preview(request: Any, *values: Any) -> str:
            return self._train.preview(request, dict(zip(FIELDS, values, strict=False)))

        async def training(visiting: gr.Request, request: Any, *values: Any) -> AsyncGenerator[str, None]:
            visitor = self._runtime.visitors.of(visiting)
            async for view in self._train.train(request, dict(zip(FIELDS, values, strict=True)), visitor):
                yield view

        pasted, file, *columns = self._controls[:4]
        for event in (pasted.change, file.change, *(column.change for column in columns)):
            event(
                preview,
                js=LANGUAGE,
                inputs=[asked(), pasted, file, *columns],
                outputs=[self._preview],
                trigger_mode="always_last",
                **AT_ONCE,
            )
        self._sample.click(sample, outputs=[pasted], **AT_ONCE)
        trained = self._go.click(
            training, js=begun("train"), inputs=[asked(), *self._controls, model], outputs=[self._result], **PRIVATE
        )
        for view in views:
            view.refreshed(trained.then)
        trained.then(fn=None, js=ended("train"), **PRIVATE)
        stops(self._stop, "train", self._train.stoppers.stop)

    @staticmethod
    def _box(wording: Wording, name: str, placeholder: str, elem_id: str, lines: int = 1) -> Any:
        worded = {"label": f"classify.{name}", "info": f"classify.{name}_help", "placeholder": placeholder}
        return wording.make(gr.Textbox, worded, lines=lines, max_lines=6, elem_id=elem_id)
