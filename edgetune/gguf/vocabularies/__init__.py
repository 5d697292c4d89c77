"""Kinds of vocabulary, one file each, and the proof that llama.cpp's ids are the tokenizer's."""
