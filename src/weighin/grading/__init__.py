"""Predict, recount, score: what the grader image is made of. No torch here."""
