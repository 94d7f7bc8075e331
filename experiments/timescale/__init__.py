"""AdamW's best timescale over batch sizes and numbers of images."""
