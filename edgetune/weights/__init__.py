"""Base ⊕ adapter as a stream of named tensors, and what is written from it in Hugging Face's layout."""
