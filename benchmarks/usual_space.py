"""What most chat Spaces are: one `generate` at a time behind `gr.ChatInterface`. Measured, not imported by anything."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any


def reply(model: Any, tokenizer: Any, message: str, history: list[dict[str, Any]], new_tokens: float) -> Iterator[str]:
    """The reply so far; exactly `new_tokens` long, so that every visitor gets as much."""
    from transformers import TextIteratorStreamer

    turns = [{"role": turn["role"], "content": turn["content"]} for turn in history or ()]
    turns.append({"role": "user", "content": message})
    inputs = tokenizer.apply_chat_template(
        [*turns, {"role": "user", "content": message}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    length = int(new_tokens)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    work = partial(
        model.generate, **inputs, streamer=streamer, max_new_tokens=length, min_new_tokens=length, do_sample=False
    )
    threading.Thread(target=work).start()
    text = ""
    for piece in streamer:
        text += piece
        yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="a Hugging Face folder")
    parser.add_argument("port", type=int)
    given = parser.parse_args()

    import gradio as gr
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(given.folder)
    model = AutoModelForCausalLM.from_pretrained(given.folder, dtype=torch.bfloat16).eval()

    def chat(message: str, history: list[dict[str, Any]], new_tokens: float = 64) -> Iterator[str]:
        yield from reply(model, tokenizer, message, history, new_tokens)

    with gr.Blocks(analytics_enabled=False) as page:
        gr.ChatInterface(chat, additional_inputs=[gr.Number(64)], api_name="chat")
    page.queue(max_size=1000).launch(server_name="127.0.0.1", server_port=given.port, ssr_mode=False, quiet=True)


if __name__ == "__main__":
    main()
