"""What a model is: its tensors, layers and heads, read from a config.json, safetensors or a GGUF file."""
