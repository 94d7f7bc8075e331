"""What AdamW in fewer bytes costs."""
