"""Kinds of vocabulary, one file each, and the proof that llama.cpp reads them as the tokenizer does."""
