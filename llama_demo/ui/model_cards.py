"""What the Models tab shows of each model and each device, in the visitor's words: plain values for its script.

It sees the runtime's listing, never a component, a file or a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llama_demo.messages import Messages, size
from llama_demo.ui.asked import View
from llama_demo.ui.header import model_words
from llama_demo.values import LoadProgress, ModelState

if TYPE_CHECKING:
    from llama_demo.fitting import Help, Needs
    from llama_demo.jobs import JobProgress
    from llama_demo.licences import Licence
    from llama_demo.listing import DeviceMemory, Holder, ModelSummary

GROUPS = {
    "here": ("here", "download"),
    "remote": ("remote",),
    "access": ("access",),
    "too_large": ("too_large",),
    "broken": ("broken",),
}
"""The list's parts, and what is in each."""
LOADING = (ModelState.DOWNLOADING, ModelState.LOADING)


def models_view(
    models: Sequence[ModelSummary], memory: Sequence[DeviceMemory], words: Messages, *, owner: bool
) -> View:
    """The whole tab. `moving` while it will soon change."""
    groups = []
    for name, places in GROUPS.items():
        there = sorted((model for model in models if model.where in places), key=_order)
        cards = [card(model, words, owner=owner) for model in there]
        if cards:
            title = words(f"models.group_{name}", count=len(cards))
            groups.append({"name": name, "title": title, "help": words(f"models.group_{name}_help"), "cards": cards})
    moving = any(model.state in (*LOADING, ModelState.DRAINING) or model.job is not None for model in models)
    devices = [device(each, words, owner=owner) for each in memory]
    pushable = [_pushable(model, words) for model in models if owner and model.can_push]
    return {"owner": owner, "moving": moving, "devices": devices, "groups": groups, "pushable": pushable}


def _pushable(model: ModelSummary, words: Messages) -> View:
    """A model that the owner may put on the Hub, and what must be read before."""
    said = terms_words(model.title, model.terms, words) if model.terms is not None else ""
    return {"name": model.name, "title": model.title, "terms": said}


def terms_words(title: str, terms: Licence, words: Messages) -> str:
    return words("models.push_terms", title=title, licence=terms.text or words("card.licence_unknown"))


def _order(model: ModelSummary) -> tuple[bool, bool]:
    """What is in memory first, then what is on the disk, else as the catalog has it."""
    return model.state in (ModelState.ABSENT, ModelState.FAILED), model.where != "here"


def card(model: ModelSummary, words: Messages, *, owner: bool) -> View:
    """One model: what it is, whether and how it runs here, what can be done with it."""
    return {
        "name": model.name,
        "title": model.title,
        "badge": words(f"models.where_{model.where}"),
        "where": model.where,
        "facts": _facts(model, words),
        "good_for": words.sentence(model.good_for),
        "link": model.link,
        "link_words": words("models.link"),
        "state": str(model.state),
        "state_words": _state(model, words),
        "failed": model.state is ModelState.FAILED or model.where == "broken",
        "progress": progress_share(model.progress) if model.state in LOADING else None,
        "job": None if model.job is None else job_view(model.job, words),
        "pushed": words("models.pushed", address=model.pushed) if owner and model.pushed else "",
        "refusal": words.error(model.refusal) if owner and model.refusal is not None else "",
        "needs": needs_words(model.needs, words, fits=model.fits) if model.needs is not None else "",
        "helps": [help_words(each, words) for each in model.needs.helps] if model.needs is not None else [],
        "actions": [{"do": do, "label": words(f"models.do_{do}")} for do in _actions(model, owner=owner)],
    }


def _facts(model: ModelSummary, words: Messages) -> str:
    """Its size, its format, how many parameters, its licence: what is known of them."""
    parts = [words("models.parameters", count=_short(model.parameters))] if model.parameters else []
    parts.append(words(f"models.format_{model.format}"))
    if model.licence:
        parts.append(words("models.licence", licence=model.licence))
    return " · ".join(parts)


def _short(count: int) -> str:
    """6738415616 as 6.7 B."""
    unit, name = next((unit for unit in ((1e9, "B"), (1e6, "M")) if count >= unit[0]), (1e3, "k"))
    return f"{count / unit:.1f} {name}" if name == "B" else f"{count / unit:.0f} {name}"


def _state(model: ModelSummary, words: Messages) -> str:
    if model.where == "broken" and model.error is not None:
        return words.error(model.error)
    if model.state is ModelState.ABSENT:
        return ""
    parts = [model_words(model, words)]
    if model.state is ModelState.READY:
        parts.append(words("models.used_by", count=model.leases) if model.leases else words("models.unused"))
    if model.pinned:
        parts.append(words("models.pinned"))
    return " · ".join(parts)


def _actions(model: ModelSummary, *, owner: bool) -> list[str]:
    """Everybody may look at the sheet; the rest is the owner's. Another server's models are that server's."""
    is_remote = model.where == "remote"
    actions = [] if is_remote else ["sheet"]
    if model.state is ModelState.READY:
        actions = ["use", *actions]
    if not owner or is_remote or model.state is ModelState.DRAINING:
        return actions
    if model.state in LOADING or (model.job is not None and model.job.error is None):
        return ["cancel", *actions]
    if model.can_convert and model.where != "broken":
        actions = ["convert", *actions]
    if model.state is ModelState.READY:
        return ["unload", "unpin" if model.pinned else "pin", *actions]
    if model.where == "here":
        return ["load", *actions]
    if model.where == "access":
        return ["check_access", *actions]
    return ["load", "download", *actions] if model.where == "download" else actions


def progress_share(progress: LoadProgress | None) -> float:
    """How much of the step is done, from 0 to 1; -1 where the step does not count."""
    if progress is None or progress.done_bytes is None or not progress.total_bytes:
        return -1.0
    return min(1.0, progress.done_bytes / progress.total_bytes)


def job_view(job: JobProgress, words: Messages) -> View:
    """A download's or a conversion's bytes, speed and time left; or why it failed."""
    step = words(f"models.step_{job.kind}")
    if job.error is not None:
        return {"share": None, "words": words.error(job.error), "failed": True}
    if not job.total_bytes:
        return {"share": -1.0, "words": step, "failed": False}
    share, done, total = min(1.0, job.done_bytes / job.total_bytes), size(job.done_bytes), size(job.total_bytes)
    if job.bytes_per_second is None or job.seconds_left is None:
        return {"share": share, "words": words("models.job", step=step, done=done, total=total), "failed": False}
    said = words(
        "models.job_speed",
        step=step,
        done=done,
        total=total,
        speed=size(int(job.bytes_per_second)),
        seconds=f"{job.seconds_left:.0f}",
    )
    return {"share": share, "words": said, "failed": False}


def needs_words(needs: Needs, words: Messages, *, fits: bool) -> str:
    """What it takes and how that adds up, beside what the device has."""
    said = words(
        "models.needs" if fits else "models.needs_too_much",
        needed=size(needs.bytes),
        device=needs.device,
        has=size(needs.has_bytes),
        weights=size(needs.weight_bytes),
        cache=size(needs.cache_bytes),
        conversations=needs.conversations,
        tokens=needs.context_tokens,
        head_room=size(needs.head_room_bytes),
    )
    peak = words("models.needs_peak", peak=size(needs.peak_bytes)) if needs.peak_bytes else ""
    kept = words("models.needs_kept", kept=size(needs.kept_bytes)) if needs.kept_bytes else ""
    return " ".join(filter(None, (said, kept, peak)))


def help_words(each: Help, words: Messages) -> str:
    return words(f"models.help_{each.kind}", needed=size(each.bytes), tokens=each.tokens, gb=each.gpu_gb)


def device(memory: DeviceMemory, words: Messages, *, owner: bool) -> View:
    """A device's memory as a bar: a part for each model that holds some of it."""
    return {
        "name": memory.device,
        "words": words(
            "models.device", device=memory.device, used=size(memory.used_bytes), budget=size(memory.budget_bytes)
        ),
        "help": words("models.device_help"),
        "parts": [
            *(_part(holder, memory.budget_bytes, words, owner=owner) for holder in memory.holders),
            *_libraries(memory, words),
        ],
        "empty": words("models.device_empty") if not memory.holders else "",
    }


def _libraries(memory: DeviceMemory, words: Messages) -> Iterator[View]:
    if memory.kept_bytes:
        yield {
            "name": "",
            "title": words("models.libraries"),
            "share": memory.kept_bytes / max(1, memory.budget_bytes),
            "size": size(memory.kept_bytes),
            "state": str(ModelState.READY),
            "state_words": words("models.libraries_stay"),
            "help": words("models.libraries_help"),
            "unload": "",
        }


def _part(holder: Holder, budget_bytes: int, words: Messages, *, owner: bool) -> View:
    title = words("models.analysis", title=holder.title) if holder.is_analysis else holder.title
    return {
        "name": holder.name,
        "title": title,
        "share": holder.bytes / max(1, budget_bytes),
        "size": size(holder.bytes),
        "state": str(holder.state),
        "state_words": words(f"models.state_{holder.state}"),
        "help": words("models.analysis_help") if holder.is_analysis else "",
        "unload": words("models.do_unload") if owner and holder.state is ModelState.READY else "",
    }
