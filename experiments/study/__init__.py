"""Why AdamW did not beat Adam: three guesses put to the test."""
