"""Puts a folder's files into a repository of the Hugging Face Hub, private unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_demo.errors import InvalidParameter
from llama_demo.hub import is_repository
from llama_demo.push_errors import MayNotWrite, NotSignedIn, PublicRepository, PushFailed
from llama_demo.reasons import Reason


def check_name(repo: str) -> None:
    """Before anything is made that is to be put there. Raises `InvalidParameter` for what is no OWNER/NAME."""
    if not is_repository(repo):
        raise InvalidParameter("repo", repo, Reason("expected.repository"))


def push(folder: Path, repo: str, message: str, report: Callable[[int, int], None], *, private: bool = True) -> str:
    """Makes the model repository `repo` (OWNER/NAME) where it is not there and commits the folder's files to it as one;
    returns its address. `report` is told the bytes that are up, of how many; what it raises ends the push, and nothing
    is committed. The token is HF_TOKEN, or the one of `hf auth login`.

    Raises as `check_name`, `PublicRepository` where `private` was asked for and it is there
    and public, `PushFailed`.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    check_name(repo)
    api = HfApi()
    files = sorted(file for file in folder.iterdir() if file.is_file())
    additions = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in files]
    total, done = sum(file.stat().st_size for file in files), 0
    with _worded(repo):
        address = api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise PublicRepository(repo)
        for addition in additions:
            report(done, total)
            api.preupload_lfs_files(repo, additions=[addition])
            done += addition.upload_info.size
        report(done, total)
        api.create_commit(repo, additions, commit_message=message)
    return str(address)


@contextmanager
def _worded(repo: str) -> Iterator[None]:
    """What the Hub's client raises, as ours."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        kind = {401: NotSignedIn, 403: MayNotWrite}.get(status or 0, PushFailed)
        raise kind(repo, f"the Hub answered {status}" if status else "the Hub gave no answer") from None
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError):
        raise PushFailed(repo, "the connection to the Hub failed") from None
