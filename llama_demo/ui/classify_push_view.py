"""The panel of the kept classifiers that puts the chosen one on the Hugging Face Hub. Only the owner sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.ui.classify_events import AT_ONCE, LANGUAGE, PRIVATE, asked, begun, ended, result, stops
from llama_demo.ui.classify_push import FIELDS, ClassifyPush
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime


class PushView:
    """The controls, in the order of `FIELDS` after the classifier's name."""

    def __init__(self, runtime: Runtime, wording: Wording) -> None:
        self._runtime = runtime
        self._push = ClassifyPush(runtime)

        def checkbox(name: str, **options: Any) -> Any:
            worded = {"label": f"classify.push_{name}", "info": f"classify.push_{name}_help"}
            return wording.make(gr.Checkbox, worded, elem_id=f"push-{name}", **options)

        with wording.make(
            gr.Accordion, {"label": "classify.push"}, open=False, visible=False, elem_id="push"
        ) as self._panel:
            repo = wording.make(
                gr.Textbox,
                {"label": "classify.push_repo", "info": "classify.push_repo_help"},
                placeholder="OWNER/NAME",
                elem_id="push-repo",
            )
            private = checkbox("private", value=True)
            self._backbone = checkbox("backbone", value=False)
            self._warning = result("push-warning")
            self._confirmed = checkbox("confirmed", value=False, visible=False)
            with gr.Row(elem_classes="classify-actions"):
                self._go = wording.make(
                    gr.Button, {"value": "classify.push_go"}, variant="primary", elem_id="push-go", min_width=0
                )
                self._stop = wording.make(
                    gr.Button, {"value": "classify.stop"}, variant="stop", elem_id="push-stop", min_width=0
                )
            self._said = result("push-said")
        self._controls = [repo, private, self._backbone, self._confirmed]

    def connect(self, chosen: Any) -> None:
        """`chosen` holds the classifier's name."""

        def warn(visiting: gr.Request, request: Any, name: Any, backbone: Any) -> tuple[Any, str, Any]:
            """A licence is confirmed anew for another classifier, and asked for only where its model goes along."""
            visitor = self._runtime.visitors.of(visiting)
            shown = bool(name) and visitor.is_owner
            if not shown:
                return gr.update(visible=False), "", gr.update(visible=False, value=False)
            said, asks = self._push.warning(request, name, visitor, with_backbone=bool(backbone))
            return gr.update(visible=True), said, gr.update(visible=asks, value=False)

        async def push(visiting: gr.Request, request: Any, *values: Any) -> AsyncGenerator[str, None]:
            visitor = self._runtime.visitors.of(visiting)
            async for view in self._push.push(request, dict(zip(FIELDS, values, strict=True)), visitor):
                yield view

        for event in (chosen.change, self._backbone.change):
            event(
                warn,
                js=LANGUAGE,
                inputs=[asked(), chosen, self._backbone],
                outputs=[self._panel, self._warning, self._confirmed],
                preprocess=False,
                **AT_ONCE,
            )
        self._go.click(
            push,
            js=begun("push"),
            inputs=[asked(), chosen, *self._controls],
            outputs=[self._said],
            preprocess=False,
            **PRIVATE,
        ).then(fn=None, js=ended("push"), **PRIVATE)
        stops(self._stop, "push", self._push.stoppers.stop)
