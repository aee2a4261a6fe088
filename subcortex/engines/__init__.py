"""The backends: llama.cpp, vLLM and remote servers behind one small protocol."""
