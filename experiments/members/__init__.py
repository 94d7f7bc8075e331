"""Which member of the family is worth a switch from AdamW."""
