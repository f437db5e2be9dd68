"""The chat tab: its components, and which of the page's own functions (`chat.js`) each of them calls.

The conversation lives in the visitor's browser. The server is asked for one reply at a time and streams small views of
it, so that a restart loses nothing and an update costs the same in the first minute as in the last.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

import gradio as gr

from llama_demo.ui.conversations import LIBRARY, PANEL, WORDS, built_in_prompts
from llama_demo.ui.replies import Replies
from llama_demo.ui.sampling_controls import sampling_controls
from llama_demo.ui.words import Wording
from llama_demo.values import Sampling

if TYPE_CHECKING:
    from llama_demo.messages import Messages
    from llama_demo.runtime import Runtime

STATE = (
    LIBRARY
    + """
<p id="chat-note" role="status"></p>
<p id="chat-error" role="alert"></p>
<p id="chat-dropped"></p>
<div id="chat-context">
  <div id="chat-used"><meter id="chat-meter" min="0" max="1" value="0"></meter><span></span></div>
  <button type="button" id="chat-tokens"></button>
  <span id="chat-keys"></span>
</div>
"""
)
SCRIPTS = (
    "page.js",
    "conversation_files.js",
    "conversations.js",
    "conversation_list.js",
    "saved_prompts.js",
    "link.js",
    "chat_view.js",
    "chat.js",
)
PAGE_WORDS = (
    "untitled",
    "empty_list",
    "model_changed",
    "lost",
    "not_kept",
    "no_prompt",
    "prompt",
    "context",
    "context_label",
    "details",
    "details_remote",
    "dropped",
    "keys",
    "tokens_action",
    "tokens_action_help",
    "link_copied",
    "link_shown",
    "link_long",
    "link_no_model",
    *WORDS,
)
"""Keys under `chat.` of the few words that the page says without asking the server."""
_EXAMPLES = ("chat.example_explain", "chat.example_write", "chat.example_ask")
_HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def build_chat(runtime: Runtime, wording: Wording, model: Any) -> None:
    """Fills the chat tab. `model` is the header's picker."""
    replies = Replies(runtime)
    with gr.Row(elem_id="chat"):
        with gr.Column(elem_id="conversations-panel", elem_classes="drawer", scale=0, min_width=0):
            closers = [_closer(wording)]
            new = wording.make(gr.Button, {"value": "chat.new"}, elem_id="new-conversation", size="sm")
            gr.HTML("", html_template=PANEL, js_on_load=None, elem_id="all-conversations")
        with gr.Column(elem_id="chat-column", min_width=0):
            with gr.Row(elem_id="chat-tools", elem_classes="tools"):
                left = wording.make(gr.Button, {"value": "chat.conversations"}, elem_id="show-conversations", size="sm")
                middle = wording.make(gr.Button, {"value": "chat.prompts"}, elem_id="show-prompts", size="sm")
                right = wording.make(gr.Button, {"value": "chat.settings"}, elem_id="show-settings", size="sm")
            chatbot = _chatbot(runtime, wording)
            with gr.Row(elem_id="examples"):
                examples = [wording.make(gr.Button, {"value": key}, size="sm", min_width=0) for key in _EXAMPLES]
            bridge = _bridge(runtime, wording, replies)
            with gr.Row(elem_id="chat-more"):
                more = wording.make(gr.Button, {"value": "chat.continue"}, elem_id="continue", size="sm")
            box, send, stop = _composer(wording)
        with gr.Column(elem_id="settings-panel", elem_classes="drawer settings", scale=0, min_width=0):
            closers.append(_closer(wording))
            controls, reset = _settings(runtime, wording)
    everything = [model, *controls]
    _connect(box.submit, "send", [box, *everything], [box])
    _connect(send.click, "send", [box, *everything], [box])
    for example in examples:
        _connect(example.click, "send", [example, *everything])
    for closer in closers:
        _connect(closer.click, "closeDrawers")
    _connect(stop.click, "stop")
    _connect(more.click, "more", everything)
    _connect(new.click, "fresh")
    _connect(left.click, "toggleConversations")
    _connect(middle.click, "prompts")
    _connect(right.click, "toggleSettings")
    _connect(reset.click, "defaults", outputs=controls)
    _connect(chatbot.retry, "retry", everything)
    _connect(chatbot.undo, "undo", [box], [box])
    _connect(chatbot.edit, "edit", [chatbot, *everything])
    _connect(bridge.show, "messages", outputs=[chatbot])
    _connect(bridge.fill, "filled", outputs=[box])
    _connect(bridge.preset, "preset", outputs=controls[:1])
    _connect(bridge.restore, "restored", outputs=everything)
    shown = gr.JSON(visible=False)
    chatbot.like(
        rated,
        js="() => window.llamaDemo.shown()",
        inputs=[shown],
        outputs=[bridge],
        queue=False,
        concurrency_limit=None,
        **_HIDDEN,
    )
    _ask(bridge, replies)


def rated(shown: Any, event: gr.LikeData) -> dict[str, Any]:
    """Which message the visitor gave a thumb: the page's script keeps it. None of the text is looked at. `shown` is
    the script's own note of what it is in, which comes back with it."""
    place = event.index[0] if isinstance(event.index, (list, tuple)) else event.index
    rating = {True: "like", False: "dislike"}.get(event.liked) if isinstance(event.liked, bool) else None
    return {"rated": {"shown": shown, "message": place, "rating": rating, "id": secrets.token_hex(4)}}


def _connect(event: Any, name: str, inputs: Sequence[Any] = (), outputs: Sequence[Any] = ()) -> None:
    """Lets `event` call the page's function `name`, without the server."""
    js = f"(...values) => window.llamaDemo.{name}(...values)"
    event(fn=None, js=js, inputs=list(inputs), outputs=list(outputs), trigger_mode="multiple", **_HIDDEN)


def _ask(bridge: Any, replies: Replies) -> None:
    """The page's one call of the server for a reply. How many run at once is decided behind it, not in this queue."""
    asked = gr.JSON(visible=False)
    answering = bridge.ask(
        fn=replies.reply,
        js="() => window.llamaDemo.request()",
        inputs=[asked],
        outputs=[bridge],
        concurrency_limit=None,
        trigger_mode="multiple",
        **_HIDDEN,
    )
    answering.then(fn=None, js="() => window.llamaDemo.ended()", **_HIDDEN)


def _closer(wording: Wording) -> Any:
    return wording.make(gr.Button, {"value": "chat.close"}, elem_classes="close", size="sm")


def _chatbot(runtime: Runtime, wording: Wording) -> Any:
    model = runtime.catalog.find(runtime.default_model)

    def greeting(words: Messages) -> dict[str, Any]:
        said = words("chat.greeting", model=model.title, good_for=words.sentence(model.good_for))
        return {"label": words("chat.conversation"), "placeholder": said}

    return wording.make(
        gr.Chatbot,
        greeting,
        show_label=False,
        container=False,
        elem_id="conversation",
        height="100%",
        layout="panel",
        editable="user",
        buttons=["copy"],
        feedback_options=("Like", "Dislike"),
        latex_delimiters=[],
        group_consecutive_messages=False,
        sanitize_html=True,
        allow_tags=False,
    )


def _bridge(runtime: Runtime, wording: Wording, replies: Replies) -> Any:
    """Where the server's views reach the page's script, and where the script calls the server."""
    folder = resources.files(__package__)

    async def stop(identity: Any) -> None:
        replies.stoppers.stop(identity)

    def start(words: Messages) -> dict[str, Any]:
        value = {
            "words": {**{key: words.table[f"chat.{key}"] for key in PAGE_WORDS}, "figures": words.under("figures.")},
            "prompts": built_in_prompts(words),
            "language": words.language,
            "defaults": asdict(_defaults(runtime)),
            "model": runtime.default_model,
            "models": [entry.name for entry in runtime.catalog.entries],
        }
        return {"value": value}

    return wording.make(
        gr.HTML,
        start,
        html_template=STATE,
        js_on_load="\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
        server_functions=[stop],
        elem_id="chat-state",
    )


def _composer(wording: Wording) -> tuple[Any, Any, Any]:
    with gr.Row(elem_id="composer"):
        box = wording.make(
            gr.Textbox,
            {"label": "chat.message", "placeholder": "chat.placeholder"},
            show_label=False,
            container=False,
            lines=1,
            max_lines=8,
            elem_id="message",
            scale=1,
            min_width=0,
        )
        send = wording.make(gr.Button, {"value": "chat.send"}, variant="primary", elem_id="send", scale=0, min_width=0)
        stop = wording.make(gr.Button, {"value": "chat.stop"}, variant="stop", elem_id="stop", scale=0, min_width=0)
    return box, send, stop


def _defaults(runtime: Runtime) -> Sampling:
    return runtime.limits.clamp(Sampling())


def _settings(runtime: Runtime, wording: Wording) -> tuple[list[Any], Any]:
    """The controls in the order that `chat.js` reads them, and the button that resets them."""
    system_prompt = wording.make(
        gr.Textbox,
        {"label": "chat.system_prompt", "info": "chat.system_prompt_help", "placeholder": "chat.system_prompt_none"},
        lines=2,
        max_lines=6,
        elem_id="system-prompt",
    )
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens")
    controls = [system_prompt, *sampling_controls(wording, names, _defaults(runtime), runtime.limits.max_new_tokens)]
    return controls, wording.make(gr.Button, {"value": "chat.reset"}, elem_id="reset-settings", size="sm")
