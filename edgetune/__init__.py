"""edgetune: from a training recipe to a chat on a laptop without a GPU, with proof that nothing got worse."""

import builtins

__version__ = "0.1.0"

if hasattr(builtins, "get_ipython"):  # a notebook, or IPython on a terminal
    from edgetune.display import show_progress

    show_progress()
