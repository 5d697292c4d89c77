"""Who loads the model and makes its layers quick: one file per backend."""
