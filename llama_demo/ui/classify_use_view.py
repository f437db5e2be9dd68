"""The first view of the classification tab: a classifier, a text or many, and what was found."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.ui.asked import read_identity
from llama_demo.ui.classify_events import AT_ONCE, LANGUAGE, PRIVATE, asked, begun, ended, result, stops
from llama_demo.ui.classify_use import EXAMPLES, FIELDS, LABELS, ClassifyUse
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime


class UseView:
    """The controls, in the order of `FIELDS`."""

    def __init__(self, runtime: Runtime, wording: Wording) -> None:
        self._runtime = runtime
        self._use = ClassifyUse(runtime)
        words = runtime.messages()
        self.classifier = wording.make(
            gr.Dropdown,
            {"label": "classify.classifier", "info": "classify.classifier_help"},
            choices=[(words("classify.zero_shot"), LABELS)],
            value=LABELS,
            filterable=False,
            elem_id="classifier",
        )
        labels = wording.make(
            gr.Textbox,
            {"label": "classify.labels", "info": "classify.labels_help", "placeholder": "classify.labels_placeholder"},
            lines=3,
            max_lines=12,
            elem_id="labels",
        )
        text = wording.make(
            gr.Textbox,
            {"label": "classify.text", "placeholder": "classify.text_placeholder"},
            lines=4,
            max_lines=14,
            elem_id="classify-text",
        )
        lines = wording.make(
            gr.Checkbox, {"label": "classify.each_line", "info": "classify.each_line_help"}, elem_id="each-line"
        )
        with wording.make(gr.Accordion, {"label": "classify.options"}, open=False, elem_id="classify-options"):
            self._zero_shot, threshold, explained = _options(wording)
        with gr.Row(elem_classes="classify-actions"):
            self._go = wording.make(
                gr.Button, {"value": "classify.go"}, variant="primary", elem_id="classify-go", min_width=0
            )
            self._stop = wording.make(
                gr.Button, {"value": "classify.stop"}, variant="stop", elem_id="classify-stop", min_width=0
            )
            self._examples = {
                name: wording.make(gr.Button, {"value": f"classify.example_{name}"}, size="sm", min_width=0)
                for name in EXAMPLES
            }
        self._result = result("classify-found")
        self.controls = [self.classifier, labels, text, lines, *self._zero_shot, threshold, explained]

    def connect(self, bridge: Any, model: Any) -> None:
        """`bridge` calls the page's script, which `bridge` carries."""
        self._keep(bridge)
        inputs = [asked(), *self.controls, model]

        async def show_verdicts(asked: gr.Request, request: Any, *values: Any) -> AsyncGenerator[str, None]:
            visitor = self._runtime.visitors.of(asked)
            async for view in self._use.classify(request, dict(zip(FIELDS, values, strict=True)), visitor):
                yield view

        # Gradio's own check of a choice knows only the list that this page was built with, not what was trained since.
        ask: dict[str, Any] = {"inputs": inputs, "outputs": [self._result], "preprocess": False, **PRIVATE}
        self._go.click(show_verdicts, js=begun("use"), **ask).then(fn=None, js=ended("use"), **PRIVATE)
        for name, button in self._examples.items():
            filled = button.click(
                self._example(name),
                js=LANGUAGE,
                inputs=[asked()],
                outputs=self.controls[:5],
                **AT_ONCE,
            )
            filled.then(show_verdicts, js=begun("use"), **ask).then(fn=None, js=ended("use"), **PRIVATE)
        stops(self._stop, "use", self._use.stoppers.stop)

        async def show_options(chosen: Any) -> list[Any]:
            return [gr.update(visible=chosen == LABELS) for _ in only_labels]

        only_labels = [self.controls[1], *self._zero_shot]
        self.classifier.change(
            show_options,
            inputs=[self.classifier],
            outputs=only_labels,
            preprocess=False,
            **AT_ONCE,
        )
        self.refreshed(bridge.refresh)

    def refreshed(self, event: Any) -> Any:
        """Reads the list of classifiers anew on `event`."""

        async def refresh(asked: gr.Request, request: Any) -> Any:
            visitor = self._runtime.visitors.of(asked)
            return gr.update(choices=self._use.classifiers(read_identity(request)[1], visitor))

        return event(
            refresh,
            js=LANGUAGE,
            inputs=[asked()],
            outputs=[self.classifier],
            **AT_ONCE,
        )

    def _keep(self, bridge: Any) -> None:
        """What the controls hold outlives a reload of the page."""
        keep = "(...values) => window.llamaDemoClassify.keep(values)"
        for control in self.controls:
            control.change(fn=None, js=keep, inputs=self.controls, **PRIVATE)
        bridge.restore(
            fn=None,
            js="(...values) => window.llamaDemoClassify.restored(values)",
            inputs=self.controls,
            outputs=self.controls,
            **PRIVATE,
        )

    def _example(self, name: str) -> Any:
        async def fill(request: Any) -> tuple[str, str, str, bool, str]:
            return self._use.example(name, read_identity(request)[1])

        return fill


def _options(wording: Wording) -> tuple[list[Any], Any, Any]:
    """What only labels need: an instruction, two corrections. Then the threshold, and whether words are marked."""

    def checkbox(name: str) -> Any:
        return wording.make(
            gr.Checkbox,
            {"label": f"classify.{name}", "info": f"classify.{name}_help"},
            value=True,
            elem_id=name.replace("_", "-"),
        )

    instruction = wording.make(
        gr.Textbox,
        {
            "label": "classify.instruction",
            "info": "classify.instruction_help",
            "placeholder": "classify.instruction_none",
        },
        lines=1,
        max_lines=6,
        elem_id="instruction",
    )
    zero_shot = [instruction, checkbox("normalise_length"), checkbox("correct_prior")]
    threshold = wording.make(
        gr.Slider,
        {"label": "classify.threshold", "info": "classify.threshold_help"},
        minimum=0,
        maximum=1,
        step=0.01,
        value=0,
        buttons=[],
        elem_id="threshold",
    )
    return zero_shot, threshold, checkbox("explain")
