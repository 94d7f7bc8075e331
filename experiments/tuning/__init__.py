"""Tuning at equal budgets: what is tried, how it is scored, what is chosen, and what leads."""
