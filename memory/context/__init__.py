"""What a model is given of memory before a question: chosen by a strategy, inside a budget, with an account of it."""
