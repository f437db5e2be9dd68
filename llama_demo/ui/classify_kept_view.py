"""The fourth view of the classification tab: the kept classifiers, to take away, bring back, publish and delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.ui.classify_events import AT_ONCE, LANGUAGE, PRIVATE, asked, begun, ended, result, stops
from llama_demo.ui.classify_kept import ClassifyKept
from llama_demo.ui.classify_push_view import PushView
from llama_demo.ui.words import Wording

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime
    from llama_demo.ui.classify_use_view import UseView

_KEPT: dict[str, Any] = {"js": LANGUAGE, "preprocess": False, **AT_ONCE}


class KeptView:
    """A list, and what can be done with the one that is chosen."""

    def __init__(self, runtime: Runtime, wording: Wording) -> None:
        self._runtime = runtime
        self._kept = ClassifyKept(runtime)
        self._chosen = wording.make(
            gr.Dropdown,
            {"label": "classify.kept_one", "info": "classify.kept_help"},
            choices=[],
            value=None,
            filterable=False,
            elem_id="kept-chosen",
        )

        def button(name: str, kind: Any = gr.Button, **options: Any) -> Any:
            return wording.make(
                kind,
                {"value" if kind is gr.Button else "label": f"classify.{name}"},
                size="sm",
                min_width=0,
                elem_id=f"kept-{name}",
                **options,
            )

        with gr.Row(elem_classes="classify-actions", visible=False) as self._actions:
            self._download = button("download", gr.DownloadButton)
            self._export = button("export")
            self._stop = button("stop", variant="stop")
            self._publish = button("publish", visible=runtime.settings.public)
            self._delete = button("delete")
        with gr.Row(elem_classes="classify-actions", visible=False) as self._confirm:
            self._sure = button("delete_sure", variant="stop")
            self._keep = button("delete_not")
        self._archive = button("archive", gr.DownloadButton, visible=False)
        self._push = PushView(runtime, wording)
        with gr.Row(elem_classes="classify-actions"):
            self._name = wording.make(
                gr.Textbox,
                {"label": "classify.upload_name", "info": "classify.upload_name_help"},
                elem_id="kept-name",
                min_width=220,
            )
            self._upload = button("upload", gr.UploadButton, file_count="single")
        self._said = result("kept-said")
        self._about = result("kept-about")

    def connect(self, bridge: Any, use: UseView) -> None:
        """`bridge` says when the page opens; `use` chooses among the same classifiers."""
        self._described(self._chosen.change)
        self._push.connect(self._chosen)
        self._takes_away(use)
        self._brings_back(use)
        self.refreshed(bridge.refresh)

    def refreshed(self, event: Any) -> Any:
        """Reads the list anew on `event`."""

        async def refresh(visiting: gr.Request) -> Any:
            return gr.update(choices=self._kept.names(self._runtime.visitors.of(visiting)))

        return event(refresh, outputs=[self._chosen], **AT_ONCE)

    def _described(self, event: Any) -> None:
        """Shows on `event` what the chosen one is, and what can be done with it."""

        def describe(visiting: gr.Request, request: Any, name: Any) -> tuple[str, Any, Any, Any]:
            about, file = self._kept.describe(request, name, self._runtime.visitors.of(visiting))
            return about, gr.update(visible=bool(name)), gr.update(value=file), gr.update(visible=False)

        outputs = [self._about, self._actions, self._download, self._archive]
        event(describe, inputs=[asked(), self._chosen], outputs=outputs, **_KEPT)

    def _takes_away(self, use: UseView) -> None:
        def shown(visible: bool) -> Any:
            return lambda: gr.update(visible=visible)

        def remove(visiting: gr.Request, request: Any, name: Any) -> tuple[str, Any, Any]:
            said = self._kept.remove(request, name, self._runtime.visitors.of(visiting))
            return said, gr.update(value=None), gr.update(visible=False)

        def publish(visiting: gr.Request, request: Any, name: Any) -> str:
            return self._kept.publish(request, name, self._runtime.visitors.of(visiting))

        async def archive(visiting: gr.Request, request: Any, name: Any) -> AsyncGenerator[tuple[str, Any], None]:
            async for said, file in self._kept.export(request, name, self._runtime.visitors.of(visiting)):
                yield said, gr.update(value=file, visible=file is not None)

        chosen = [asked(), self._chosen]
        self._delete.click(shown(True), outputs=[self._confirm], **AT_ONCE)
        self._keep.click(shown(False), outputs=[self._confirm], **AT_ONCE)
        removed = self._sure.click(remove, inputs=chosen, outputs=[self._said, self._chosen, self._confirm], **_KEPT)
        self.refreshed(removed.then)
        use.refreshed(removed.then)
        self._described(self._publish.click(publish, inputs=chosen, outputs=[self._said], **_KEPT).then)
        exported = self._export.click(
            archive,
            js=begun("export"),
            inputs=chosen,
            outputs=[self._said, self._archive],
            preprocess=False,
            **PRIVATE,
        )
        exported.then(fn=None, js=ended("export"), **PRIVATE)
        stops(self._stop, "export", self._kept.stoppers.stop)

    def _brings_back(self, use: UseView) -> None:
        def add(visiting: gr.Request, request: Any, file: Any, name: Any) -> tuple[str, Any]:
            visitor = self._runtime.visitors.of(visiting)
            said, added = self._kept.add(request, file, name, visitor)
            return said, gr.skip() if added is None else gr.update(choices=self._kept.names(visitor), value=added)

        added = self._upload.upload(
            add, js=LANGUAGE, inputs=[asked(), self._upload, self._name], outputs=[self._said, self._chosen], **AT_ONCE
        )
        use.refreshed(added.then)
