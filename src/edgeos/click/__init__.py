"""Click configurations: the language of their elements, read and compiled for guests."""
