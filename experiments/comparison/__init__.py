"""Adam, Adam+L2 and AdamW side by side."""
