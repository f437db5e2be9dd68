"""Makes tiny random Llamas in Hugging Face format: grouped-query attention, a tokenizer trained on the spot.

Row sizes and the head size are multiples of 32, so that a GGUF file of any type can be written from them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

SEED = 20240715
CONTEXT_TOKENS = 512

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = """The harbour lies below the old town, and in the morning the boats come back with the tide behind them.
Nobody hurries there. A dog sleeps on the warm stones; two women mend a net and talk about the price of bread.
When the baker opens his door the whole street smells of it, and the children stop on their way to school.
In winter the wind takes the words out of your mouth, so people nod to each other and keep their hands in their coats.
What is the capital of South Korea? The capital of South Korea is Seoul. How many legs has a spider? Eight.
1, 2, 3, 4, 5, 10, 20, 100: numbers are words too. (Brackets, "quotes", dashes - all of that.) Why? Because!
"""


def write_byte_level(folder: Path, **shape: int) -> Path:
    """A Llama with a byte-level BPE tokenizer and a ChatML template, like the embedded model's; `shape` is what should
    be other in its configuration. Returns `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    markers = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _lines(),
        trainers.BpeTrainer(vocab_size=384, special_tokens=markers, initial_alphabet=alphabet, show_progress=False),
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_TOKENS,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    _write_model(folder, tokenizer.get_vocab_size(), bos=1, eos=2, **shape)
    return folder


def write_sentencepiece(folder: Path, *pieces: str) -> Path:
    """A Llama with a SentencePiece BPE tokenizer with byte fallback and no template, like Llama-2's own, with `pieces`
    among its own: the folder has both `tokenizer.model` and `tokenizer.json`. Returns `folder`."""
    import sentencepiece
    from transformers import LlamaTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(),
        model_writer=model,
        model_type="bpe",
        vocab_size=416,
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=list(pieces),
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    LlamaTokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    count = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    _write_model(folder, count, bos=1, eos=2)
    return folder


def _write_model(folder: Path, vocabulary: int, *, bos: int, eos: int, **shape: int) -> None:
    """Wide enough weights that the next-token distributions have a shape, and no two tokens are all but equal."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.15,
        bos_token_id=bos,
        eos_token_id=eos,
        tie_word_embeddings=False,
        dtype="float32",
        **{**sizes, **shape},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        LlamaForCausalLM(config).save_pretrained(str(folder))


def _lines() -> Iterator[str]:
    yield from CORPUS.splitlines()
