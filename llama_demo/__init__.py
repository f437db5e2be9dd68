"""llama-demo: a Gradio web app for the Llama-2 family. Importing it reads nothing and does nothing."""

__version__ = "0.1.0"
