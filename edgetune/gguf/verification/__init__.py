"""Whether a GGUF does what it must: the check after every export, `edgetune verify` and `edgetune inspect`."""
