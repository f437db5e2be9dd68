"""Puts what a Space needs of this repository into the Space that HF_SPACE names, and takes away what is no longer here.

Without HF_SPACE and HF_TOKEN it does nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = ("README.md", "LICENSE", "app.py", "requirements.txt", "llama_demo/*", "docs/*")
UNWANTED = ("*/__pycache__/*",)


def main(environment: Mapping[str, str]) -> int:
    space, token = environment.get("HF_SPACE", ""), environment.get("HF_TOKEN", "")
    if not space or not token:
        print("No Space is named by HF_SPACE, or HF_TOKEN is missing: nothing to do.")
        return 0
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        done = HfApi(token=token).upload_folder(
            repo_id=space,
            repo_type="space",
            folder_path=ROOT,
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
            delete_patterns="*",
            commit_message="Update from the repository",
        )
    except HfHubHTTPError as error:
        print(
            f"{space} could not be written with the secret HF_TOKEN: {error.server_message or error}", file=sys.stderr
        )
        return 1
    print(done.commit_url)
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
