"""edgeos."""
