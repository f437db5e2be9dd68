# The app and its embedded model. docs/hosting.md says how it is built and run.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
# Where PyTorch is taken from first: the address that pytorch.org shows for Pip and CPU makes a small image without CUDA.
# Without it, PyTorch comes as everything else does: on Linux with CUDA.
ARG TORCH_INDEX=""
ENV LLAMA_DEMO_VENV=/opt/llama-demo PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements.txt dev.py ./
RUN python3 -m venv "$LLAMA_DEMO_VENV" \
    && if [ -n "$TORCH_INDEX" ]; then \
        "$LLAMA_DEMO_VENV/bin/pip" install --index-url "$TORCH_INDEX" "$(grep '^torch' requirements.txt)"; \
    fi \
    && python3 -c "import dev; dev.set_up(dev=False)"

FROM ${BASE}
RUN useradd --create-home --uid 1000 llama && mkdir /cache && chown llama /cache
COPY --from=packages /opt/llama-demo /opt/llama-demo
WORKDIR /app
COPY app.py LICENSE ./
COPY llama_demo llama_demo
# What is downloaded and converted stays in /cache. The last two let NVIDIA's container toolkit show the GPUs.
ENV PATH="/opt/llama-demo/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    LLAMA_DEMO_HOST=0.0.0.0 \
    LLAMA_DEMO_PORT=7860 \
    LLAMA_DEMO_CACHE_DIR=/cache/llama-demo \
    HF_HOME=/cache/huggingface \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
VOLUME /cache
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f'http://127.0.0.1:{os.environ[\"LLAMA_DEMO_PORT\"]}/health', timeout=9)"]
ENTRYPOINT ["python", "app.py"]
