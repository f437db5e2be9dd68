"""The process that owns one scoring graph: makes it from the GGUF file once, then answers one call after another."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from llama_demo.engines.openvino_graph import SLICE_TOKENS, Graph
from llama_demo.engines.openvino_messages import (
    Answer,
    EmbedIds,
    Load,
    Loaded,
    LoadGraph,
    ScoreEndings,
    ScoreIds,
)
from llama_demo.engines.openvino_worker import load_problem, open_pipeline, process_bytes
from llama_demo.engines.worker import parent_connection

GRAPH_FILE = "openvino_model.xml"


def main() -> None:
    """Loads what the first order says, then serves until the parent goes away."""
    connection = parent_connection()
    order = connection.recv()
    try:
        graph = _open(order)
        answer: object = Loaded(process_bytes(), 0)
    except Exception as error:
        answer = load_problem(error)
    connection.send(answer)
    if isinstance(answer, Loaded):
        try:
            _serve(connection, graph)
        except (EOFError, BrokenPipeError):
            return
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def _open(order: LoadGraph) -> Graph:
    """Warm: the first pass prepares the weights, and a whole slice takes the work buffers that will be needed."""
    source, folder = Path(order.path), Path(order.graph_folder)
    saved = folder / GRAPH_FILE
    if not saved.exists() or saved.stat().st_mtime < source.stat().st_mtime:
        _save_graph(source, folder)
    graph = Graph(saved, reproducible=order.reproducible)
    graph.score((0,) * SLICE_TOKENS, 1)
    return graph


def _save_graph(source: Path, folder: Path) -> None:
    """Has OpenVINO write its own form of the GGUF file, whole or not at all.

    It writes beside the file it is given, so it is given a link to it in a folder of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        link = Path(made, "model.gguf")
        link.symlink_to(source.resolve())
        open_pipeline(Load(str(link), 1, (), False), enable_save_ov_model=True)
        for name in ("openvino_model.bin", GRAPH_FILE):
            os.replace(Path(made, name), folder / name)


def _serve(connection: Connection, graph: Graph) -> None:
    while True:
        match connection.recv():
            case ScoreIds(call, ids, top_k):
                connection.send(Answer(call, graph.score(ids, top_k)))
            case ScoreEndings(call, prompts, endings):
                connection.send(Answer(call, graph.score_endings(prompts, endings)))
            case EmbedIds(call, batch):
                connection.send(Answer(call, graph.embed(batch)))
