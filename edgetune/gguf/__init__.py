"""Writes GGUF files: architecture, vocabulary, tensor types, lineage, llama.cpp's quantizer, and a check at the end."""
