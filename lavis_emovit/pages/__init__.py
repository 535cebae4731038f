"""Pages in a browser for a tuned model, made with Gradio; they work without a network."""
