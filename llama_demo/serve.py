"""Starts the page and the API on one port, and ends them in order. It decides nothing: settings say it all."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from llama_demo.errors import InvalidSetting, PortInUse
from llama_demo.file_errors import NoTemporaryFolder
from llama_demo.observe import LOG
from llama_demo.reasons import Reason
from llama_demo.runtime import Runtime
from llama_demo.settings import Settings
from llama_demo.space import keep_downloads

GRACE_SECONDS = 10.0
"""What is in flight when the app is told to end may take so long."""
LAST_WORDS_SECONDS = 5.0
"""What was said last has reached its readers within this time, or is not waited for."""


def serve(settings: Settings, ready: Callable[[str, str], None]) -> None:
    """Runs until interrupted. Once the page is up, `ready` is called with its address on this machine and that of the
    public link, empty where none was asked for or none could be made. Raises `PortInUse` and `NoTemporaryFolder`.

    Interrupted, it takes no new request, and gives those in flight `GRACE_SECONDS`; a second interruption ends at once.
    """
    check_port(settings.host, settings.port)
    check_temporary_folder()
    keep_downloads(os.environ)
    with Runtime(settings) as runtime:
        if settings.zero_gpu:
            runtime.place(runtime.default_model)
        else:
            runtime.prepare(runtime.default_model)
        from llama_demo import ui
        from llama_demo.api.connections import tell_to_the_end

        page = ui.build(runtime)
        try:
            launch(page, runtime)
            LOG.info("listening on %s port %d", settings.host, settings.port)
            ready(page.local_url, page.share_url or "")
            threading.Event().wait()
        finally:
            runtime.drain(GRACE_SECONDS)
            if page.is_running:
                tell_to_the_end(page.server, LAST_WORDS_SECONDS)
            page.close(verbose=False)


def launch(page: Any, runtime: Runtime) -> None:
    """Serves `page` with all other doors on the same port, and returns; `page.close` ends it."""
    from llama_demo import ui
    from llama_demo.api import routes
    from llama_demo.api.connections import bound_connections
    from llama_demo.api.gate import gates
    from llama_demo.api.metrics import metrics_route
    from llama_demo.api.owner import owner_routes
    from llama_demo.api.sign_in import sign_in_routes
    from llama_demo.ui.first_words import first_words
    from llama_demo.ui.patches import printing_to_log
    from llama_demo.ui.tools import offer_tools

    os.environ["FORWARDED_ALLOW_IPS"] = runtime.settings.trusted_proxies
    with printing_to_log():
        page.launch(
            server_name=runtime.settings.host,
            server_port=runtime.settings.port,
            share=runtime.settings.share,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
            mcp_server=True,
            app_kwargs={
                "routes": [
                    *routes(runtime),
                    *owner_routes(runtime),
                    *sign_in_routes(runtime),
                    metrics_route(runtime),
                ],
                "middleware": [*gates(runtime), first_words(runtime)],
            },
            **ui.launch_options(runtime),
        )
    bound_connections(page.server)
    offer_tools(page)


def check_port(host: str, port: int) -> None:
    """Before anything is started. Raises `PortInUse` where something listens there already, and `InvalidSetting` where
    nobody here may listen at all."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise InvalidSetting("--port", port, Reason("expected.port_above", least=1024)) from None
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise InvalidSetting("--host", host, Reason("expected.address_here")) from None
            raise PortInUse(host, port) from None


def check_temporary_folder() -> None:
    """Gradio and OpenVINO's process need one. Raises `NoTemporaryFolder`."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise NoTemporaryFolder from None
