"""Base and adapter as a stream of named tensors, and the merge to Hugging Face's layout."""
