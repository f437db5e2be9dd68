"""`python -m llama_demo COMMAND`."""

from llama_demo.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
