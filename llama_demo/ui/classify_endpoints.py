"""The named Gradio endpoints of classification, thin over the runtime: `/classify` and `/train_classifier`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr
from gradio.data_classes import FileData
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from llama_demo.classify.labels import labels_from
from llama_demo.classify.results import Trained, Verdicts
from llama_demo.classify.zero_shot import ZeroShot
from llama_demo.errors import InvalidParameter
from llama_demo.leasing import Stopper, result_of
from llama_demo.reasons import Reason
from llama_demo.ui.endpoints import optional_text, worded

if TYPE_CHECKING:
    from llama_demo.runtime import Runtime

T = TypeVar("T")


class ClassifyEndpoints:
    """Handlers for programs: plain values in and out, an error as one sentence."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def classify(  # noqa: PLR0917 - the fixed public interface
        self,
        texts: list[str],
        classifier: str = "",
        labels: list[Any] | None = None,
        model: str = "",
        instruction: str = "",
        normalise_length: bool = True,
        correct_prior: bool = True,
        threshold: float = 0.0,
        asked: gr.Request | None = None,
    ) -> list[dict[str, Any]]:
        """The likeliest label of each text, with a probability for every label.

        Parameters:
            texts: what to classify
            classifier: a trained head's name; or else give labels
            labels: names, or objects with a name and a description
            model: a name from /models; empty for the default, or for the one that the head was trained on
            instruction: a sentence before each text, or a whole prompt with {text} in it, ending where the label comes
            normalise_length: divide a label's log-likelihood by its number of tokens
            correct_prior: take off what the model says of a label whatever the text
            threshold: no label below this probability
        """
        try:
            by: str | ZeroShot = optional_text("classifier", classifier)
            model = optional_text("model", model)
            if by and labels:
                raise InvalidParameter("labels", labels, Reason("expected.no_labels"))
            if not by:
                by = ZeroShot(labels_from(labels), instruction or "", normalise_length, correct_prior)
                model = model or self._runtime.default_model
            stopper = Stopper(self._runtime.visitors.of(asked))
            updates = self._runtime.classification.classify(
                texts, by, model=model, abstain_below=threshold, stopper=stopper
            )
            found = await result_of(updates, Verdicts)
            return [verdict.public() for verdict in found.verdicts]
        except Exception as error:
            raise worded(self._runtime, error) from None

    async def train_classifier(
        self,
        examples: list[dict[str, Any]],
        name: str = "",
        model: str = "",
        prompt: str = "",
        asked: gr.Request | None = None,
    ) -> dict[str, Any]:
        """Trains a head on labelled examples; its cross-validated report, and its file under `file`.

        Parameters:
            examples: 10 to 50,000 objects with a text and a label
            name: how the head will be called
            model: a name from /models; empty for the default
            prompt: what each text is read in, with {text} where it goes; empty for one that suits the labels
        """
        try:
            chosen = optional_text("model", model) or self._runtime.default_model
            updates = self._runtime.classification.train(
                examples,
                name,
                model=chosen,
                prompt=optional_text("prompt", prompt),
                stopper=Stopper(self._runtime.visitors.of(asked)),
            )
            made = await result_of(updates, Trained)
            return {"name": made.name, "prompt": made.prompt, **made.report.public(), "file": _download(made.path)}
        except Exception as error:
            raise worded(self._runtime, error) from None


def _download(path: Path) -> dict[str, Any]:
    """A copy where Gradio may serve it from, as its clients know a file: they fetch it and give its place."""
    copy = save_file_to_cache(path, get_upload_folder())
    made: dict[str, Any] = FileData(path=copy, orig_name=path.name).model_dump()
    return made


def add_classify_endpoints(runtime: Runtime) -> None:
    """Adds the endpoints to the page that is being built."""
    endpoints = ClassifyEndpoints(runtime)
    gr.api(endpoints.classify, api_name="classify", concurrency_limit=None)
    gr.api(endpoints.train_classifier, api_name="train_classifier", concurrency_limit=None)
