"""What a model learns: one file per objective, chosen here."""
