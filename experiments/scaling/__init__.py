"""Which rule carries a tuned run over to another size."""
