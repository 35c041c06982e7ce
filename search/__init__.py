"""Searching a folder of pictures with a trained model: what is found and cut, the index, its queries and answers."""

import os

# Lance tells on stderr what is no news here (of a table that it is new, say); it reads this when it is imported.
os.environ.setdefault("LANCEDB_LOG", "error")
