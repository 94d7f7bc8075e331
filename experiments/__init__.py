"""Experiments that show what Adam, Adam+L2 and AdamW do; `python -m experiments` lists them."""
