"""Which of some labels an answer gives: `reading` asks the others, by form."""
