"""What belongs to the chat beside the conversation itself: the panel of all conversations, and the library of prompts.

Both live in the visitor's browser (`conversation_list.js`, `saved_prompts.js`); the server gives the words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_demo.messages import Messages

PANEL = """
<div id="conversation-box">
  <input type="search" id="conversation-search" data-word="search">
  <ul id="conversation-list"></ul>
  <p id="conversation-note" role="status"></p>
  <div id="conversation-tools"><button type="button" id="conversation-export" data-word="export_all"></button></div>
  <button type="button" id="conversation-import" data-word="import"></button>
  <input type="file" id="conversation-file" accept=".json,.md" multiple hidden>
</div>
"""
LIBRARY = """
<dialog id="prompts" aria-labelledby="prompts-title">
  <div id="prompts-head">
    <h2 id="prompts-title" data-word="prompts"></h2>
    <button type="button" id="prompts-close" data-word="close"></button>
  </div>
  <p id="prompts-note" role="status"></p>
  <h3 data-word="prompts_system"></h3>
  <ul id="prompts-system"></ul>
  <button type="button" id="prompts-keep-system" data-word="prompts_keep_system"></button>
  <h3 data-word="prompts_message"></h3>
  <ul id="prompts-message"></ul>
  <button type="button" id="prompts-keep-message" data-word="prompts_keep_message"></button>
</dialog>
"""
WORDS = (
    "search",
    "export_all",
    "import",
    "imported",
    "import_broken",
    "import_foreign",
    "import_newer",
    "import_large",
    "import_unreadable",
    "nothing_found",
    "actions",
    "actions_of",
    "rename",
    "as_json",
    "as_markdown",
    "delete",
    "deleted",
    "undo_delete",
    "you",
    "reply",
    "close",
    "prompts",
    "prompts_empty",
    "prompts_system",
    "prompts_message",
    "prompts_keep_system",
    "prompts_keep_message",
)
"""Keys under `chat.`; places in them are filled by the page."""
BUILT_IN = {
    "system": ("honest", "short", "teacher", "editor"),
    "message": ("summary", "polite", "ideas", "difference"),
}


def built_in_prompts(words: Messages) -> list[dict[str, str]]:
    """The prompts that come with the page, in its language."""
    return [
        {"kind": kind, "name": words(f"prompts.{kind}_{name}"), "text": words(f"prompts.{kind}_{name}_text")}
        for kind, names in BUILT_IN.items()
        for name in names
    ]
